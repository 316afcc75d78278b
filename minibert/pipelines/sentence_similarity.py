"""Texts → vectors → how alike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError
from minibert.hub import DEFAULT_MODEL
from minibert.models import BertForSentenceEmbedding, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.pipelines.options import AS_USUAL, Reading
from minibert.tasks.sentence_embedding import unit_rows
from minibert.tokenization.checks import check_texts

FIELDS = ("source_sentence", "sentences")


class SentenceSimilarityPipeline(Pipeline):
    """alike("a text", ["one", "another"]) → [0.71, 0.12]: the cosine of each with the first.

    The input may be Hugging Face's {"source_sentence": …, "sentences": […]}, the {"inputs": …} of
    its servers with that in it, a list of such, or a stream. `embed` gives the vectors themselves.
    pooling ("mean", "max", "cls") and normalize, at construction, change the model's recipe.
    """

    task = "sentence-similarity"
    model_class: ClassVar[type[BertPreTrainedModel]] = BertForSentenceEmbedding
    default_model = DEFAULT_MODEL
    has_head = False
    of_model = ("pooling", "normalize")

    def __call__(self, inputs: Any, sentences: Sequence[str] | None = None, **options: Any) -> Any:
        """A list of cosines for each input."""
        if sentences is not None:
            inputs = dict(zip(FIELDS, (inputs, sentences), strict=True))
        return super().__call__(inputs, **options)

    def answers(self, inputs: list[Any], reading: Reading = AS_USUAL) -> list[list[float]]:
        """One list of cosines an input, in their order."""
        rows = [_texts(*numbered) for numbered in enumerate(inputs)]
        vectors = unit_rows(self.vectors([text for row in rows for text in row], reading))
        results, start = [], 0
        for row in rows:
            stop = start + len(row)
            cosines = vectors[start + 1 : stop] @ vectors[start]
            results.append(cosines.tolist())
            start = stop
        return results

    def embed(self, texts: Sequence[str], **options: Any) -> NDArray[np.float32]:
        """(R, H), a vector for each text, by the recipe of the model's directory.

        That is, its pooling, of unit length where it says so, and texts cut to its max_seq_length;
        as `SentenceTransformer.encode` does. `options`: those of a call.
        """
        check_texts("input", texts)
        reading = Reading(**self.options | self._checked(options))
        vectors = self.vectors(texts, reading)
        self.report(reading)
        return vectors

    def vectors(self, texts: Sequence[str], reading: Reading) -> NDArray[np.float32]:
        """`embed`, of a portion of a call's texts."""
        if not texts:
            return np.zeros((0, self.model.config.hidden_size), np.float32)
        if self.model.settings.do_lower_case:
            texts = [text.lower() for text in texts]
        return np.asarray(self.read(texts, None, reading)["sentence_embedding"])

    @property
    def max_length(self) -> int:
        """Tokens of a text that count: what the directory says, else what the model can take."""
        said = self.model.settings.max_seq_length or self.tokenizer.model_max_length
        return min(super().max_length, said or super().max_length)


def _texts(number: int, value: Any) -> list[str]:
    """An input's source sentence, and after it the others."""
    fields = value.get("inputs", value) if isinstance(value, Mapping) else None
    if isinstance(fields, Mapping) and set(fields) == set(FIELDS):
        source, sentences = (fields[name] for name in FIELDS)
        if isinstance(source, str) and isinstance(sentences, list | tuple):
            check_texts(f"input {number}, source_sentence", [source])
            check_texts(f"input {number}, sentence", sentences)
            return [source, *sentences]
    raise InputError(
        f'input {number}: wanted a text and a list of texts, or {{"source_sentence": text, '
        f'"sentences": [texts]}}, got {value!r:.80}'
    )
