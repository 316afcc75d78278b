"""scripts/pretrain.py, killed at its file operations again and again, ends in the same bytes."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import toy_corpus

FLAGS = [
    *("--sentences", "lines", "--vocab_size", 200, "--model_size", "tiny", "--max_seq_length", 24),
    *("--per_device_train_batch_size", 8, "--threads", 1, "--backend", "numpy", "--disable_tqdm"),
    *("--preprocessing_num_workers", 1, "--logging_steps", 2, "--max_steps", 8, "--eval_steps", 4),
    *("--max_eval_samples", 8, "--save_steps", 2, "--validation_documents", 2),
]
KILL = """
import os, signal
events, calls = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"), []
def hook(event, args):
    if event in events and {place!r} in str(args):
        calls.append(event)
        if len(calls) == {number}:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""


def files(folder: Path) -> dict[str, bytes]:
    """What does not depend on the machine's speed; without what is hidden."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    visible = (path for path in found if not str(path).startswith("."))
    timed = ("log.jsonl", "trainer_state.json")
    return {str(p): (folder / p).read_bytes() for p in visible if p.name not in timed}


@pytest.fixture
def start(process, tmp_path):
    """start(place, number, …) → the status of a run that is killed at that file operation."""
    corpus = toy_corpus.write(tmp_path / "corpus", documents=8)

    def run(place: Path, number: int, *more: Any) -> int:
        places = ["--corpus", corpus, "--store", place / "store", "--output_dir", place / "out"]
        code = KILL.format(place=str(place), number=number)
        running = process("pretrain", *places, *FLAGS, *more, code=code)
        _, said = running.communicate(timeout=120)
        assert running.returncode in (0, -signal.SIGKILL), said
        return int(running.returncode)

    return run


@pytest.mark.slow
def test_every_file_is_whole_and_the_last_as_if_nothing_had_happened(start, tmp_path):
    """Thirty kills or more; nothing is left of what was half written."""
    whole, draw, kills = tmp_path / "whole", random.Random(0), 0
    assert start(whole, 0, "--save_total_limit", 99) == 0
    wanted = {part: files(whole / part) for part in ("out", "store")}
    while kills < 30:
        killed, status = tmp_path / f"after {kills}", -1
        while status:
            last = any((killed / "out").glob("checkpoint-*"))
            resume = ["--resume_from_checkpoint", "last"] if last else ["--overwrite_output_dir"]
            status = start(killed, draw.randint(1, 200), *resume, "--save_total_limit", 99)
            kills += status != 0
            for part, in_the_end in wanted.items():
                now = files(killed / part)
                assert now.items() <= in_the_end.items()
                folders = {name.split("/")[0] + "/" for name in now if "/" in name}
                assert {n for n in in_the_end if n.startswith(tuple(folders))} <= now.keys()
        assert {part: files(killed / part) for part in wanted} == wanted
        assert not [path for path in killed.rglob(".minibert-*/**/*") if path.is_file()]
