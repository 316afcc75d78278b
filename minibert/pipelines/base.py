"""What all pipelines share: a model with its tokenizer, called with one input, many or a stream."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

from minibert.data.features import Features
from minibert.errors import InputError
from minibert.hub import resolve_model
from minibert.models import BertPreTrainedModel
from minibert.tasks.base import Outputs
from minibert.tokenization import BertTokenizer
from minibert.training.evaluation import predict

STREAM = 64  # inputs that a stream is read ahead


class Pipeline:
    """answer(input) → result, with the arguments and results of transformers' pipelines.

    A list of inputs gives a list of results; any other iterable is a stream and gives an iterator,
    which reads `batch_size` inputs (64) ahead. Inputs are batched by length, so their order costs
    nothing.
    """

    model_class: ClassVar[type[BertPreTrainedModel]]
    head: ClassVar[str | None] = None
    """How the names of the head's parameters begin; a model without them is not trained."""

    def __init__(self, model: Any, tokenizer: BertTokenizer, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.quiet = True
        """False: progress bars, and a warning for texts that were cut."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_directory: str | Path,
        *,
        batch_size: int | None = None,
        **model_arguments: Any,
    ) -> Self:
        """From a directory that `scripts/finetune.py` or transformers wrote, or a hub name."""
        directory = resolve_model(str(name_or_directory))
        model = cls.model_class.from_pretrained(directory, **model_arguments)
        report = model.load_report
        if cls.head and report and any(name.startswith(cls.head) for name in report.missing):
            raise InputError(
                f"{name_or_directory} has no trained {cls.head}: fine-tune it first, "
                f"python scripts/finetune.py --model_name_or_path {name_or_directory}"
            )
        return cls(model, BertTokenizer.from_pretrained(directory), batch_size)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """The result of one input, a list of results of a list, an iterator over a stream."""
        if isinstance(inputs, str | Mapping):
            return self.answers([inputs], **options)[0]
        if isinstance(inputs, list | tuple):
            return self.answers(list(inputs), **options)
        if isinstance(inputs, Iterable):
            return self._stream(inputs, **options)
        raise InputError(f"wanted a text, several, or a stream of them, got {inputs!r:.80}")

    def _stream(self, inputs: Iterable[Any], **options: Any) -> Iterator[Any]:
        ahead = iter(inputs)
        while chunk := list(islice(ahead, self.batch_size or STREAM)):
            yield from self.answers(chunk, **options)

    def answers(self, *args: Any, **options: Any) -> list[Any]:
        """answers(inputs, …) → one result an input, in their order."""
        raise NotImplementedError  # abstract: each pipeline defines it

    def predict(self, features: Features) -> Outputs:
        """The model's outputs for encoded inputs."""
        return predict(
            self.model,
            features,
            batch_size=self.batch_size,
            description="predicting",
            quiet=self.quiet,
        )[0]

    @property
    def max_length(self) -> int:
        """Tokens that the model's position table holds."""
        return int(self.model.config.max_position_embeddings)

    def warn(self, text: str) -> None:
        """A line on stderr, unless the pipeline is quiet."""
        if not self.quiet:
            print(f"warning: {text}", file=sys.stderr)


def text_and_pair(value: Any) -> tuple[Any, Any]:
    """An input as (text, second text or None): "text", or {"text": …, "text_pair": …}."""
    if not isinstance(value, Mapping):
        return value, None
    if "text" not in value or value.keys() - {"text", "text_pair"}:
        raise InputError(f'wanted {{"text": …, "text_pair": …}}, got {dict(value)!r:.80}')
    return value["text"], value.get("text_pair")
