"""Texts → vectors → how alike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minibert.data.features import Features
from minibert.errors import InputError
from minibert.models import BertForSentenceEmbedding, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.tasks.sentence_embedding import unit_rows

FIELDS = ("source_sentence", "sentences")


class SentenceSimilarityPipeline(Pipeline):
    """alike("a text", ["one", "another"]) → [0.71, 0.12]: the cosine of each with the first.

    The input may be Hugging Face's {"source_sentence": …, "sentences": […]}, a list of such, or a
    stream of them. `embed` gives the vectors themselves.
    """

    model_class: ClassVar[type[BertPreTrainedModel]] = BertForSentenceEmbedding

    def __call__(self, inputs: Any, sentences: Sequence[str] | None = None, **options: Any) -> Any:
        """A list of cosines for each input."""
        if sentences is not None:
            inputs = dict(zip(FIELDS, (inputs, sentences), strict=True))
        return super().__call__(inputs, **options)

    def answers(self, inputs: list[Any]) -> list[list[float]]:
        """One list of cosines an input, in their order."""
        texts: list[str] = []
        for value in inputs:
            source, sentences = _fields(value)
            texts += [source, *sentences]
        vectors = unit_rows(self.embed(texts))
        results, start = [], 0
        for value in inputs:
            stop = start + 1 + len(value["sentences"])
            cosines = vectors[start + 1 : stop] @ vectors[start]
            results.append(cosines.tolist())
            start = stop
        return results

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(R, H), a vector for each text, by the recipe of the model's directory.

        That is, its pooling, of unit length where it says so, and texts cut to its max_seq_length;
        as `SentenceTransformer.encode` does.
        """
        if not texts:
            return np.zeros((0, self.model.config.hidden_size), np.float32)
        if self.model.settings.do_lower_case:
            texts = [text.lower() for text in texts]
        encodings, truncated = self.tokenizer.encode(texts, max_length=self.max_length)
        if truncated:
            self.warn(f"{truncated} of {len(texts)} texts were cut to {self.max_length} tokens")
        features = Features([e.ids for e in encodings], [e.type_ids for e in encodings])
        return np.asarray(self.predict(features)["sentence_embedding"])

    @property
    def max_length(self) -> int:
        """Tokens of a text that count: what the directory says, else what the model can take."""
        said = self.model.settings.max_seq_length or self.tokenizer.model_max_length
        return min(super().max_length, said or super().max_length)


def _fields(value: Any) -> tuple[str, list[str]]:
    if isinstance(value, Mapping) and set(value) == set(FIELDS):
        source, sentences = (value[name] for name in FIELDS)
        if isinstance(source, str) and isinstance(sentences, list | tuple):
            return source, list(sentences)
    raise InputError(
        'sentence-similarity: wanted a text and a list of texts, or {"source_sentence": text, '
        f'"sentences": [texts]}}, got {value!r:.80}'
    )
