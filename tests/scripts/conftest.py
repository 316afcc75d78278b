"""Running a script in this process, as its user would from a shell."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from minibert.io import command_line
from minibert.training import trainer

ROOT = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


class _Standard(io.TextIOWrapper):
    """Standard input as a pipe of these bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


@pytest.fixture
def script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """script("predict", "--model", …, stdin=b"…") → its exit status, stdout and stderr."""

    def run(name: str, *arguments: object, stdin: bytes = b"") -> Outcome:
        path = ROOT / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"_script_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", _Standard(stdin))
        monkeypatch.setattr(trainer, "measured_gemm_rate", lambda *_: 1e9)  # 0.2 s, only shown
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            command_line.run(module.main)
        captured = capsys.readouterr()
        return Outcome(int(caught.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.Popen[str]]:
    """process("finetune", …): the same in a process of its own; `code` runs before the script.

    Each output is a pipe, and warnings are shown.
    """

    def start(name: str, *arguments: object, code: str = "") -> subprocess.Popen[str]:
        path = str(ROOT / "scripts" / f"{name}.py")
        lines = [
            "import sys, runpy",
            f"sys.argv = {[path, *map(str, arguments)]!r}",
            code,
            f"runpy.run_path({path!r}, run_name='__main__')",
        ]
        return subprocess.Popen(
            [sys.executable, "-c", "\n".join(lines)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
