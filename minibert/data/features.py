"""Encoded examples, and the order in which training sees them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError
from minibert.packing import PackedBatch, pack_sequences


class Batches(Protocol):
    """The batches of one epoch: for each what `TrainingData.batch` makes it of."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


class Order(Protocol):
    """The batches of every epoch."""

    def epoch(self, epoch: int) -> Batches: ...

    def count(self, epoch: int) -> int:
        """How many batches an epoch has."""
        ...

    def share(self, epoch: int) -> float:
        """How much of the data an epoch goes through, 1.0 where that is all."""
        ...

    def steps(self, num_train_epochs: float) -> int:
        """How many steps so many epochs are, and at least one."""
        ...

    def parts(self, total_steps: int) -> Sequence[tuple[Batches, int]]:
        """The parts of a run in which batches are made by one rule.

        An epoch of each, and its steps.
        """
        ...


class TrainingData(Protocol):
    """What training goes through: batches that are a function of (seed, epoch, number)."""

    def order(self, seed: int, batch_size: int, max_tokens: int | None, window: int) -> Order:
        """The batches of every epoch, by examples or by tokens; `window` as in `BatchOrder`."""
        ...

    def batch(self, which: Any, /) -> PackedBatch:
        """A batch of an epoch, packed."""
        ...

    def tokens(self, which: Any, /) -> int:
        """How many tokens it has, or at most has."""
        ...

    def fingerprint(self) -> str:
        """A hash of everything that training reads: a resumed run must see the same."""
        ...


@dataclass(frozen=True)
class Features:
    """Token ids of R examples, ready to be packed into batches.

    An example is one sequence, or `group` of them, neighbours in the lists.
    """

    ids: Sequence[NDArray[np.int32]]
    type_ids: Sequence[NDArray[np.int32]]
    labels: NDArray[Any] | None = None  # (R,) or (R, K)
    token_labels: Sequence[NDArray[np.int64]] | None = None  # a label a token, −100 for none
    group: int = 1  # sequences of an example: the choices of a question, the texts of a pair

    def __len__(self) -> int:
        return len(self.ids) // self.group

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,) tokens of each example."""
        lengths = np.array([len(ids) for ids in self.ids], np.int64)
        return lengths if self.group == 1 else np.add.reduce(lengths.reshape(-1, self.group), 1)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> PackedBatch:
        """The examples with these numbers, packed."""
        sequences = [i * self.group + j for i in indices for j in range(self.group)]
        tokens = self.token_labels
        return pack_sequences(
            [self.ids[i] for i in sequences],
            [self.type_ids[i] for i in sequences],
            None if self.labels is None else self.labels[indices],
            None if tokens is None else [tokens[i] for i in sequences],
            self.group,
        )

    def order(
        self, seed: int, batch_size: int, max_tokens: int | None = None, window: int = 1
    ) -> BatchOrder:
        """The batches of every epoch."""
        return BatchOrder(self.lengths, seed, batch_size, max_tokens, window)

    def tokens(self, indices: NDArray[np.int64]) -> int:
        """How many tokens the examples with these numbers have."""
        return int(self.lengths[indices].sum())

    def fingerprint(self) -> str:
        """A hash of everything that training reads."""
        digest = hashlib.sha256(self.lengths.tobytes())
        lists: list[Any] = [self.ids, self.type_ids]
        for arrays in lists + ([self.token_labels] if self.token_labels else []):
            digest.update(np.concatenate(arrays).tobytes())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class BatchOrder:
    """How examples are shuffled and cut into batches: a function of (seed, epoch) alone.

    A batch has `batch_size` examples or, where `max_tokens` is given, as many as that many tokens
    hold. `window` > 1 sorts by length within windows of that many batches (and shuffles the
    batches of a window), so that sequences of one length stand together.
    """

    lengths: NDArray[np.int64]
    seed: int
    batch_size: int = 32
    max_tokens: int | None = None
    window: int = 1

    def __post_init__(self) -> None:
        if self.max_tokens is not None and len(self.lengths) > 0:
            longest = int(self.lengths.max())
            if longest > self.max_tokens:
                raise InputError(
                    f"a batch of {self.max_tokens} tokens cannot hold the longest example, of "
                    f"{longest}: raise --max_tokens_per_batch, or lower --max_seq_length"
                )

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """The batches of one epoch, each the numbers of its examples."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        order = rng.permutation(len(self.lengths))
        if self.window <= 1:
            return list(self._cut(order))
        batches: list[NDArray[np.int64]] = []
        size = self.window * self._typical_batch()
        for start in range(0, len(order), size):
            part = order[start : start + size]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            cut = list(self._cut(part))
            batches += [cut[i] for i in rng.permutation(len(cut))]
        return batches

    def count(self, epoch: int) -> int:
        """How many batches an epoch has."""
        if self.max_tokens is None:
            return -(-len(self.lengths) // self.batch_size)  # the windows hold whole batches
        return len(self.epoch(epoch))

    def share(self, epoch: int) -> float:
        """All: no epoch is cut short."""
        return 1.0

    def steps(self, num_train_epochs: float) -> int:
        """How many steps so many epochs are; a part of an epoch is rounded up."""
        whole = int(num_train_epochs)
        steps = sum(map(self.count, range(whole)))
        if fraction := num_train_epochs - whole:
            steps += math.ceil(fraction * self.count(whole))
        return max(steps, 1)

    def parts(self, total_steps: int) -> Sequence[tuple[Batches, int]]:
        """One: the batches of the first epoch."""
        return [(self.epoch(0), total_steps)]

    def _typical_batch(self) -> int:
        if self.max_tokens is None:
            return self.batch_size
        return max(1, int(self.max_tokens / self.lengths.mean()))

    def _cut(self, order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        if self.max_tokens is None:
            return _cut(order, self.lengths, None, self.batch_size)
        return _cut(order, self.lengths, self.max_tokens, None)


def by_length(
    lengths: NDArray[np.int64], max_tokens: int, max_examples: int | None = None
) -> Iterator[NDArray[np.int64]]:
    """Batches for evaluation: longest first, at most `max_tokens` tokens (at least one example)."""
    return _cut(np.argsort(-lengths, kind="stable"), lengths, max_tokens, max_examples)


def _cut(
    order: NDArray[np.int64],
    lengths: NDArray[np.int64],
    max_tokens: int | None,
    max_examples: int | None,
) -> Iterator[NDArray[np.int64]]:
    """Examples in this order, as many in a batch as the limits allow, and at least one."""
    most_tokens = int(lengths.sum()) if max_tokens is None else max_tokens
    most = len(order) if max_examples is None else max_examples
    start, tokens = 0, 0
    for i, index in enumerate(order):
        tokens += int(lengths[index])
        if i > start and (tokens > most_tokens or i - start == most):
            yield order[start:i]
            start, tokens = i, int(lengths[index])
    if start < len(order):
        yield order[start:]
