"""Hidden directories for what is not whole yet, and an end to those of killed processes.

A scratch is locked while its process lives, so what a `kill -9` left is known and removed by the
next one. Locks hold between the processes of one kernel, which a scratch has in its name; of others
(a network file system, a system without such locks) the age decides.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

PREFIX = ".minibert-"
_STALE = 24 * 3600.0  # seconds; no save or download of ours lives as long


@contextmanager
def scratch_directory(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """A new hidden directory in `parent` (made if absent), removed when the block ends.

    What killed processes left behind there is removed first.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    scratch = parent / f"{PREFIX}{os.urandom(6).hex()}"
    scratch.mkdir()
    lock = _lock(scratch) if _kernel() else None
    try:
        if lock is not None:  # locked before it is called so: nobody takes it for a dead one's
            scratch = scratch.rename(scratch.with_name(f"{scratch.name}-{_kernel()}"))
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@cache
def _kernel() -> str:
    """Eight digits that no other running kernel has; "" where there are none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    return ""


def _lock(directory: Path) -> int | None:
    """Lock it until the descriptor is closed or the process ends; None where that fails."""
    import fcntl  # where there is a kernel's name there is this

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(parent: Path) -> None:
    """Remove what killed processes left in `parent`; what cannot be removed may stay.

    A scratch with an `old` directory in it may hold the only copy of what a process killed between
    the two renames of `new_directory` was about to replace: where only its age is known it stays.
    """
    for leftover in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if _kernel() and leftover.name.endswith(f"-{_kernel()}"):
                lock = _lock(leftover)
                if lock is not None:
                    try:
                        _finish(leftover)
                        shutil.rmtree(leftover, ignore_errors=True)
                    finally:
                        os.close(lock)
            elif any(leftover.glob("old*")):
                continue
            elif time.time() - leftover.stat().st_mtime >= _STALE:
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink()


def _finish(leftover: Path) -> None:
    """Do the second rename of `new_directory`, where its process was killed after the first."""
    if any(leftover.glob("old*")):
        for content in leftover.glob("new/*"):
            if not (leftover.parent / content.name).exists():
                content.rename(leftover.parent / content.name)
