"""What a task is: what the trainer, the scripts and the pipelines ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from minibert.data.features import Features
from minibert.models import BertPreTrainedModel
from minibert.tokenization import BertTokenizer

Outputs = Mapping[str, Sequence[NDArray[Any]]]
"""Fields of ModelOutput → host arrays in the order of the features, one for each example: an array
(R, …), or a list of arrays with a row for each real token. (Where each sequence of a group has its
own row, one for each sequence.)"""


class Measure(Protocol):
    """How well a model does: what training asks of a task.

    A task whose outputs are too large to keep also has `reduce`, see `training.evaluation`.
    """

    def metrics(self, outputs: Outputs, features: Features) -> dict[str, float]:
        """Scores by name."""
        ...

    @property
    def metric_names(self) -> Sequence[str]:
        """The names that `metrics` gives."""
        ...

    @property
    def best_metric(self) -> str:
        """The metric that chooses the best checkpoint."""
        ...


class Task(Measure, Protocol):
    """Features → head → metrics → answers; one file a task.

    Beside these a task has `of(train, …)`, what a training file says of it; `of_config(config)`,
    what a fine-tuned model was trained for; and `decode(outputs, …)` → what pipelines return.
    """

    model_class: ClassVar[type[BertPreTrainedModel]]

    def config_changes(self) -> dict[str, Any]:
        """What a model's configuration has to say for this task."""
        ...

    def features(
        self, examples: Any, tokenizer: BertTokenizer, max_length: int
    ) -> tuple[Features, int]:
        """Token ids and labels of a file, and how many texts were longer than `max_length`."""
        ...

    def predictions(self, outputs: Outputs, features: Features) -> Sequence[Any]:
        """A row for each example of a file, as predictions.jsonl has it."""
        ...
