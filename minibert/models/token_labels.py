"""What models with a label for each token share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minibert.models.base import BertPreTrainedModel
from minibert.models.labels import class_labels
from minibert.packing import PackedBatch, pack


class TokenLabelledModel(BertPreTrainedModel):
    """Labels (B, S), class numbers; −100 where a token has none."""

    @property
    def num_classes(self) -> int:
        """How many class numbers there are."""
        return self.config.num_labels

    def pack(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        **other_labels: Any,
    ) -> PackedBatch:
        """Padded arrays → a packed batch; labels (B, S)."""
        self._refuse(other_labels)
        return pack(input_ids, attention_mask, token_type_ids, token_labels=labels)

    def has_targets(self, batch: Any) -> bool:
        """Whether the tokens have labels."""
        return batch.token_labels is not None

    def _checked_labels(self, batch: PackedBatch) -> tuple[PackedBatch, int]:
        labels, count = class_labels(batch.token_labels, batch.num_tokens, self.num_classes)
        return replace(batch, token_labels=labels), count
