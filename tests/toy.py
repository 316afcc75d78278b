"""A task that a tiny model learns in a second, and that tiny model, for tests of the whole job.

Each text holds one word that is good or bad among some that say nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minibert import BertConfig, BertForSequenceClassification, BertTokenizer
from minibert.data.columns import Columns
from minibert.data.readers import Examples

GOOD, BAD = ["good", "great", "fine", "lovely"], ["bad", "awful", "poor", "dull"]
OTHERS = ["a", "the", "film", "was", "story", "plot", "very"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHERS]
SETTINGS: dict[str, Any] = {
    "learning_rate": 0.01,
    "per_device_train_batch_size": 16,
    "num_train_epochs": 8.0,
    "warmup_ratio": 0.0,
    "threads": 1,
    "backend": "numpy",
    "disable_tqdm": True,
}
"""Training arguments with which a model of `config()` learns the task."""


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of 2 to 8 words, labelled pos and neg, with as many of one as of the other."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        words = rng.choices(OTHERS, k=rng.randint(1, 7))
        words.insert(rng.randint(0, len(words)), rng.choice(BAD if i % 2 else GOOD))
        rows.append((" ".join(words), "neg" if i % 2 else "pos"))
    return rows


def examples(rows: Iterable[tuple[Any, ...]]) -> Examples:
    """Rows of (sentence1[, sentence2], label) as if they had been read from toy.tsv."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    pairs = len(columns) == 3
    return Examples(
        path=Path("toy.tsv"),
        columns=Columns("sentence1", "sentence2" if pairs else None, "label"),
        sentence1=columns[0],
        sentence2=columns[1] if pairs else None,
        labels=columns[-1],
        lines=list(range(2, len(columns[0]) + 2)),
    )


def write_tsv(path: Path, rows: Iterable[tuple[Any, ...]], header: str) -> Path:
    """A TSV file; `header` has its columns, separated by blanks."""
    lines = ["\t".join(map(str, row)) for row in [header.split(), *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tokenizer(extra: Iterable[str] = ()) -> BertTokenizer:
    return BertTokenizer.from_vocab([*VOCABULARY, *extra])


def config(**changes: Any) -> BertConfig:
    """L = 2, H = 12, N = 3, F = 20; dropout 0.1."""
    sizes: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "max_position_embeddings": 24,
        "initializer_range": 0.1,
    }
    return BertConfig(**sizes | changes)


def model(seed: int = 1, dtype: str = "float32", threads: int = 1, **changes: Any) -> Any:
    return BertForSequenceClassification(
        config(**changes), backend="numpy", dtype=dtype, seed=seed, threads=threads
    )


def save_model(directory: Path, **changes: Any) -> Path:
    """A Hugging Face directory with a tiny random model and the toy's tokenizer."""
    model(**changes).save_pretrained(directory, tokenizer=tokenizer())
    return directory
