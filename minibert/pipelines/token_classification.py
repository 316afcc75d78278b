"""Text → the entities in it, each with its place in the text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from minibert.data.features import Features
from minibert.errors import InputError
from minibert.models import BertForTokenClassification, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.tasks.aggregation import AggregationStrategy, checked_strategy
from minibert.tasks.token_classification import TokenClassification
from minibert.tokenization import AlignedEncoding, BertTokenizer

OPTIONS = ("aggregation_strategy", "ignore_labels", "stride", "is_split_into_words", "delimiter")


class TokenClassificationPipeline(Pipeline):
    """ner("Ada lives in London") → a list of entities, as transformers' pipeline does."""

    model_class: ClassVar[type[BertPreTrainedModel]] = BertForTokenClassification
    head = "classifier"

    def __init__(
        self,
        model: BertForTokenClassification,
        tokenizer: BertTokenizer,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        """options: those of a call, for all calls that do not say otherwise."""
        super().__init__(model, tokenizer, batch_size)
        self.options = options
        self.task = TokenClassification.of_config(model.config)

    @classmethod
    def from_pretrained(cls, name_or_directory: str | Path, **arguments: Any) -> Self:
        """As for every pipeline; the options of a call may be among the arguments."""
        options = {name: arguments.pop(name) for name in OPTIONS if name in arguments}
        found = super().from_pretrained(name_or_directory, **arguments)
        found.options = options
        return found

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """The entities of a text, of each of several, or of a stream of them, as a list each.

        aggregation_strategy: "none" gives each token {"entity", "score", "index", "word", "start",
        "end"}; "simple", "first", "average" and "max" (`minibert.tasks.aggregation` has the rules)
        give {"entity_group", "score", "word", "start", "end"}. text[start:end] is what stands in
        the text, "word" what the tokenizer made of it. ignore_labels (["O"]): labels, or groups,
        left out. stride: a text that is too long for the model is read in windows that overlap by
        so many tokens; without it, it is cut. is_split_into_words: a text is a list of words, and
        start and end count in those words joined by `delimiter` (" "); one such list is taken for
        a list of one.
        """
        options = self.options | options
        if options.get("is_split_into_words") and _are_words(inputs):
            inputs = [inputs]
        return super().__call__(inputs, **options)

    def answers(
        self,
        inputs: list[Any],
        *,
        aggregation_strategy: AggregationStrategy = "none",
        ignore_labels: Sequence[str] = ("O",),
        stride: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str = " ",
    ) -> list[list[dict[str, Any]]]:
        """One list of entities an input, in their order."""
        strategy = checked_strategy(aggregation_strategy)
        if stride is not None and strategy == "none":
            raise InputError(
                "stride: windows overlap, and only entities can be merged; pass "
                'aggregation_strategy="simple", "first", "average" or "max"'
            )
        if isinstance(ignore_labels, str):
            raise InputError(f"ignore_labels: got {ignore_labels!r}, wanted a list of labels")
        encodings = self._encode(inputs, stride, is_split_into_words, delimiter)
        if not encodings:
            return []
        texts = [delimiter.join(words) for words in inputs] if is_split_into_words else inputs
        features = Features([e.ids for e in encodings], [e.type_ids for e in encodings])
        outputs = self.predict(features)
        return self.task.decode(outputs, encodings, texts, self.tokenizer, strategy, ignore_labels)

    def _encode(
        self, inputs: list[Any], stride: int | None, is_split_into_words: bool, delimiter: str
    ) -> list[AlignedEncoding]:
        """The windows of all texts, with offsets that index the text."""
        limit = min(self.max_length, self.tokenizer.model_max_length or self.max_length)
        encodings = self.tokenizer.encode_aligned(
            inputs, max_length=limit, stride=stride, is_split_into_words=is_split_into_words
        )
        truncated = sum(encoding.truncated for encoding in encodings)
        if stride is None and truncated:
            self.warn(f"{truncated} of {len(inputs)} texts were cut to {limit} tokens; see stride")
        if not is_split_into_words:
            return encodings
        starts = [_starts(words, len(delimiter)) for words in inputs]
        return [e._replace(offsets=_in_the_text(e, starts[e.example])) for e in encodings]


def _are_words(inputs: Any) -> bool:
    is_list = isinstance(inputs, list | tuple) and len(inputs) > 0
    return is_list and all(isinstance(word, str) for word in inputs)


def _starts(words: Sequence[str], between: int) -> NDArray[np.int32]:
    """(W,) where each word begins in the words joined."""
    lengths = np.array([len(word) + between for word in words], np.int32)
    return np.cumsum(lengths, dtype=np.int32) - lengths


def _in_the_text(encoding: AlignedEncoding, starts: NDArray[np.int32]) -> NDArray[np.int32]:
    """(S, 2) offsets in the text, of offsets in its words."""
    in_text = encoding.sequence_ids >= 0
    offsets = encoding.offsets.copy()
    offsets[in_text] += starts[encoding.word_ids[in_text], None]
    return offsets
