"""The errors a user can cause, and mend."""

from __future__ import annotations

import signal


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, and how to mend it.

    Scripts print it as one line and exit with status 2; anything else is a bug and keeps its
    traceback.
    """


class CheckpointError(InputError):
    """A weight file or model directory is missing, damaged or does not fit the model."""


class HubError(InputError):
    """A model or data set could not be fetched."""


class TrainingDiverged(ArithmeticError):
    """The loss or a gradient is NaN or infinite; the message names the first such tensor."""


class Interrupted(Exception):
    """A signal came: what was done is saved, and the message says how to go on."""

    def __init__(self, message: str, by: int = signal.SIGINT) -> None:
        """by: the number of the signal."""
        super().__init__(message)
        self.by = by


class Terminated(KeyboardInterrupt):
    """SIGTERM, what a scheduler sends before it kills: as Ctrl-C, but for the exit status."""
