"""The README.md of a saved model: what it is, from what, on what, and how good."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from minibert.io.numbers import four_places

EXAMPLES = {
    "text-classification": ("transformers", '"some text"'),
    "token-classification": ("transformers", '"some text"'),
    "fill-mask": ("transformers", '"The [MASK] is here."'),
    "question-answering": ("minibert", 'question="Who came?", context="Anna came home."'),
    "multiple-choice": (
        "minibert",
        '{"question": "It rains.", "choices": ["It is wet.", "It is dry."]}',
    ),
    "sentence-similarity": ("minibert", '"some text", ["another text", "a third"]'),
}
"""A task's pipeline: whose, and what to ask it. (transformers 5 has none for the lower three.)"""


def model_card(
    name: str,
    *,
    base_model: str,
    data: str,
    hyperparameters: Mapping[str, object],
    seed: int,
    metrics: Mapping[str, float],
    task: str = "text-classification",
    license: str | None = None,
    language: Sequence[str] = (),
    training: str = "fine-tuned",
    evaluated_on: str | None = None,
) -> str:
    """A model card: YAML front matter as the Hugging Face hub reads it, then Markdown.

    metrics: {"accuracy": 0.85, …} on held-out data, fractions as the metric defines them.
    evaluated_on: what data these are, where they are no part of `data`.
    language: codes such as "en"; no line of the card says one unless it is known.
    https://huggingface.co/docs/hub/model-cards
    """
    held_out = evaluated_on or data
    front = _front_matter(name, base_model, held_out, metrics, task, license, language)
    scores = {metric: four_places(value) for metric, value in metrics.items()}
    of = "" if evaluated_on is None else f": {_line(evaluated_on)}"
    results = [f"## Results on held-out data{of}", "", *_table("metric", scores), ""]
    library, asked = EXAMPLES[task]
    return "\n".join(
        [
            "---",
            *front,
            "---",
            f"# {_line(name)}",
            "",
            f"{_line(base_model)}, {training} on {_line(data)}",
            f"with minibert {_version()}, seed {seed}.",
            "",
            "```python",
            f"from {library} import pipeline",
            f'print(pipeline("{task}", "path/to/this/directory")({asked}))',
            "```",
            "",
            *(results if metrics else ()),
            "## Hyperparameters",
            "",
            *_table("name", {**hyperparameters, "seed": seed}),
            "",
        ]
    )


def _front_matter(
    name: str,
    base_model: str,
    data: str,
    metrics: Mapping[str, float],
    task: str,
    license: str | None,
    language: Sequence[str],
) -> list[str]:
    lines = ["library_name: transformers", f"pipeline_tag: {_yaml(task)}", "tags: [minibert]"]
    if language:
        lines.append(f"language: {_yaml(list(language))}")
    if license is not None:
        lines.append(f"license: {_yaml(license)}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base_model):  # the hub refuses anything but a hub id here
        lines.append(f"base_model: {_yaml(base_model)}")
    if metrics:
        result = {
            "task": {"type": task},
            "dataset": {"name": data, "type": "other"},
            "metrics": [{"type": metric, "value": value} for metric, value in metrics.items()],
        }
        lines.append(f"metrics: {_yaml(list(metrics))}")
        lines.append(f"model-index: {_yaml([{'name': name, 'results': [result]}])}")
    return lines


def _yaml(value: object) -> str:
    """JSON is YAML: quoted and escaped, whatever a name contains."""
    return json.dumps(value)


def _table(first: str, rows: Mapping[str, object]) -> list[str]:
    body = [f"| {_line(key)} | {_line(value)} |" for key, value in rows.items()]
    return [f"| {first} | value |", "|---|---|", *body]


def _line(value: object) -> str:
    """One line of Markdown that cannot break out of its table cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _version() -> str:
    try:
        return version("minibert")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "(source tree)"
