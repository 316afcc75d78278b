"""What a script ends with: one line on stderr, and a status."""

from __future__ import annotations

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
        (OSError(28, "No space left"), 1, "tool.py: error: [Errno 28] No space left"),
        (MemoryError("8 GiB"), 1, "tool.py: error: out of memory (8 GiB): use a smaller batch, or"),
        (Interrupted("saved; go on with …"), 130, "tool.py: saved; go on with …"),
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
