"""Scratch directories: of killed processes they are removed, of living ones never."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minibert.io import scratch
from minibert.io.scratch import scratch_directory

HOLD = (
    "import sys, time; from minibert.io.scratch import scratch_directory\n"
    "with scratch_directory(sys.argv[1]) as scratch:\n"
    "    (scratch / 'weights').write_text('half')\n"
    "    print(scratch, flush=True)\n"
    "    time.sleep(60)\n"
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_it_is_hidden_and_goes_with_the_block(tmp_path: Path) -> None:
    with scratch_directory(tmp_path / "new") as found:
        assert found.parent == tmp_path / "new"
        assert found.name.startswith(".")
        (found / "folder").mkdir()
    assert names(tmp_path / "new") == set()


@pytest.mark.skipif(not scratch._kernel(), reason="Linux says which kernel runs")
def test_a_killed_process_is_told_from_a_living_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().strip())
        with scratch_directory(tmp_path) as own, scratch_directory(tmp_path):
            assert {held.name, own.name} < names(tmp_path)
        assert (held / "weights").read_text() == "half"
        process.send_signal(signal.SIGKILL)
    assert names(tmp_path) == {held.name}
    with scratch_directory(tmp_path) as own:
        assert names(tmp_path) == {own.name}
    assert names(tmp_path) == set()


@pytest.mark.skipif(not scratch._kernel(), reason="Linux says which kernel runs")
@pytest.mark.parametrize("renames", [1, 2])
def test_a_kill_between_two_renames_is_mended(renames: int, tmp_path: Path) -> None:
    """The new directory was whole, and takes its place."""
    code = (
        "import os, signal, sys; from minibert.io.files import new_directory\n"
        "plain, calls = os.rename, []\n"
        "def rename(*names):\n"
        "    plain(*names)\n"
        "    calls.append(names)\n"
        f"    if len(calls) == {renames}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with new_directory(sys.argv[1]) as stage:\n"
        "    (stage / 'weights').write_text('new')\n"
        "    os.rename = rename\n"
    )
    target = tmp_path / "old model"
    target.mkdir()
    (target / "weights").write_text("old")
    killed = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert target.exists() == (renames == 2)
    with scratch_directory(tmp_path):
        assert (target / "weights").read_text() == "new"
    assert names(tmp_path) == {"old model"}


def test_where_nobody_knows_the_age_decides(tmp_path: Path) -> None:
    """Of another kernel's processes, say."""
    for name, age in {"young": 3600, "stale": 90000, "replacing": 90000}.items():
        leftover = tmp_path / f".minibert-{name}-01234567"
        (leftover / ("old0" if name == "replacing" else "new")).mkdir(parents=True)
        os.utime(leftover, (time.time() - age,) * 2)
    (tmp_path / ".minibert-file").write_text("half")
    os.utime(tmp_path / ".minibert-file", (0, 0))
    with scratch_directory(tmp_path):
        pass
    # "replacing" may hold the only copy of a directory that was being replaced.
    assert names(tmp_path) == {".minibert-young-01234567", ".minibert-replacing-01234567"}


def test_without_locks_it_is_the_same_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_kernel", lambda: "")
    with scratch_directory(tmp_path) as found, scratch_directory(tmp_path) as other:
        assert names(tmp_path) == {found.name, other.name}
    assert names(tmp_path) == set()
