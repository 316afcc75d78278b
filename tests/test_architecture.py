"""Imports run one way: from folder to folder, and from file to file, without a circle."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "minibert"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, inside its functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in MODULES else node.module for name in inner]
        else:
            continue
        yield from (name for name in found if name in MODULES)


def graph(room: Callable[[str], str]) -> dict[str, set[str]]:
    """Who imports whom, each module counted as a part of its room."""
    arrows: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        others = arrows.setdefault(room(name), set())
        others |= {room(other) for other in imported(path)} - {room(name)}
    return arrows


def folder(module: str) -> str:
    """The folder directly in minibert/, or the file, that a module belongs to."""
    return ".".join(module.split(".")[:2])


def test_folders_form_no_circle() -> None:
    arrows = graph(folder)
    arrows.pop("minibert")  # its __init__.py hands on names of all the others
    order = list(TopologicalSorter(arrows).static_order())  # CycleError names the circle
    places = [
        order.index(f"minibert.{name}") for name in ("backend", "layers", "models", "training")
    ]
    assert places == sorted(places)


def test_files_form_no_circle() -> None:
    TopologicalSorter(graph(lambda module: module)).prepare()


def test_layers_know_no_array_library() -> None:
    for path in (PACKAGE / "layers").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"numpy", "cupy"}, path
