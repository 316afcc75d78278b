"""Where tests find data sets and checkpoints that are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def given_folder() -> Path:
    """The folder that MINIBERT_TEST_DATA names; without it the test that asks is skipped."""
    folder = os.environ.get("MINIBERT_TEST_DATA")
    if not folder:
        pytest.skip("needs MINIBERT_TEST_DATA, a folder of data sets and checkpoints")
    return Path(folder)


def data_file(name: str) -> Path:
    """A data set's file, such as "squad/dev-v1.1.json"."""
    return given_folder() / "data" / name
