"""Tokenising in processes, of which one is killed: no other outlives it, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import toy_corpus
from processes import LINUX, all_end, workers

from minibert.data.corpus import Corpus
from minibert.data.tokenizing import tokenised
from minibert.io.scratch import PREFIX

pytestmark = pytest.mark.skipif(not LINUX, reason="reads /proc")

CODE = """
import signal, sys, time
# A job in a shell's background is started with SIGINT ignored, and Python leaves it so.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = [{tests!r}]
import toy_corpus
from pathlib import Path
from minibert.data import tokenizing
from minibert.data.corpus import Corpus
from minibert.io.command_line import run
tokenizing.CHUNK = 100
plain = tokenizing._in_processes
def slow(*args):
    print("at work", flush=True)
    for result in plain(*args):
        print("at work", flush=True)
        time.sleep(0.2)
        yield result
tokenizing._in_processes = slow
corpus, store = Corpus([{corpus!r}]), Path({store!r})
run(lambda: tokenizing.tokenised(corpus, toy_corpus.tokenizer(), store, processes=2) and None)
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus([toy_corpus.write(tmp_path / "corpus", documents=40)])


@pytest.fixture
def start(corpus: Corpus, tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """start(n) → a process that makes a store of the corpus, after n of its forty chunks."""
    started: list[subprocess.Popen[str]] = []

    def run(chunks: int) -> subprocess.Popen[str]:
        code = CODE.format(
            tests=str(Path(__file__).parents[1]),
            corpus=str(tmp_path / "corpus"),
            store=str(tmp_path / "store"),
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        for _ in range(chunks + 1):
            assert process.stdout.readline() == "at work\n"
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "corpus")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_parent(number, start, corpus, tmp_path):
    process = start(3)
    spawned = workers(process.pid)
    assert len(spawned) == 2
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert all_end(spawned)
    if number == signal.SIGTERM:
        assert (process.returncode, said) == (143, "-c: terminated\n")
        assert left(tmp_path) == []
    else:
        assert process.returncode == -signal.SIGKILL
        (scratch,) = left(tmp_path)
        assert scratch.startswith(PREFIX)
    store = tokenised(corpus, toy_corpus.tokenizer(), tmp_path / "store", processes=2)
    assert store.num_documents == 40
    assert left(tmp_path) == ["store"]


def test_a_killed_process_is_said_in_one_line(start, tmp_path):
    """As the system ends one when memory is short."""
    process = start(3)
    spawned = workers(process.pid)
    os.kill(spawned[0], signal.SIGKILL)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said.count("\n")) == (1, 1)
    assert said.startswith("-c: error: one of 2 processes that tokenise ended before its work did")
    assert "killed for want of memory: set --preprocessing_num_workers 1" in said
    assert all_end(spawned)
    assert left(tmp_path) == []


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3])
def test_ctrl_c_while_processes_start_is_one_line(seconds, start, tmp_path):
    """A terminal sends it to all of them, and they are importing."""
    process = start(0)
    while not (spawned := workers(process.pid)):
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "-c: interrupted\n")
    assert all_end(spawned)
    assert left(tmp_path) == []
