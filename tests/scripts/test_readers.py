"""The examples that read a trace in other languages, each where its toolchain is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from traces import NANO

READERS = Path(__file__).resolve().parents[2] / "scripts" / "readers"
Reader = Callable[..., "subprocess.CompletedProcess[str]"]


def check(run: Reader) -> None:
    """The right layer passes; with eps 1e-5 it does not."""
    right, wrong = run(), run("1e-5")
    assert (right.returncode, wrong.returncode) == (0, 1), right.stderr + wrong.stderr
    assert right.stdout.startswith("activation/bert.embeddings.LayerNorm: error ")


def runner(*command: str | Path) -> Reader:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, NANO, *more], capture_output=True, text=True, check=False)

    return run


def test_c(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the C reader needs a C compiler")
    program = tmp_path / "reader"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, READERS / "reader.c", "-lm", "-o", program], check=True)
    check(runner(program))


def test_javascript() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("the JavaScript reader needs Node")
    check(runner(node, READERS / "reader.mjs"))


@pytest.mark.crosscheck
def test_pytorch() -> None:
    pytest.importorskip("torch", reason="the PyTorch reader needs PyTorch")
    check(runner(sys.executable, READERS / "pytorch_reader.py"))


@pytest.mark.crosscheck
def test_jax() -> None:
    pytest.importorskip("jax", reason="the JAX reader needs JAX")
    check(runner(sys.executable, READERS / "jax_reader.py"))
