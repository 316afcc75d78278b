"""Whether what a tokenizer is given are texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minibert.errors import InputError
from minibert.io.numbers import counted


def check_texts(name: str, texts: Any, are_words: bool = False) -> None:
    """InputError unless `texts` is a list of str or, with `are_words`, a list of such lists."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        wanted = "list of lists of str" if are_words else "list of str"
        raise InputError(f"{name}: got a {type(texts).__name__}, wanted a {wanted}")
    for index, text in enumerate(texts):
        if are_words:
            check_texts(f"{name} {index}, word", text)
        elif not isinstance(text, str):
            raise InputError(
                f"{name} {index}: got a {type(text).__name__} ({text!r}), wanted a str"
            )
        elif not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"{name} {index}: got half of a surrogate pair at character {error.start}, "
                    'wanted Unicode text; read the file as UTF-8, with errors="replace" if need be'
                ) from error


def check_pairs(texts: Any, pairs: Any, are_words: bool = False) -> None:
    """The same for texts and the second texts of their pairs; None: there are none."""
    check_texts("text", texts, are_words)
    if pairs is not None:
        check_texts("text_pair", pairs, are_words)
        if len(pairs) != len(texts):
            raise InputError(
                f"text_pair: got {counted(len(pairs), 'text')}, wanted {len(texts)}, one for each "
                "text"
            )


def is_one(text: object, are_words: bool) -> bool:
    """Whether `text` is one text, and not several."""
    if not are_words or not isinstance(text, list | tuple) or not text:
        return isinstance(text, str)
    return isinstance(text[0], str)
