"""Text → the entities in it, each with its place in the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minibert.data.features import Features
from minibert.errors import InputError
from minibert.models import BertForTokenClassification, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.pipelines.options import AS_USUAL, Reading, check_whole
from minibert.pipelines.texts import texts_of
from minibert.tasks.aggregation import AggregationStrategy, checked_strategy
from minibert.tasks.token_classification import TokenClassification
from minibert.tokenization import AlignedEncoding, BertTokenizer
from minibert.tokenization.checks import check_texts


class TokenClassificationPipeline(Pipeline):
    """ner("Ada lives in London") → a list of entities, as transformers' pipeline does."""

    task = "token-classification"
    model_class: ClassVar[type[BertPreTrainedModel]] = BertForTokenClassification
    remedy = "pass a stride (--stride) to read them in windows"

    def __init__(
        self,
        model: BertForTokenClassification,
        tokenizer: BertTokenizer,
        **options: Any,
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.decoder = TokenClassification.of_config(model.config)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """The entities of a text, of each of several, or of a stream of them, as a list each.

        A text may be {"text": …} as well.

        aggregation_strategy: "none" gives each token {"entity", "score", "index", "word", "start",
        "end"}; "simple", "first", "average" and "max" (`minibert.tasks.aggregation` has the rules)
        give {"entity_group", "score", "word", "start", "end"}. text[start:end] is what stands in
        the text, "word" what the tokenizer made of it. ignore_labels (["O"]): labels, or groups,
        left out. stride: a text that is too long for the model is read in windows that overlap by
        so many tokens; without it, it is cut. offset_mapping: the (start, end) of each token, those
        of [CLS] and [SEP] included, where the text was made of another one; of several texts a list
        each. is_split_into_words: a text is a list of words, and
        start and end count in those words joined by `delimiter` (" "); one such list is taken for
        a list of one.
        """
        if (self.options | options).get("is_split_into_words") and _are_words(inputs):
            inputs = [inputs]
        return super().__call__(inputs, **options)

    def answers(
        self,
        inputs: list[Any],
        reading: Reading = AS_USUAL,
        *,
        aggregation_strategy: AggregationStrategy = "none",
        ignore_labels: Sequence[str] = ("O",),
        stride: int | None = None,
        offset_mapping: Sequence[Any] | None = None,
        is_split_into_words: bool = False,
        delimiter: str = " ",
    ) -> list[list[dict[str, Any]]]:
        """One list of entities an input, in their order."""
        strategy = checked_strategy(aggregation_strategy)
        _check_stride(stride, strategy)
        if isinstance(ignore_labels, str) or not isinstance(ignore_labels, Iterable):
            raise InputError(f"ignore_labels: got {ignore_labels!r}, wanted a list of labels")
        if not isinstance(delimiter, str):
            raise InputError(f"delimiter: got {delimiter!r}, wanted a text")
        texts = inputs if is_split_into_words else texts_of(inputs)
        encodings = self._windows(texts, reading, stride, is_split_into_words)
        if not encodings:
            return []
        if offset_mapping is not None:
            encodings = _with_offsets(encodings, offset_mapping, len(texts))
        if is_split_into_words:  # offsets in the words → offsets in the text
            starts = [_starts(words, len(delimiter)) for words in texts]
            encodings = [e._replace(offsets=_in_the_text(e, starts[e.example])) for e in encodings]
            texts = [delimiter.join(words) for words in texts]
        features = Features([e.ids for e in encodings], [e.type_ids for e in encodings])
        return self.decoder.decode(
            self.predict(features, reading),
            encodings, texts, self.tokenizer, strategy, ignore_labels,
        )  # fmt: skip

    @property
    def max_length(self) -> int:
        """Tokens of a window: what the tokenizer says, if that is less than the model can take."""
        most = super().max_length
        return min(most, self.tokenizer.model_max_length or most)

    def _windows(
        self, texts: list[Any], reading: Reading, stride: int | None, is_split_into_words: bool
    ) -> list[AlignedEncoding]:
        """The windows of all texts, or lists of words."""
        if is_split_into_words:
            check_texts("input", texts, are_words=True)
        limit = self.limit(reading)
        encodings = self.tokenizer.encode_aligned(
            texts, None, limit, reading.strategy,
            stride=stride, is_split_into_words=is_split_into_words,
        )  # fmt: skip
        truncated = sum(encoding.truncated for encoding in encodings) if stride is None else 0
        reading.note(len(texts), truncated, limit)
        return encodings


def _check_stride(stride: object, strategy: str) -> None:
    if stride is None:
        return
    check_whole("stride", stride, 0)
    if strategy == "none":
        raise InputError(
            "stride: windows overlap, and only entities can be merged; pass "
            'aggregation_strategy="simple", "first", "average" or "max"'
        )


def _with_offsets(
    encodings: Sequence[AlignedEncoding], given: Sequence[Any], texts: int
) -> list[AlignedEncoding]:
    """Encodings with offsets of the caller's."""
    rows = [given] if texts == 1 and np.ndim(given[:1]) == 2 else given
    counts = [len(encoding.ids) for encoding in encodings]
    shapes = [np.shape(row) for row in rows]
    if len(encodings) != texts or shapes != [(count, 2) for count in counts]:
        raise InputError(
            f"offset_mapping: wanted (start, end) of each token of each text, {counts} of them "
            f"with [CLS] and [SEP], got {[shape[0] if shape else shape for shape in shapes]}"
        )
    return [
        encoding._replace(offsets=np.array(row, np.int32))
        for encoding, row in zip(encodings, rows, strict=True)
    ]


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
