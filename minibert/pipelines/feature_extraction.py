"""Text → the last layer's vector of each of its tokens."""

from __future__ import annotations

from typing import Any, ClassVar

from minibert.hub import DEFAULT_MODEL
from minibert.models import BertModel, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.pipelines.options import AS_USUAL, Reading
from minibert.pipelines.texts import texts_of


class FeatureExtractionPipeline(Pipeline):
    """extract("some text") → [[[…], …]]: 1 × tokens × hidden size, [CLS] and [SEP] included."""

    task = "feature-extraction"
    model_class: ClassVar[type[BertPreTrainedModel]] = BertModel
    default_model = DEFAULT_MODEL
    has_head = False
    nested = "tokenize_kwargs"

    def answers(
        self, inputs: list[Any], reading: Reading = AS_USUAL, *, return_tensors: bool = False
    ) -> list[Any]:
        """One result an input, in their order: nested lists, or arrays (1, S, H).

        Texts longer than the model's position table are truncated.
        """
        if not inputs:
            return []
        rows = self.read(texts_of(inputs), None, reading)["last_hidden_state"]
        return [row[None] if return_tensors else row[None].tolist() for row in rows]
