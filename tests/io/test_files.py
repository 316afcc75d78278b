from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minibert.errors import InputError
from minibert.io.files import (
    atomic_write,
    new_directory,
    refuse_unwritable,
    remove_directory,
    staged,
)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file under `directory`, hidden ones included, by its relative name."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are allocated late: a full disk may show itself only at fsync."""

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_atomic_write_takes_text_and_bytes(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", "é\n")
    atomic_write(tmp_path / "a", "ü\r\n")
    atomic_write(tmp_path / "b", b"\x00\xff")
    assert contents(tmp_path) == {"a": "ü\r\n".encode(), "b": b"\x00\xff"}


def test_atomic_write_keeps_mode_and_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    atomic_write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_mode_that_open_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    atomic_write(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="No space left"):
        atomic_write(tmp_path / "a", "new")
    assert contents(tmp_path) == {"a": b"old"}


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("writer", [staged, new_directory])
def test_a_full_disk_leaves_the_old_directory(writer, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(OSError, match="No space left"), writer(target) as scratch:
        (scratch / "weights").write_text("new")
    assert contents(tmp_path) == {"model/weights": b"old"}


@pytest.mark.parametrize("writer", [staged, new_directory])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_block_leaves_the_old_directory(writer, failure, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(failure), writer(target) as scratch:
        raise failure((scratch / "weights").write_text("new"))
    assert contents(tmp_path) == {"model/weights": b"old"}


def test_a_write_over_the_size_limit_leaves_the_old_file(tmp_path: Path) -> None:
    """The kernel's own failure in the middle of a write, not one of ours."""
    target = tmp_path / "weights"
    target.write_bytes(b"old")
    script = (
        "import resource, signal, sys; from minibert.io.files import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: atomic_write(sys.argv[1], bytes(8192))\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    command = [sys.executable, "-c", script, str(target)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"OSError\n"
    assert contents(tmp_path) == {"weights": b"old"}


def test_staged_replaces_its_files_and_keeps_others(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with staged(target) as scratch:
        (scratch / "config.json").write_text("1")
    (target / "notes").write_text("mine")
    with staged(target) as scratch:
        assert scratch.parent == target  # one file system, so that a rename is enough
        (scratch / "config.json").write_text("2")
        (scratch / "1_Pooling").mkdir()
        (scratch / "1_Pooling" / "config.json").write_text("3")
    expected = {"config.json": b"2", "1_Pooling/config.json": b"3", "notes": b"mine"}
    assert contents(target) == expected


def test_staged_moves_the_largest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(Path(b).name), replace(a, b)))
    with staged(tmp_path) as scratch:
        for name, size in (("a", 1), ("b", 3), ("c", 2), ("d", 2)):
            (scratch / name).write_bytes(bytes(size))
    assert moved == ["b", "c", "d", "a"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("writer", ["staged", "new_directory"])
def test_a_kill_in_the_block_leaves_the_old_directory(writer: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    script = (
        f"import sys, time; from minibert.io.files import {writer} as writer\n"
        "with writer(sys.argv[1]) as scratch:\n"
        "    (scratch / 'weights').write_text('ne')\n"
        "    print(scratch, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = contents(tmp_path)
    assert left.pop("model/weights") == b"old"
    assert list(left.values()) == [b"ne"]  # the scratch, hidden; see test_scratch


def test_new_directory_replaces_the_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    for text in ("1", "2"):
        with new_directory(target) as scratch:
            (scratch / f"only{text}").write_text(text)
            assert not (target / f"only{text}").exists()
    assert contents(tmp_path) == {"deep/model/only2": b"2"}


def test_new_directory_of_two_at_once(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with new_directory(target) as first, new_directory(target) as second:
        (first / "a").write_text("1")
        (second / "b").write_text("2")
    assert contents(tmp_path) == {"model/a": b"1"}


def test_new_directory_puts_back_what_it_cannot_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = tmp_path / "model", os.rename
    target.mkdir()
    (target / "weights").write_text("old")

    def failing(source: Path, destination: Path) -> None:
        if Path(source).parent.name == "new":
            raise PermissionError("not now")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(PermissionError), new_directory(target) as scratch:
        (scratch / "weights").write_text("new")
    assert contents(tmp_path) == {"model/weights": b"old"}


# ---- Errors and what else there is to directories ----


@pytest.mark.usefixtures("full_disk")
def test_an_error_names_what_the_user_knows(tmp_path: Path) -> None:
    """Not the scratch; a file in it by the name that it would have had."""
    with pytest.raises(OSError, match="No space") as caught:
        atomic_write(tmp_path / "a", "new")
    assert caught.value.filename == str(tmp_path / "a")
    for writer in (staged, new_directory):
        with pytest.raises(OSError, match="No space") as caught, writer(tmp_path / "b"):
            pass
        assert caught.value.filename == str(tmp_path / "b")
        with pytest.raises(FileNotFoundError) as caught, writer(tmp_path / "b") as scratch:
            (scratch / "c" / "d").write_text("")
        assert caught.value.filename == str(tmp_path / "b/c/d")
        with pytest.raises(FileNotFoundError) as caught, writer(tmp_path / "b"):
            (tmp_path / "e").read_text()
        assert caught.value.filename == str(tmp_path / "e")


def test_a_directory_is_gone_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far the removal of its files comes."""
    (tmp_path / "checkpoint/deep").mkdir(parents=True)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    remove_directory(tmp_path / "checkpoint")
    (hidden,) = tmp_path.iterdir()
    assert hidden.name.startswith(".")


@pytest.mark.parametrize("place", ["new/deep", "file/deep", "/proc/none", "x" * 300])
def test_a_place_is_tried_and_left_as_it_was(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    if place == "new/deep":
        refuse_unwritable(tmp_path / place, "--store")
    else:
        with pytest.raises(InputError, match=r"^--store .*: nothing can be written there \("):
            refuse_unwritable(tmp_path / place, "--store")
    assert contents(tmp_path) == {"file": b""}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
