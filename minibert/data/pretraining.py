"""Batches for pretraining, made when they are asked for: newly masked in every epoch.

Pairs of sentences are newly cut in every epoch too; full sequences keep their cuts.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.data.draws import Purpose, draws
from minibert.data.features import Features
from minibert.data.masking import Masking
from minibert.data.segments import Example, Ints, Segmentation
from minibert.errors import InputError
from minibert.layers.losses import IGNORE_INDEX
from minibert.packing import PackedBatch

ALL_AS_LONG = (
    "examples of pretraining are about as long as they may be: --max_tokens_per_batch and "
    "--group_by_length do not apply; set --per_device_train_batch_size"
)


class Phase(NamedTuple):
    """A part of the training, with examples by one rule."""

    rule: Segmentation
    steps: int | None = None  # None: to the end


class Address(NamedTuple):
    """All that the examples of a batch are a function of."""

    seed: int
    epoch: int
    phase: int
    starts: Ints  # the sentences at which they begin


@dataclass(frozen=True)
class PretrainingData:
    """Masked examples of a corpus, phase after phase (short ones first, then long ones)."""

    masking: Masking
    phases: tuple[Phase, ...]

    def features(self, address: Address) -> Features:
        """The examples, with labels of masked tokens and, for pairs, of next sentences."""
        rule = self.phases[address.phase].rule
        ids, types, tokens, labels = [], [], [], []
        for start in address.starts.tolist():
            example = rule.example(address.seed, address.epoch, start)
            framed, type_ids = self._frame(example)
            random = draws(address.seed, address.epoch, Purpose.MASK, start, 2 * len(framed))
            masked = self.masking.apply(framed, random)
            ids.append(masked.ids)
            types.append(type_ids)
            tokens.append(masked.labels)
            labels.append(example.label)
        return Features(ids, types, None if None in labels else np.array(labels), tokens)

    def _frame(self, example: Example) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """[CLS] A [SEP] B [SEP] and their types: 0, but 1 for the B of a pair and its [SEP]."""
        cls, sep = (np.array([token], np.int32) for token in self.masking.never)
        ids = np.concatenate(
            [cls, *(part for segment in example.segments for part in (segment, sep))]
        )
        types = np.zeros(len(ids), np.int32)
        if example.label is not None:
            types[len(example.segments[0]) + 2 :] = 1
        return ids, types

    def sample(self, seed: int, count: int) -> Features:
        """`count` examples of the first epoch, or as many as it has, for evaluation."""
        return self.features(PretrainingOrder(self, seed, count).epoch(0)[0])

    # ---- What the trainer asks for ----

    def order(
        self, seed: int, batch_size: int, max_tokens: int | None, window: int
    ) -> PretrainingOrder:
        """The batches of every epoch."""
        if max_tokens is not None or window > 1:
            raise InputError(ALL_AS_LONG)
        return PretrainingOrder(self, seed, batch_size)

    def batch(self, address: Address) -> PackedBatch:
        """The examples of a batch, packed."""
        features = self.features(address)
        packed = features.batch(np.arange(len(features)))
        # A few short examples of long words only may have nothing masked.
        asked = packed.token_labels is not None and (packed.token_labels != IGNORE_INDEX).any()
        return packed if asked else replace(packed, token_labels=None)

    def tokens(self, address: Address) -> int:
        """How many tokens a batch has at most."""
        return self.phases[address.phase].rule.length * len(address.starts)

    def fingerprint(self) -> str:
        """A hash of everything that decides the examples."""
        digest = hashlib.sha256(repr(self.masking).encode())
        for rule, steps in self.phases:
            settings = {k: v for k, v in vars(rule).items() if isinstance(v, int | float)}
            name = f"{type(rule).__name__} {settings} {steps} {rule.store.sha256}"
            digest.update(name.encode())
            digest.update(rule.documents.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


class PretrainingOrder:
    """Every epoch's batches, in an order of its own."""

    def __init__(self, data: PretrainingData, seed: int, batch_size: int) -> None:
        self.data, self.seed, self.batch_size = data, seed, batch_size
        self._counts: dict[tuple[int, int], int] = {}

    def epoch(self, epoch: int) -> Epoch:
        """One epoch; a phase ends in the middle of it if its steps do, and with it the epoch."""
        phase, left = self._phase_of(epoch)
        return self._planned(epoch, phase, left)

    def count(self, epoch: int) -> int:
        """How many batches an epoch has. It is not shuffled for that."""
        phase, left = self._phase_of(epoch)
        whole = self._whole(epoch, phase)
        return whole if left is None else min(whole, left)

    def share(self, epoch: int) -> float:
        """How much of the corpus an epoch goes through: all, unless a phase ends in it."""
        phase, left = self._phase_of(epoch)
        return 1.0 if left is None else min(1.0, left / self._whole(epoch, phase))

    def steps(self, num_train_epochs: float) -> int:
        """So many times the batches of the first epoch, rounded up.

        Pairs are cut anew in every epoch, so that a later one may have a few more or less; to know
        it, one would have to go through the corpus as often as the training will.
        """
        return max(1, math.ceil(num_train_epochs * self._whole(0, 0)))

    def parts(self, total_steps: int) -> list[tuple[Epoch, int]]:
        """Of each phase an epoch, made as if the run began with it, and its steps."""
        found, left = [], total_steps
        for number, phase in enumerate(self.data.phases):
            steps = left if phase.steps is None else min(left, phase.steps)
            found.append((self._planned(0, number, None), steps))
            left -= steps
        return found

    def _phase_of(self, epoch: int) -> tuple[int, int | None]:
        """The phase that an epoch belongs to, and the steps that are left of it (None: all)."""
        phase, left = 0, self.data.phases[0].steps
        for earlier in range(epoch):
            if left is None:
                break
            left -= self._whole(earlier, phase)
            if left <= 0:
                phase += 1
                left = self.data.phases[phase].steps
        return phase, left

    def _planned(self, epoch: int, phase: int, most: int | None) -> Epoch:
        starts = plan(self.data.phases[phase].rule, self.seed, epoch)
        self._counts[epoch, phase] = self.batches_of(len(starts))
        return Epoch(starts, self, epoch, phase, most)

    def _whole(self, epoch: int, phase: int) -> int:
        """The number of batches of a whole epoch."""
        rule = self.data.phases[phase].rule
        epoch = epoch if rule.cut_anew else 0
        if (epoch, phase) not in self._counts:
            starts = rule.starts(self.seed, epoch)
            self._counts[epoch, phase] = self.batches_of(sum(map(len, starts)))
        return self._counts[epoch, phase]

    def batches_of(self, examples: int) -> int:
        """In how many batches they go."""
        return -(-examples // self.batch_size)


class Epoch:
    """The addresses of an epoch's batches, by number."""

    def __init__(
        self, starts: Ints, order: PretrainingOrder, epoch: int, phase: int, most: int | None
    ) -> None:
        self._starts, self._order, self._epoch, self._phase = starts, order, epoch, phase
        whole = order.batches_of(len(starts))
        self._count = whole if most is None else min(whole, most)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Address:
        if not 0 <= number < self._count:
            raise IndexError(number)
        size = self._order.batch_size
        starts = np.array(self._starts[number * size : (number + 1) * size])
        return Address(self._order.seed, self._epoch, self._phase, starts)

    def __iter__(self) -> Iterator[Address]:
        return (self[number] for number in range(self._count))


def plan(rule: Segmentation, seed: int, epoch: int) -> Ints:
    """Where the examples of an epoch begin, shuffled.

    In a file that is gone when the array is: memory does not grow with the corpus.
    """
    with tempfile.TemporaryFile(prefix="minibert-") as file:
        for part in rule.starts(seed, epoch):
            part.tofile(file)
        file.flush()
        starts = np.asarray(np.memmap(file, np.int64, "r+"))
    np.random.Generator(np.random.Philox(key=[seed, epoch])).shuffle(starts)
    return starts
