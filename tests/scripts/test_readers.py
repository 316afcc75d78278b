"""The examples that read a trace in other languages, each where its toolchain is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from traces import NANO

from minibert.backend.numpy_backend import NumpyBackend
from minibert.verify.trace.standard import nano
from minibert.verify.trace.writing import write_trace

READERS = Path(__file__).resolve().parents[2] / "scripts" / "readers"


def check(tmp_path: Path, *command: str | Path) -> None:
    """The right layer passes, with another eps not; a trace that lacks something is refused."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    bare = run()
    assert (bare.returncode, bare.stdout) == (2, "")
    assert bare.stderr.startswith("usage: ")
    assert len(bare.stderr.splitlines()) == 1
    setup = nano().replace(xp=NumpyBackend(), dropout=None, recipe=None)
    single, absent, thinned = (tmp_path / name for name in ("single", "absent", "thinned"))
    write_trace(single, setup.replace(dtype="float32"))
    write_trace(absent, setup, elsewhere={"file": "", "names": list(setup.weights)})
    write_trace(thinned, setup, limit=50)
    for path in (NANO, single):
        right, wrong = run(path), run(path, "1e-2")
        assert (right.returncode, wrong.returncode) == (0, 1), right.stderr + wrong.stderr
        assert right.stdout.startswith("activation/bert.embeddings.LayerNorm: error ")
    assert run(NANO, "1e-5").returncode == 1
    for path, message in (
        (tmp_path / "nowhere", "nowhere"),
        (absent, "LayerNorm.weight: of a checkpoint, make it with trace --store_weights"),
        (thinned, "is thinned: make the trace without --limit"),
    ):
        refused = run(path)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_c(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the C reader needs a C compiler")
    program = tmp_path / "reader"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, READERS / "reader.c", "-lm", "-o", program], check=True)
    check(tmp_path, program)


def test_javascript(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("the JavaScript reader needs Node")
    check(tmp_path, node, READERS / "reader.mjs")


@pytest.mark.crosscheck
def test_pytorch(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the PyTorch reader needs PyTorch")
    check(tmp_path, sys.executable, READERS / "pytorch_reader.py")


@pytest.mark.crosscheck
def test_jax(tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="the JAX reader needs JAX")
    check(tmp_path, sys.executable, READERS / "jax_reader.py")
