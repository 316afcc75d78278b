"""What every script does around its main function: one clear line for an error."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from minibert.errors import InputError, Interrupted, Terminated, TrainingDiverged
from minibert.io import os_errors
from minibert.io.foreign_flags import advice


class Parser(argparse.ArgumentParser):
    """Flags by their full names, the description as it is written, and errors in one line.

    argparse alone would print a screenful of usage above its error. A flag of transformers' that
    this script has not is answered by what to use instead.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(
            description=description, formatter_class=layout, allow_abbrev=False, **options
        )

    def parse_args(  # type: ignore[override]  # argparse has one signature for each namespace
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """As argparse's; raises InputError."""
        # Intermixed: texts may stand before, between and after flags.
        parse = self.parse_known_args if self._subparsers else self.parse_known_intermixed_args
        known, unknown = parse(args, namespace)
        if unknown:
            self.error(self._about(unknown))
        return known

    def advice(self, name: str) -> str | None:
        """What to use for a flag of another program, where there is something."""
        return advice(name, self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raise InputError, which `run` prints."""
        raise InputError(f"{message}; --help lists the flags")

    def _about(self, unknown: Sequence[str]) -> str:
        """What to use for each flag, or that nobody knows it; values go with their flags."""
        said, rest, advised = list[str](), list[str](), False
        for item in unknown:
            if item.startswith("--"):
                name = item.removeprefix("--").split("=")[0]
                text = self.advice(name)
                advised = text is not None
                said += [f"--{name}: {text}"] if advised else []
            rest += [] if advised else [item]
        if rest:
            said.append(f"unrecognized arguments: {' '.join(rest)}")
        return "; ".join(dict.fromkeys(said))


def run(main: Callable[[], int | None]) -> None:
    """Run a script's main function and exit.

    Status 0: well done; 1: training diverged, or the disk is full; 2: an input to mend; 130 and
    143, as a shell says it: Ctrl-C and SIGTERM, which both let go of files and processes. (Where
    something was saved the message says how to go on.)
    """
    with _sigterm_raises():
        status = _status_of(main, Path(sys.argv[0]).name)
    sys.exit(status)


def _status_of(main: Callable[[], int | None], name: str) -> int:
    """Run it, and say what it raised."""
    status = 0
    try:
        status = main() or 0
        sys.stdout.flush()
    except InputError as error:
        status = _say(name, f"error: {error}", 2)
    except TrainingDiverged as error:
        status = _say(name, f"error: {error}", 1)
    except MemoryError as error:
        status = _say(name, f"error: out of memory ({error}): use a smaller batch, or more "
                      "--gradient_accumulation_steps", 1)  # fmt: skip
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        _drop_output()
    except OSError as error:
        _drop_output()
        status = _say(name, f"error: {os_errors.in_words(error)}{os_errors.advice(error)}", 1)
    except Interrupted as stop:
        status = _say(name, str(stop), 128 + stop.by)
    except Terminated:
        status = _say(name, "terminated", 143)
    except KeyboardInterrupt:
        status = _say(name, "interrupted", 130)
    return status


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """As Ctrl-C does, so that files and processes are let go of; unless it means something else."""

    def terminate(number: int, frame: Any) -> NoReturn:
        raise Terminated

    here = threading.current_thread() is threading.main_thread()  # elsewhere it cannot be said
    ours = here and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _drop_output() -> None:
    """Where standard output takes no more: Python would try again at its end, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(name: str, text: str, status: int) -> int:
    print(f"{name}: {text}", file=sys.stderr)
    return status
