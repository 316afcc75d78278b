"""Text → the last layer's vector of each of its tokens."""

from __future__ import annotations

from typing import Any, ClassVar

from minibert.data.features import Features
from minibert.models import BertModel, BertPreTrainedModel
from minibert.pipelines.base import Pipeline


class FeatureExtractionPipeline(Pipeline):
    """extract("some text") → [[[…], …]]: 1 × tokens × hidden size, [CLS] and [SEP] included."""

    model_class: ClassVar[type[BertPreTrainedModel]] = BertModel

    def answers(self, inputs: list[Any], *, return_tensors: bool = False) -> list[Any]:
        """One result an input, in their order: nested lists, or arrays (1, S, H).

        Texts longer than the model's position table are truncated.
        """
        if not inputs:
            return []
        encodings, truncated = self.tokenizer.encode(inputs, max_length=self.max_length)
        if truncated:
            self.warn(f"{truncated} of {len(inputs)} texts were cut to {self.max_length} tokens")
        features = Features([e.ids for e in encodings], [e.type_ids for e in encodings])
        rows = self.predict(features)["last_hidden_state"]
        return [row[None] if return_tensors else row[None].tolist() for row in rows]
