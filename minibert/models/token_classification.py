"""BertForTokenClassification: one label for each token."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from minibert.backend import Array, Backend
from minibert.layers.classifier import ClassifierCache, classifier_backward, classifier_forward
from minibert.layers.losses import CrossEntropyCache, cross_entropy_backward, cross_entropy_forward
from minibert.models.encoder import head_site
from minibert.models.shards import GradientSum, HeadResult, Run, Weights
from minibert.models.token_labels import TokenLabelledModel
from minibert.packing import PackedBatch


class TokenClassificationWeights(NamedTuple):
    W: Array  # (K, H)
    b: Array  # (K,)


class TokenClassificationCache(NamedTuple):
    classifier: ClassifierCache
    loss: CrossEntropyCache | None


class BertForTokenClassification(TokenLabelledModel):
    """logits (B, S, K) = classifier(dropout(encoder)), with no pooler; labels (B, S), −100 ignored.

    The loss is the mean cross-entropy over the labelled tokens of the batch.
    """

    Head = TokenClassificationWeights
    head = {"classifier.weight": "KH", "classifier.bias": "K"}  # noqa: RUF012
    token_outputs = ("logits",)

    def _copied_whole(self, batch: PackedBatch) -> list[NDArray[Any]]:
        labels = batch.token_labels
        return super()._copied_whole(batch) + ([] if labels is None else [labels])

    def _head_forward(
        self, xp: Backend, w: Weights, x: Array, shard: PackedBatch, count: Any, run: Run | None
    ) -> HeadResult:
        key = None if run is None else run.key(shard.first_token).at(head_site(self.config))
        W, b = w.head
        logits, classifier = classifier_forward(xp, x, W, b, self.config.head_dropout, key)
        loss, loss_cache = None, None
        if shard.token_labels is not None:
            labels = xp.to_device(shard.token_labels)
            loss, loss_cache = cross_entropy_forward(xp, logits, labels, count)
        cache = TokenClassificationCache(classifier, loss_cache)
        return HeadResult({}, cache, loss, token_rows={"logits": logits})

    def _head_backward(self, xp: Backend, dy: Array, cache: Any, gradients: GradientSum) -> Array:
        dlogits = cross_entropy_backward(xp, dy, cache.loss)
        dx, dW, db = classifier_backward(xp, dlogits, cache.classifier)
        gradients.add(gradients.weights.head, TokenClassificationWeights(dW, db))
        return dx
