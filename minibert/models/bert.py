"""BertModel: the encoder with its pooler, and no task."""

from __future__ import annotations

from typing import Any, NamedTuple

from minibert.backend import Array, Backend
from minibert.layers.pooler import pooler_forward
from minibert.models.base import BertPreTrainedModel
from minibert.models.pooled import POOLER
from minibert.models.shards import HeadResult, Run, Weights
from minibert.packing import PackedBatch


class PoolerWeights(NamedTuple):
    W: Array  # (H, H)
    b: Array  # (H,)


class BertModel(BertPreTrainedModel):
    """`.last_hidden_state` (B, S, H) and `.pooler_output` (B, H)."""

    Head = PoolerWeights
    head = POOLER
    token_outputs = ("last_hidden_state",)
    _returns_hidden = True

    def _head_forward(
        self, xp: Backend, w: Weights, x: Array, shard: PackedBatch, count: Any, run: Run | None
    ) -> HeadResult:
        first = xp.to_device(shard.first_rows)
        pooled, cache = pooler_forward(xp, x, w.head.W, w.head.b, first)
        return HeadResult({"pooler_output": pooled}, cache)
