"""What a pipeline is made of: a model's directory, configuration and tokenizer, by name or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.hub import resolve_model
from minibert.tokenization import BertTokenizer


@contextmanager
def named(name: str | Path, revision: str | None = None) -> Iterator[Path]:
    """The directory of a model's name; errors in the block say the name, as the user typed it."""
    directory = resolve_model(str(name), revision=revision)
    try:
        yield directory
    except InputError as error:
        raise type(error)(str(error).replace(str(directory), str(name))) from None


def tokenizer_of(tokenizer: object) -> BertTokenizer | None:
    """A tokenizer, or one by its name."""
    if isinstance(tokenizer, str | Path):
        return BertTokenizer.from_pretrained(tokenizer)
    if tokenizer is not None and not isinstance(tokenizer, BertTokenizer):
        raise not_ours("tokenizer", tokenizer, "minibert.BertTokenizer")
    return tokenizer


def config_of(config: object) -> BertConfig | None:
    """A configuration, or that of a model's name."""
    if isinstance(config, str | Path):
        return BertConfig.from_pretrained(resolve_model(str(config)))
    if config is not None and not isinstance(config, BertConfig):
        raise not_ours("config", config, "minibert.BertConfig")
    return config


def not_ours(name: str, value: object, wanted: str) -> InputError:
    """The error for an object of another library."""
    return InputError(
        f"{name}: got a {type(value).__module__}.{type(value).__name__}, wanted a {wanted}, a "
        "directory or a hub name; another library's object goes through its save_pretrained"
    )
