"""Encodings → lists or arrays under transformers' names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError
from minibert.tokenization.encoding import NONE, AlignedEncoding, Encoding

Padding = bool | Literal["longest", "max_length"]


def check_padding(padding: object, return_tensors: object) -> None:
    """InputError for what is no way of padding, and no kind of array."""
    if not isinstance(padding, bool) and padding not in ("longest", "max_length"):
        raise InputError(f"padding: got {padding!r}, wanted True, False, longest or max_length")
    if return_tensors not in (None, "np"):
        raise InputError(f'return_tensors: got {return_tensors!r}, wanted "np" or None')


def padded_rows(
    encodings: Sequence[Encoding | AlignedEncoding],
    pad_id: int,
    padding: Padding,
    max_length: int | None,
    *,
    special_tokens_mask: bool,
    offset_mapping: bool,
    sample_mapping: bool,
) -> dict[str, list[Any]]:
    """{name: a row for each encoding}, padded on the right; the last three need aligned ones."""
    lengths = [encoding.ids.size for encoding in encodings]
    width = max(lengths, default=0) if padding in (True, "longest") else 0
    width = (max_length or 0) if padding == "max_length" else width
    pads = [max(0, width - length) for length in lengths]

    def padded(values: Iterable[list[Any]], pad: Any) -> list[list[Any]]:
        return [row + [pad] * count for row, count in zip(values, pads, strict=True)]

    rows: dict[str, list[Any]] = {
        "input_ids": padded((e.ids.tolist() for e in encodings), pad_id),
        "token_type_ids": padded((e.type_ids.tolist() for e in encodings), 0),
        "attention_mask": padded(([1] * length for length in lengths), 0),
    }
    full = [e for e in encodings if isinstance(e, AlignedEncoding)]
    if special_tokens_mask:
        masks = ((e.sequence_ids == NONE).astype(int).tolist() for e in full)
        rows["special_tokens_mask"] = padded(masks, 1)
    if offset_mapping:
        places = ([(start, end) for start, end in e.offsets.tolist()] for e in full)
        rows["offset_mapping"] = padded(places, (0, 0))
    if sample_mapping:
        rows["overflow_to_sample_mapping"] = [e.example for e in full]
    return rows


def as_array(rows: list[Any]) -> NDArray[np.int64]:
    """(B, S), or (B, S, 2) of pairs, or (B,) of numbers."""
    if any(isinstance(row, list) for row in rows) and len({len(row) for row in rows}) > 1:
        raise InputError(
            'return_tensors: texts of different lengths make no array; pass padding="longest"'
        )
    return np.array(rows, np.int64) if rows else np.zeros((0, 0), np.int64)
