"""What a pipeline answers → a line of output, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from minibert.pipelines.base import Pipeline
from minibert.pipelines.inputs import Item


def json_line(item: Item, result: Any) -> str:
    """{"input": …, "output": …}: what was given, and what the pipeline returns for it."""
    return _json({"input": item.given, "output": result})


def plain_line(item: Item, result: Any, task: str, answer: Pipeline) -> str:
    """The answer, a tab and the text."""
    given = item.given
    text = _json(given) if isinstance(given, dict) else given
    words = given if isinstance(given, list) else text.split("\n")  # CSV texts may have lines
    return f"{SHOWN[task](result, answer)}\t{' '.join(words)}"


def _json(value: Any) -> str:
    """On one line; half of a surrogate pair, which JSON can write, becomes "?"."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def _rows(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


def _labels(result: Any, answer: Any) -> str:
    regression = answer.problem_type == "regression"
    return "  ".join(
        ("" if regression else f"{row['label']} ") + f"{row['score']:.4f}" for row in _rows(result)
    )


def _entities(result: Any, answer: Any) -> str:
    kind = "entity" if any("entity" in row for row in result) else "entity_group"
    return "  ".join(
        f"{row[kind]} {row['start']}:{row['end']} {row['word']!r} {row['score']:.4f}"
        for row in result
    )


def _spans(result: Any, answer: Any) -> str:
    return "  ".join(
        f"{row['answer']!r} {row['start']}:{row['end']} {row['score']:.4f}" for row in _rows(result)
    )


def _choices(result: Any, answer: Any) -> str:
    return "  ".join(
        f"{row['label']} {row['choice']!r} {row['score']:.4f}" for row in _rows(result)
    )


def _fills(result: Any, answer: Any) -> str:
    masks = result if isinstance(result[0], list) else [result]
    return " | ".join(
        "  ".join(f"{row['token_str']} {row['score']:.4f}" for row in rows) for rows in masks
    )


def _numbers(result: Any, answer: Any) -> str:
    return " ".join(f"{number:.4f}" for number in result)


SHOWN: dict[str, Callable[[Any, Any], str]] = {
    "feature-extraction": _numbers,
    "fill-mask": _fills,
    "multiple-choice": _choices,
    "next-sentence-prediction": _labels,
    "question-answering": _spans,
    "sentence-similarity": _numbers,
    "text-classification": _labels,
    "token-classification": _entities,
}
"""(a task's result, its pipeline) → a text for people."""
