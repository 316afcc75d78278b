"""The labels of a task against those that a model was trained for.

A model directory names its labels in config.json: LABEL_0, … where nobody named them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from minibert.config import BertConfig

_SHOWN = 12  # labels that a message names


def in_the_order_of(config: BertConfig, label2id: Mapping[str, int]) -> dict[str, int]:
    """The labels of a model that was trained for these, and may be for more; else these."""
    known = bool(label2id) and label2id.keys() <= config.label2id.keys()  # none: regression
    return dict(config.label2id if known else label2id)


def are_default(names: Collection[str]) -> bool:
    """Whether a model's labels have no names but LABEL_0, LABEL_1, …"""
    return list(names) == [f"LABEL_{i}" for i in range(len(names))]


def listed(names: Collection[str]) -> str:
    """The labels in a message; "a number" where there are none (regression)."""
    shown = ", ".join(list(names)[:_SHOWN]) or "a number"
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
