"""Files that are replaced whole or not at all: write beside, fsync, rename.

A full disk, an exception or a kill while the new content is being written leaves the old as it
was. `os.replace` is atomic within one file system, so the new always lies beside what it will
replace; the fsync before it keeps a power cut from leaving a new name on empty blocks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minibert.errors import InputError
from minibert.io.json_io import error_text
from minibert.io.scratch import scratch_directory


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path` in one step; its directory is made if absent.

    A symbolic link is followed: its target is replaced and the link stays. Raises OSError, which
    names the target, with the old file intact.
    """
    target = Path(os.path.realpath(path))
    with scratch_directory(target.parent) as scratch, _named(scratch / target.name, target):
        beside = scratch / target.name
        # "x", not tempfile: the new file gets the user's umask, not mode 0600.
        with open(beside, "xb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, beside)
        os.replace(beside, target)
        _fsync(target.parent)


@contextmanager
def staged(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Write several files into `directory` together: the block fills the scratch it is given.

    When the block ends well, every file is fsynced and then renamed into `directory` (made if
    absent), sub-directories included; files of other names stay. The largest goes first: the
    weights, then the small files that describe them. Until the first rename nothing in
    `directory` has changed, and an exception or a kill in the block changes nothing at all.
    The renames are atomic one by one, not together.
    """
    directory = Path(directory)
    with scratch_directory(directory) as scratch, _named(scratch, directory):
        yield scratch
        written = _fsync_tree(scratch)
        for source in sorted(written, key=lambda file: (-file.stat().st_size, file)):
            target = directory / source.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
        for folder in {(directory / file.relative_to(scratch)).parent for file in written}:
            _fsync(folder)


@contextmanager
def new_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Make the whole directory `path` at once: the block fills a scratch beside it.

    When the block ends well, every file is fsynced and the scratch renamed to `path`. What stood
    there is renamed aside first and removed last; between the two renames there is nothing at
    `path`, and what a kill left there the next scratch beside it mends. Of several processes that
    do this together each succeeds, and the last one's directory stays.
    """
    path = Path(os.path.realpath(path))
    with scratch_directory(path.parent) as scratch:
        content = scratch / "new" / path.name  # under its name: a sweep can put it there
        content.mkdir(parents=True)
        with _named(content, path):
            yield content
            _fsync_tree(content)
            _exchange(content, path)
            _fsync(path.parent)


def remove_directory(path: Path) -> None:
    """Remove it in one step for all who look: half a directory could be taken for a whole one."""
    with scratch_directory(path.parent) as scratch:
        os.rename(path, scratch / "gone")
    _fsync(path.parent)


def refuse_unwritable(directory: Path, flag: str) -> None:
    """InputError where nothing can be written into `directory`, which `flag` named.

    It is not made: what is absent is tried, and removed again.
    """
    made = [path for path in (directory, *directory.parents) if not os.path.exists(path)]
    try:
        with scratch_directory(directory):
            pass
    except OSError as error:
        raise InputError(
            f"{flag} {directory}: nothing can be written there ({error_text(error)}); choose "
            f"another {flag}"
        ) from error
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def _named(scratch: Path, target: Path) -> Iterator[None]:
    """An OSError says the name that a file in `scratch` would have had, or at least `target`."""
    try:
        yield
    except OSError as error:
        name = None if error.filename is None else Path(str(error.filename))
        if error.errno is None or not (name is None or name.is_relative_to(scratch)):
            raise
        path = target if name is None else target / name.relative_to(scratch)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _exchange(content: Path, path: Path) -> None:
    """Rename what stands at `path` aside, into the scratch, and `content` to `path`."""
    for attempt in range(10):  # another process may put its own there between our two renames
        aside = content.parent.with_name(f"old{attempt}")
        with suppress(FileNotFoundError):
            os.rename(path, aside)
        try:
            os.rename(content, path)
            return
        except OSError as error:
            failure = error
            if not path.exists():
                break
    if aside.exists() and not path.exists():
        os.rename(aside, path)
    raise failure


def _fsync_tree(root: Path) -> list[Path]:
    """Flush to the disk everything under `root`; returns its files."""
    entries = list(root.rglob("*"))
    for entry in [*entries, root]:
        _fsync(entry)
    return [entry for entry in entries if not entry.is_dir()]


def _fsync(path: Path) -> None:
    on_windows = os.name == "nt"
    if on_windows and path.is_dir():
        return  # Windows has no handle for a directory, and needs none
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
