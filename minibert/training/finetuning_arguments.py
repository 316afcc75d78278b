"""What fine-tuning learns from: the flags of files and of which examples of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minibert.errors import InputError
from minibert.hub import DEFAULT_MODEL
from minibert.training.arguments import option
from minibert.training.kinds import KINDS

REVIEWS = "10,566 movie-review snippets (Hutto & Gilbert 2014)"
REVIEWS_RECIPE = {"num_train_epochs": 1.0, "learning_rate": 2e-4}
"""One epoch at a rate that suits MiniLM: minutes on a laptop. Flags override it."""
LENGTHS = {"question-answering": 384}


@dataclass
class DataArguments:
    """What to train, on what. Files may be compressed (.gz)."""

    task: str | None = option(
        None, "what to learn", tuple(KINDS),
        shown="text-classification; of a finished model, its own",
    )  # fmt: skip
    model_name_or_path: str = option(
        DEFAULT_MODEL, "a local directory or a name on the hub", metavar="DIR"
    )
    model_revision: str | None = option(None, "of a model on the hub: a branch, tag or commit")
    train_file: str | None = option(
        None, "training data", shown="the movie reviews", metavar="FILE"
    )
    validation_file: str | None = option(
        None, "chooses the best checkpoint", shown="a part of train_file", metavar="FILE"
    )
    test_file: str | None = option(
        None, "measured once, at the end; without labels: predicted", metavar="FILE"
    )
    validation_split_percentage: int = option(
        10, "of train_file, where no validation_file is given"
    )
    max_seq_length: int | None = option(
        None,
        "longer texts are truncated to that many tokens; questions: the windows' length",
        shown="128; question-answering 384",
    )
    max_train_samples: int | None = option(None, "use the first N training examples")
    max_eval_samples: int | None = option(None, "use the first N validation examples")
    max_predict_samples: int | None = option(None, "use the first N test examples")
    ignore_mismatched_sizes: bool = option(False, "replace a head of other labels by a new one")
    do_train: bool = option(False, "train", shown="all three, unless some of them are named")
    do_eval: bool = option(False, "evaluate on the validation file", shown="as do_train")
    do_predict: bool = option(False, "measure or predict the test file", shown="as do_train")

    def __post_init__(self) -> None:
        if not (self.do_train or self.do_eval or self.do_predict):
            self.do_train = self.do_eval = self.do_predict = True
        if self.max_seq_length is not None and self.max_seq_length < 3:
            raise InputError(f"--max_seq_length must be at least 3, got {self.max_seq_length}")
        if not 0 < self.validation_split_percentage < 100:
            raise InputError("--validation_split_percentage must be between 1 and 99")

    @property
    def description(self) -> str:
        """The training data in words."""
        return self.train_file or REVIEWS

    @property
    def length(self) -> int:
        """Tokens of a text, or of a window of a question's context."""
        return self.max_seq_length or LENGTHS.get(self.task or "", 128)


def defaults(named: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of the default run; else what --help shows."""
    return {} if named.get("train_file") or named.get("task") else REVIEWS_RECIPE
