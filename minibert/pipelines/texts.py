"""Inputs of a pipeline that are texts, or pairs of texts → ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minibert.errors import InputError
from minibert.tokenization import BertTokenizer
from minibert.tokenization.checks import check_texts
from minibert.tokenization.encoding import Encoding
from minibert.tokenization.truncation import Truncation


def texts_of(inputs: Sequence[Any]) -> list[str]:
    """Inputs that are texts, or {"text": …}."""
    texts, pairs = pairs_of(inputs)
    if pairs is not None:
        raise InputError('a "text_pair" is of no use to this pipeline: wanted {"text": …}')
    return texts


def pairs_of(inputs: Sequence[Any]) -> tuple[list[str], list[str | None] | None]:
    """Inputs as texts and, where one has some, second texts.

    An input is a text, {"text": …} or {"text": …, "text_pair": …}.
    """
    texts: list[Any] = []
    pairs: list[Any] = []
    for number, value in enumerate(inputs):
        row = value if isinstance(value, Mapping) else {"text": value}
        if "text" not in row or row.keys() - {"text", "text_pair"}:
            wanted = 'a text, or {"text": …, "text_pair": …}'
            raise InputError(f"input {number}: wanted {wanted}, got {value!r:.80}")
        texts.append(row["text"])
        pairs.append(row.get("text_pair"))
    check_texts("input", texts)
    if all(pair is None for pair in pairs):
        return texts, None
    check_texts("text_pair of input", ["" if pair is None else pair for pair in pairs])
    return texts, pairs


def encoded(
    tokenizer: BertTokenizer,
    texts: Sequence[str],
    pairs: Sequence[str | None] | None,
    limit: int,
    truncation: Truncation,
) -> tuple[list[Encoding], int]:
    """`BertTokenizer.encode` of texts, of pairs, or of some of both."""
    if pairs is None:
        return tokenizer.encode(texts, None, limit, truncation)
    encodings: dict[int, Encoding] = {}
    cut = 0
    for alone in (True, False):
        numbers = [i for i, second in enumerate(pairs) if (second is None) is alone]
        firsts, seconds = [texts[i] for i in numbers], [pairs[i] or "" for i in numbers]
        found, shortened = tokenizer.encode(firsts, None if alone else seconds, limit, truncation)
        encodings |= zip(numbers, found, strict=True)
        cut += shortened
    return [encodings[i] for i in range(len(texts))], cut
