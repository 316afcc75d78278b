"""The files of a tokenizer: tokenizer.json, vocab.txt and tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minibert.errors import InputError
from minibert.io.json_io import error_text, read_json_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer, normalizers

    Vocabulary = str | Path | Mapping[str, int] | Sequence[str] | Tokenizer

UNK = "[UNK]"


def tokenizer_of(vocab: Any, settings: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a file or of pieces, as `BertTokenizer` takes them."""
    from tokenizers import Tokenizer

    if isinstance(vocab, Tokenizer):
        return vocab
    if isinstance(vocab, str | Path):
        return _tokenizer_at(Path(vocab), settings)
    if isinstance(vocab, Mapping):
        pieces = sorted(vocab, key=vocab.__getitem__)
        if [vocab[piece] for piece in pieces] != list(range(len(pieces))):
            raise InputError(f"vocab: wanted the ids 0 to {len(pieces) - 1}, each once")
        return wordpiece(pieces, settings)
    if isinstance(vocab, Sequence):
        return wordpiece(vocab, settings)
    raise InputError(f"vocab: got {vocab!r:.80}, wanted the path of a vocab.txt, or its pieces")


def _tokenizer_at(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """That of a vocab.txt, or a tokenizer.json, which the user names."""
    if not path.is_file():
        raise InputError(f"{path} is no file; BertTokenizer.from_pretrained takes a model's name")
    try:
        if path.suffix == ".json":
            return read_tokenizer_json(path, settings)
        return wordpiece(read_vocab(path), settings)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_directory(directory: Path) -> tuple[Any, dict[str, Any]]:
    """What a model directory holds for `BertTokenizer`: its `vocab` and its settings."""
    config, whole, vocab = (
        directory / name for name in ("tokenizer_config.json", "tokenizer.json", "vocab.txt")
    )
    settings = read_json_object(config) if config.exists() else {}
    settings.pop("vocab_file", None)  # a path on somebody's disk
    if whole.exists():
        return read_tokenizer_json(whole, settings), settings
    if vocab.exists():
        return read_vocab(vocab), settings
    raise InputError(
        "wanted tokenizer.json or vocab.txt, it holds neither; copy them from the model this one "
        "was made from"
    )


def write_directory(
    directory: Path, tokenizer: Tokenizer, settings: Mapping[str, Any], special: Mapping[str, str]
) -> None:
    """tokenizer.json, vocab.txt, tokenizer_config.json and special_tokens_map.json."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    write_vocab(directory / "vocab.txt", tokenizer.get_vocab())
    config = {"tokenizer_class": "BertTokenizer", **settings, **special}
    for name, values in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        (directory / name).write_text(text, encoding="utf-8")


def wordpiece(vocab: Sequence[str], settings: Mapping[str, Any]) -> Tokenizer:
    """BERT's normalizer, pre-tokenizer and WordPiece over `vocab`, pieces in the order of ids.

    settings: do_lower_case (True), strip_accents (None: as do_lower_case) and
    tokenize_chinese_chars (True), as in tokenizer_config.json.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    ids = {token: index for index, token in enumerate(vocab)}
    if len(ids) != len(vocab):
        line, twice = next(item for item in enumerate(vocab) if ids[item[1]] != item[0])
        raise InputError(
            f"vocabulary: got {twice!r} as piece {line} and again as {ids[twice]}, wanted every "
            "piece once; remove one of them, or take the vocabulary the model was trained with"
        )
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNK))
    tokenizer.normalizer = _normalizer(settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def read_tokenizer_json(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a tokenizer.json; what `settings` says explicitly rules over it."""
    from tokenizers import Tokenizer, normalizers

    text = _read_text(path)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the package raises a bare Exception
        raise InputError(
            f"{path.name}: not a tokenizer ({error}); copy it again, or remove it so that "
            "vocab.txt is used"
        ) from error
    normalizer = tokenizer.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        own = {
            "do_lower_case": normalizer.lowercase,
            "strip_accents": normalizer.strip_accents,
            "tokenize_chinese_chars": normalizer.handle_chinese_chars,
        }
        tokenizer.normalizer = _normalizer({**own, **settings})
    return tokenizer


def read_vocab(path: Path) -> list[str]:
    """The pieces of a vocab.txt: one a line, the line number (from 0) is the id."""
    # Not splitlines(): multilingual vocabularies contain U+0085 and U+2028 as pieces.
    lines = _read_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip(" \t"):
            raise InputError(
                f"{path.name}: line {number} is blank, wanted one piece on every line; "
                "removing it would shift the ids after it: fetch the file again"
            )
    return lines


def write_vocab(path: Path, ids: Mapping[str, int]) -> None:
    """Write vocab.txt, unless its format (a token a line, no id skipped) cannot hold `ids`."""
    tokens = sorted(ids, key=ids.__getitem__)
    gaps = any(ids[token] != index for index, token in enumerate(tokens))
    if not gaps and all(token.strip(" \t") and "\n" not in token for token in tokens):
        path.write_text("\n".join(tokens) + "\n", encoding="utf-8", newline="\n")


def _normalizer(settings: Mapping[str, Any]) -> normalizers.BertNormalizer:
    from tokenizers import normalizers

    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_flag(settings, "tokenize_chinese_chars", True),
        strip_accents=_flag(settings, "strip_accents", None),
        lowercase=_flag(settings, "do_lower_case", True),
    )


def _flag(settings: Mapping[str, Any], name: str, default: bool | None) -> Any:
    value = settings.get(name, default)
    if isinstance(value, bool) or value is default:
        return value
    raise InputError(f"{name} in tokenizer_config.json: got {value!r}, wanted true or false")


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path.name}: {error_text(error)}; fetch it again") from error
