"""Of what corpus and settings something was made, and whether that has changed since.

A record holds `made_of` (the files with sizes and times, and the settings) and `corpus_sha256` (of
each file): a file that was only copied or touched has not changed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from minibert.errors import InputError
from minibert.io.files import atomic_write
from minibert.io.json_io import error_text, read_json_object

SOURCE = "made_of.json"  # beside a vocabulary


def source_record(made_of: Mapping[str, Any]) -> dict[str, Any]:
    """What SOURCE holds; taken before a vocabulary is learnt, a later change will show."""
    return {"made_of": made_of, "corpus_sha256": hashes_of(name for name, *_ in made_of["files"])}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write it as JSON, in one step."""
    atomic_write(path, json.dumps(record, indent=1) + "\n")


def keep_times(path: Path, record: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Put the files' new times into the record at `path`, of which nothing else has changed."""
    if record["made_of"] != now:
        with suppress(OSError):  # where nothing can be written the next start asks again
            write_record(path, {**record, "made_of": now})


def check_source(directory: Path, made_of: Mapping[str, Any]) -> None:
    """Raises InputError for a vocabulary of another corpus or other settings, as `open_store` does.

    One from before this was noted is taken as it is; one with a damaged record is not.
    """
    if not (directory / SOURCE).exists():
        return
    record = _read_record(directory / SOURCE)
    if changed := differences(record, made_of):
        raise InputError(
            f"{directory}: the corpus or the settings have changed since this vocabulary was "
            f"learnt ({first_three(changed)}); add --overwrite_store to make it and the tokenised "
            "corpus anew, or name another --store"
        )
    keep_times(directory / SOURCE, record, made_of)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = read_json_object(path)
    except InputError:
        record = {}
    if not _is_record(record):
        raise InputError(
            f"{path}: it is damaged, and does not say of what the vocabulary was learnt; add "
            "--overwrite_store to make it and the tokenised corpus anew, or name another --store"
        )
    return record


def _is_record(head: Mapping[str, Any]) -> bool:
    """Whether it says all that `differences` asks of it."""
    made_of, hashes = head.get("made_of"), head.get("corpus_sha256", {})
    files = made_of.get("files") if isinstance(made_of, dict) else None
    return (
        isinstance(hashes, dict)
        and isinstance(files, list)
        and all(isinstance(f, list) and len(f) == 3 and isinstance(f[0], str) for f in files)
    )


def first_three(changed: Sequence[str]) -> str:
    """As an error names them."""
    return ", ".join(changed[:3]) + (" …" if len(changed) > 3 else "")


def hashes_of(names: Iterable[str]) -> dict[str, str]:
    """The sha256 of each file, whatever its size.

    A file is read once, until it changes or `forget_hashes` is called: vocabulary and store ask
    for the same ones.
    """
    found = {}
    for name in names:
        try:
            s = os.stat(name)
            found[name] = _sha256(name, (s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns))
        except OSError as error:
            raise InputError(f"{name}: the file cannot be read: {error_text(error)}") from error
    return found


@functools.cache
def _sha256(name: str, state: tuple[int, ...]) -> str:
    with open(name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def forget_hashes() -> None:
    """Let go of the memory, some hundred bytes a file, when no more will be asked for."""
    _sha256.cache_clear()


def differences(head: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The files of the corpus that have changed, else the settings.

    A file of the same size and time has not; of one with another time the content decides. Where
    `head` is no record, all have.
    """
    then = head["made_of"] if _is_record(head) else {"files": []}
    before, after = ({f[0]: f[1:] for f in made["files"]} for made in (then, now))
    names = sorted(before | after)
    changed = [name for name in names if before.get(name, [])[:1] != after.get(name, [])[:1]]
    if not changed:
        hashes = hashes_of(name for name in names if before[name] != after[name])
        known = head.get("corpus_sha256", {})
        changed = [name for name, sha256 in hashes.items() if sha256 != known.get(name)]
    if changed:
        return changed
    timeless = [made | {"files": [f[:2] for f in made["files"]]} for made in (then, dict(now))]
    keys = (*now, *(then.keys() - now.keys()))
    return [key for key in keys if timeless[0].get(key) != timeless[1].get(key)]
