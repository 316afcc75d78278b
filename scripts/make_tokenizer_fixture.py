#!/usr/bin/env python3
"""Write tests/fixtures/tokenizer.json: what transformers makes of hard texts.

    python scripts/make_tokenizer_fixture.py [FILE]        (needs the [crosscheck] extra)

The vocabulary is cut down to those pieces of MiniLM's that the texts are split into. WordPiece
takes the longest piece that fits, so each text is split as by the whole vocabulary (it is checked).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import transformers

from minibert.hub import DEFAULT_MODEL, resolve_model
from minibert.io.command_line import Parser, run
from minibert.tokenization.files import read_vocab

SETTINGS = [
    {"do_lower_case": True},
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": True, "tokenize_chinese_chars": False},
]
TEXTS = [
    "",
    " \t\r\n\u00a0\u3000\u2003",
    "The quick brown fox, unbelievably!",
    "don't U.S.A. $3.50 a_b-c «quoted» “curly” … #tag @me 50% ~/x <br/>",
    "naïve café CAFÉ e\u0301 E\u0301\u0323 Ångström ﬁne ﬂow ß ẞ İstanbul ı ŉ ǆ",
    "ΟΔΥΣΣΕΥΣ ὀδυσσεύς Ω Å Привет ЁЖ ё שָׁלוֹם مُحَمَّد हिन्दी ไทย",
    "中文字符and the電影,한국어 한글 ひらがなカタカナｶﾞ、。！",
    "豈更 \U00020000\U0002a6df㐀 〇々ー",
    "😀 good👍🏽 👩‍👩‍👧‍👦 🇫🇷☺️ ❤ ♥️ 1️⃣",
    "a\x00b\x07c\ufffdd\u200be\u00adf\u2028g\x85h\ufeffi\u2060j\x7fk\x9fl",
    "[CLS] in [SEP] a [MASK]ed text[UNK] [PAD] [sep] [ SEP ] [MASK][MASK] [mask]",
    "x" * 100 + " " + "y" * 101 + " " + "é" * 100 + " " + "e\u0301" * 60,
    "Donaudampfschifffahrtsgesellschaftskapitän antidisestablishmentarianism",
    "http://example.org/a?b=c&d=e#f me@example.com C:\\temp\\x.txt v1.2.3-rc4",
    "def f(x: int) -> str:\n\treturn f'{x!r}'  # ünï",
    "\U0010ffff\ue000\U000e0001 \U0001d400\U0001d44e ℌℂ ½ ² ⅻ ① ﷺ",
    "##ing ## # #a ##\u0301 \u0301 \u0301a",
    "tab\tnew\nline\rreturn\x0bvertical\x0cfeed\x1funit",
    "Ẁ̂ạ̈ḍ̇ Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
    "１２３ ＡＢＣ ａｂｃ Ⅷ ㍿ 株式会社 ﾊﾝｶｸ ﹁縦﹂",
]


def expected(vocab: list[str], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Ids, offsets and word numbers of each text, by transformers."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
        Path(directory, "tokenizer_config.json").write_text(json.dumps(settings))
        tokenizer = transformers.BertTokenizer.from_pretrained(directory)
    batch = tokenizer(TEXTS, return_offsets_mapping=True)
    return [
        {
            "ids": batch["input_ids"][i],
            "offsets": [list(pair) for pair in batch["offset_mapping"][i]],
            "word_ids": batch.word_ids(i),
        }
        for i in range(len(TEXTS))
    ]


def main(file: Path) -> None:
    """Write the fixture."""
    whole = read_vocab(resolve_model(DEFAULT_MODEL) / "vocab.txt")
    by_whole = [expected(whole, settings) for settings in SETTINGS]
    used = {whole[index] for case in by_whole for text in case for index in text["ids"]}
    vocab = [piece for piece in whole if piece in used]
    by_small = [expected(vocab, settings) for settings in SETTINGS]
    for case, truth in zip(by_small, by_whole, strict=True):
        for small, large in zip(case, truth, strict=True):
            assert [vocab[i] for i in small["ids"]] == [whole[i] for i in large["ids"]], small
    values = {
        "made_by": "scripts/make_tokenizer_fixture.py",
        "transformers": transformers.__version__,
        "vocab": vocab,
        "texts": TEXTS,
        "cases": [
            {"settings": settings, "expected": case}
            for settings, case in zip(SETTINGS, by_small, strict=True)
        ],
    }
    file.write_text(json.dumps(values, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    here = Path(__file__).parent.parent / "tests" / "fixtures" / "tokenizer.json"
    parser = Parser(__doc__)
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, default=here)
    run(lambda: main(parser.parse_args().file))
