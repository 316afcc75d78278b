"""What a sentence-transformers directory says: which pooling, unit vectors or not, how many tokens.

Such a directory is a Hugging Face model directory with three more things:
  modules.json               the steps of the recipe: Transformer, Pooling and perhaps Normalize
  1_Pooling/config.json      the kind of pooling
  sentence_bert_config.json  max_seq_length (newer ones leave it to tokenizer_config.json)
They are written in the older of the package's two forms, which all its versions read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minibert.errors import CheckpointError, InputError
from minibert.io.json_io import read_json, read_json_object

POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
}
_OLD, _NEW = "pooling_mode_", "pooling_mode"


@dataclass(frozen=True)
class SentenceSettings:
    """How the vectors of a text's tokens become one vector."""

    pooling: str = "mean"  # or "cls", "max"
    normalize: bool = True  # to length 1
    max_seq_length: int | None = None  # longer texts are cut to so many tokens; None: not said
    do_lower_case: bool = False  # lower-case a text before the tokenizer sees it

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InputError(f"pooling {self.pooling!r}: choose one of {', '.join(POOLINGS)}")


def read_sentence_settings(directory: str | Path) -> SentenceSettings | None:
    """The recipe in a model directory; None where it is no sentence-transformers directory.

    CheckpointError for a recipe with other steps (Dense, …) or another pooling.
    """
    directory = Path(directory)
    modules = directory / "modules.json"
    if not modules.exists():
        return None
    steps = _steps(modules)
    if list(steps) not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise CheckpointError(
            f"{modules}: got the steps {', '.join(steps) or 'none'}, wanted Transformer, Pooling "
            "and perhaps Normalize; other recipes are not supported"
        )
    if steps["Transformer"]:
        raise CheckpointError(
            f"{modules}: the model lies in {steps['Transformer']!r}, wanted beside modules.json; "
            "move that folder's files up and set the path to the empty string"
        )
    config = directory / "sentence_bert_config.json"
    values = read_json_object(config) if config.exists() else {}
    length = values.get("max_seq_length")
    if length is not None and (type(length) is not int or length < 3):
        raise CheckpointError(
            f"{config}: max_seq_length: got {length!r}, wanted 3 or more, or null"
        )
    pooling = _pooling(directory / steps["Pooling"] / "config.json")
    lower = bool(values.get("do_lower_case"))
    return SentenceSettings(pooling, "Normalize" in steps, length, lower)


def write_sentence_settings(
    directory: str | Path, settings: SentenceSettings, hidden_size: int
) -> None:
    """Make a model directory one that sentence-transformers loads, with this recipe.

    The files are not replaced atomically: write into a staged directory, as save_checkpoint does.
    """
    directory = Path(directory)
    names = ["Transformer", "Pooling"] + ["Normalize"] * settings.normalize
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{name}" if i else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]
    pooling = {"word_embedding_dimension": hidden_size} | {
        flag: name == settings.pooling for name, flag in POOLINGS.items()
    }
    length = {"max_seq_length": settings.max_seq_length, "do_lower_case": settings.do_lower_case}
    (directory / "1_Pooling").mkdir(exist_ok=True)
    for name, values in (
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", length),
    ):
        text = json.dumps(values, indent=2) + "\n"
        (directory / name).write_text(text, encoding="utf-8")


def _steps(path: Path) -> dict[str, str]:
    """{class name: its folder} in the order of modules.json."""
    modules = read_json(path)
    if not isinstance(modules, list) or not all(
        isinstance(module, Mapping)
        and isinstance(module.get("type"), str)
        and isinstance(module.get("path", ""), str)
        for module in modules
    ):
        raise CheckpointError(f'{path}: wanted a list of {{"type": …, "path": …}}; fetch it again')
    return {module["type"].rpartition(".")[2]: module.get("path", "") for module in modules}


def _pooling(path: Path) -> str:
    values = read_json_object(path)
    modes = _modes(values)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise CheckpointError(
            f"{path}: got the pooling {' + '.join(map(str, modes)) or 'none'}, wanted one of "
            f"{', '.join(POOLINGS)}; other poolings are not supported"
        )
    return str(modes[0])


def _modes(values: Mapping[str, Any]) -> list[Any]:
    """The kinds of pooling that a config asks for, in its newer or its older form."""
    if _NEW in values:
        modes = values[_NEW]
        return list(modes) if isinstance(modes, list) else [modes]
    names = {flag: name for name, flag in POOLINGS.items()}
    asked = [key for key, value in values.items() if key.startswith(_OLD) and value is True]
    return [names.get(key, key.removeprefix(_OLD)) for key in asked]
