"""What a script ends with: one line on stderr, and a status."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from minibert.errors import HubError, InputError, Interrupted, TrainingDiverged
from minibert.io.command_line import Parser, run


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (InputError("no such file"), 2, "tool.py: error: no such file"),
        (HubError("no network"), 2, "tool.py: error: no network"),
        (TrainingDiverged("step 3: NaN"), 1, "tool.py: error: step 3: NaN"),
        (
            OSError(errno.ENOSPC, "full", "out/a"),
            1,
            "tool.py: error: out/a: full; make room on that",
        ),
        (
            OSError(errno.EACCES, "not you", "a"),
            1,
            "tool.py: error: a: not you; allow it, or choose",
        ),
        (OSError("a could not be saved"), 1, "tool.py: error: a could not be saved"),
        (MemoryError("8 GiB"), 1, "tool.py: error: out of memory (8 GiB): use a smaller batch, or"),
        (Interrupted("saved; go on with …"), 130, "tool.py: saved; go on with …"),
        (Interrupted("saved; go on with …", signal.SIGTERM), 143, "tool.py: saved; go on with …"),
        (KeyboardInterrupt(), 130, "tool.py: interrupted"),
    ],
)
def test_an_error_is_one_line_and_a_status(raised, status, line, monkeypatch, capsys):
    def main() -> None:
        raise raised

    monkeypatch.setattr(sys, "argv", ["some/where/tool.py"])
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == status
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown.startswith(line)


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_main_may_return_a_status(returned, status):
    with pytest.raises(SystemExit) as caught:
        run(lambda: returned)
    assert caught.value.code == status


def test_a_bug_keeps_its_traceback():
    def main() -> Any:
        return {}[0]

    with pytest.raises(KeyError):
        run(main)


def test_a_parser_shows_its_description_as_it_is_written(capsys):
    with pytest.raises(SystemExit):
        Parser("First line.\n\n    an example\n").parse_args(["--help"])
    assert "First line.\n\n    an example\n" in capsys.readouterr().out


def test_texts_may_stand_between_flags():
    parser = Parser()
    parser.add_argument("source")
    parser.add_argument("queries", nargs="*", default=[])
    parser.add_argument("--top_k", type=int)
    for given in ("a b --top_k 3 c", "a --top_k 3 b c", "--top_k 3 a b c", "a --top_k 3 -- b c"):
        args = parser.parse_args(given.split())
        assert (args.source, args.queries, args.top_k) == ("a", ["b", "c"], 3)
    assert parser.parse_args(["a", "--top_k=3", "--", "-5"]).queries == ["-5"]
    with pytest.raises(InputError, match="unrecognized arguments: --absent b; --help"):
        parser.parse_args(["a", "--absent", "b"])
    with pytest.raises(InputError, match="required: source;"):
        parser.parse_args(["--top_k", "3"])


RUN = "import os, signal, sys, time; from minibert.io.command_line import run\n"


def test_sigterm_lets_go_as_ctrl_c_does():
    code = RUN + (
        "def main():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('let go')\n"
        "sys.argv = ['tool.py']\n"
        "run(main)\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (ended.returncode, ended.stdout, ended.stderr)
    assert said == (143, "let go\n", "tool.py: terminated\n")


def test_what_somebody_else_does_at_sigterm_stays(monkeypatch):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as caught:
            run(lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert caught.value.code == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a disk that is always full")
def test_output_that_finds_no_room_is_one_line():
    code = RUN + "sys.argv = ['tool.py']\nrun(lambda: print('a result'))\n"
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", code]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    line = "tool.py: error: No space left on device; make room on that disk, and start again\n"
    assert ended.stderr == line
