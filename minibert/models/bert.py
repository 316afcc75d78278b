"""BertModel: the encoder with its pooler, and no task."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend
from minibert.layers.pooler import PoolerCache, pooler_forward
from minibert.models.base import BertPreTrainedModel, Run, ShardResult, Weights
from minibert.models.encoder import EncoderCache, encoder_forward, tokens
from minibert.packing import PackedBatch


class PoolerWeights(NamedTuple):
    W: Array  # (H, H)
    b: Array  # (H,)


POOLER = {"bert.pooler.dense.weight": "HH", "bert.pooler.dense.bias": "H"}


class BertModelCache(NamedTuple):
    encoder: EncoderCache
    pooler: PoolerCache


class BertModel(BertPreTrainedModel):
    """`.last_hidden_state` (B, S, H) and `.pooler_output` (B, H)."""

    Head = PoolerWeights
    head = POOLER
    _returns_hidden = True

    def _forward_shard(
        self,
        xp: Backend,
        w: Weights,
        shard: PackedBatch,
        count: int,
        run: Run | None,
        hidden_states: list[Array] | None,
    ) -> ShardResult:
        x, encoder = encoder_forward(
            xp, w.encoder, tokens(xp, shard), self.config, None, hidden_states
        )
        first = xp.to_device(shard.first_rows)
        pooled, pooler = pooler_forward(xp, x, w.head.W, w.head.b, first)
        return ShardResult({"pooler_output": pooled}, x, BertModelCache(encoder, pooler))
