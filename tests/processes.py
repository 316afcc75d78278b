"""Processes of other processes, as Linux's /proc lists them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

LINUX = Path("/proc/self/stat").exists()


def workers(parent: int) -> list[int]:
    """What it has spawned, without multiprocessing's tracker."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            spawned = b"spawn_main" in (folder / "cmdline").read_bytes()
            if spawned and _stat(int(folder.name))[1] == str(parent):
                found.append(int(folder.name))
    return found


def all_end(pids: list[int], seconds: float = 20) -> bool:
    """Whether they do within that time."""
    end = time.monotonic() + seconds
    while any(map(_lives, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return _stat(pid)[0] != "Z"  # one that nobody has asked about is dead all the same
    return False


def _stat(pid: int) -> list[str]:
    """State, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
