"""The errors a user can cause, and mend."""

from __future__ import annotations


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
    """Ctrl-C: the run was saved, and the message says how to go on."""
