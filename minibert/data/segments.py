"""How the sentences of a store become examples: a function of (seed, epoch, first sentence).

An epoch goes once through each document. An example is known by the sentence it begins with: all
that is random in it follows from that number, so each can be made without the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from minibert.data.draws import Purpose, draws
from minibert.data.token_store import TokenStore
from minibert.errors import InputError
from minibert.io.numbers import counted

Ints = NDArray[np.int64]
Pieces = NDArray[np.int32]

SPAN = 1 << 16  # sentences planned at a time: memory holds some arrays of that many


class Example(NamedTuple):
    """Segments without special tokens."""

    segments: list[Pieces]  # A and B; or what stands between two ends of documents
    label: int | None = None  # 0: B follows A, 1: it is random, None: that is not asked


class Segmentation(Protocol):
    """A rule that makes examples of some of a store's documents."""

    cut_anew: ClassVar[bool]
    """Whether examples begin elsewhere in every epoch."""

    @property
    def store(self) -> TokenStore: ...
    @property
    def documents(self) -> Ints: ...
    @property
    def length(self) -> int: ...

    def starts(self, seed: int, epoch: int) -> Iterator[Ints]:
        """The sentences at which an epoch's examples begin, in order, in several arrays."""
        ...

    def example(self, seed: int, epoch: int, start: int) -> Example:
        """The example that begins with sentence `start`."""
        ...

    @property
    def room(self) -> int:
        """Pieces that an example holds; a longer sentence is cut."""
        ...


class Gathered(NamedTuple):
    """What the rule of `SentencePairs` says of examples that begin at some sentences."""

    middle: Ints  # A ends before it
    end: Ints  # the sentences before it were gathered
    is_random: NDArray[np.bool_]
    target: Ints  # tokens that were to be gathered


@dataclass(frozen=True)
class SentencePairs:
    """Pairs of segments for next-sentence prediction, as google-research/bert makes them.

    Sentences of a document are gathered until they reach the target length, or the document ends.
    A is a random number of them, but not all if there are several. In half the cases, and where
    there is but one sentence, B comes from another document: from a random sentence on, until the
    target is reached; the sentences that were not used are put back, and begin the next example.
    Else B is the rest. The target is the length less 3 special tokens or, for `short_seq_prob` of
    the documents, a random one from 2 on. What is too long is cut, see `cut_pair`.

    Source: create_pretraining_data.py, create_instances_from_document. (There B may come from the
    same document after ten vain draws; here it never does.)
    """

    store: TokenStore
    documents: Ints  # those of the store that take part, in rising order
    length: int  # of an example, special tokens counted
    short_seq_prob: float = 0.1

    cut_anew: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(self.documents) < 2:
            raise InputError(
                f"next-sentence prediction needs two documents or more, got {len(self.documents)}: "
                "add files, separate documents by blank lines (--documents blank_lines), or do "
                "without it (--no_nsp)"
            )
        if self.length < 5:
            raise InputError(f"--max_seq_length: a pair needs at least 5 tokens, got {self.length}")
        if not 0 <= self.short_seq_prob <= 1:
            raise InputError(f"--short_seq_prob must be from 0 to 1, got {self.short_seq_prob}")

    @property
    def room(self) -> int:
        """All but [CLS], [SEP] and [SEP]."""
        return self.length - 3

    def starts(self, seed: int, epoch: int) -> Iterator[Ints]:
        """The sentences at which an epoch's examples begin, in order, in several arrays."""

        def following(first: int, last: int) -> Ints:
            gathered = self._gather(seed, epoch, np.arange(first, last))
            return np.where(gathered.is_random, gathered.middle, gathered.end)

        return _chain(self.store, self.documents, following)

    def example(self, seed: int, epoch: int, start: int) -> Example:
        """A, B and the label of the example that begins with sentence `start`."""
        gathered = self._gather(seed, epoch, np.array([start]))
        middle, end, is_random, target = (int(values[0]) for values in gathered)
        a = self.store.tokens(start, middle)
        if is_random:
            b = self._elsewhere(seed, epoch, start, target - len(a))
        else:
            b = self.store.tokens(middle, end)
        surplus = max(0, len(a) + len(b) - self.room)
        front = draws(seed, epoch, Purpose.CUT, start, surplus) < 0.5
        return Example(cut_pair(a, b, self.room, front), is_random)

    def _gather(self, seed: int, epoch: int, starts: Ints) -> Gathered:
        """The rule for neighbouring sentences `starts`, as if an example began at each of them."""
        sentences, bounds = self.store.sentences, self.store.documents
        document = np.searchsorted(bounds, starts, "right") - 1
        target = self._targets(seed, epoch, document)
        end = np.searchsorted(sentences, sentences[starts] + target)
        end = np.minimum(end, bounds[document + 1])
        count = end - starts
        u = draws(seed, epoch, Purpose.PAIR, 0, 4 * len(starts), int(starts[0])).reshape(-1, 4)
        middle = starts + 1 + (u[:, 0] * (count - 1)).astype(np.int64)
        return Gathered(middle, end, (count == 1) | (u[:, 1] < 0.5), target)

    def _targets(self, seed: int, epoch: int, document: Ints) -> Ints:
        """The target length of each sentence's document; documents in rising order."""
        first = int(document[0])
        count = int(document[-1]) - first + 1
        u = draws(seed, epoch, Purpose.LENGTH, 0, 4 * count, first).reshape(-1, 4)
        short = 2 + (u[:, 1] * (self.room - 1)).astype(np.int64)
        return np.where(u[:, 0] < self.short_seq_prob, short, self.room)[document - first]

    def _elsewhere(self, seed: int, epoch: int, start: int, wanted: int) -> Pieces:
        """`wanted` pieces or a little more of another document, from a random sentence on."""
        store, chosen = self.store, self.documents
        u = draws(seed, epoch, Purpose.PAIR, 0, 4, start)
        number = int(u[2] * (len(chosen) - 1))
        number += int(chosen[number] >= store.document_of(start))  # all but its own
        first, last = store.documents[chosen[number] : chosen[number] + 2].tolist()
        begin = first + int(u[3] * (last - first))
        end = int(np.searchsorted(store.sentences, store.sentences[begin] + max(wanted, 1)))
        return store.tokens(begin, min(end, last))


def cut_pair(a: Pieces, b: Pieces, room: int, front: NDArray[np.bool_]) -> list[Pieces]:
    """Two segments cut to `room` pieces: one by one from the longer (B, if both are equal).

    `front` says of each piece that has to go whether it goes at the front or at the back.
    """
    if len(a) + len(b) <= room:
        return [a, b]
    kept_a = min(len(a), max(room - len(b), (room + 1) // 2))
    from_a = len(a) - kept_a
    first_a, first_b = int(front[:from_a].sum()), int(front[from_a:].sum())
    return [a[first_a : first_a + kept_a], b[first_b : first_b + room - kept_a]]


@dataclass(frozen=True)
class FullSequences:
    """As many whole sentences as an example holds, on over the ends of documents (with a [SEP]).

    Without next-sentence prediction; "full-sentences" of Liu et al. 2019 (RoBERTa), section 4.2.
    A sentence that is longer than an example is cut at its end.
    """

    store: TokenStore
    documents: Ints  # those of the store that take part, in rising order
    length: int  # of an example, special tokens counted

    cut_anew: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.length < 3:
            raise InputError(f"--max_seq_length must be at least 3, got {self.length}")

    @property
    def room(self) -> int:
        """All but [CLS] and [SEP]."""
        return self.length - 2

    def starts(self, seed: int, epoch: int) -> Iterator[Ints]:
        """The sentences at which the examples begin, the same in every epoch."""
        return _chain(self.store, self.documents, self._ends)

    def example(self, seed: int, epoch: int, start: int) -> Example:
        """The example that begins with sentence `start`."""
        end = int(self._ends(start, start + 1)[0])
        bounds = self.store.documents
        inner = bounds[np.searchsorted(bounds, start, "right") : np.searchsorted(bounds, end)]
        parts = pairwise([start, *inner.tolist(), end])
        segments = [self.store.tokens(first, last) for first, last in parts]
        return Example([segments[0][: self.room], *segments[1:]])

    def _ends(self, first: int, last: int) -> Ints:
        """Where examples that begin at sentences first … last − 1 end."""
        sentences, bounds = self.store.sentences, self.store.documents
        starts = np.arange(first, last)
        ends = np.arange(first + 1, min(last + self.room, self.store.num_sentences) + 1)
        # The end of a document takes a place too: what lies before a sentence counts them.
        before = sentences[starts] + np.searchsorted(bounds, starts, "right")
        until = sentences[ends] + np.searchsorted(bounds, ends - 1, "right")
        fitting = first + np.searchsorted(until, before + self.room, "right")
        stop = self._stops[np.searchsorted(self._stops, starts, "right")]
        return np.minimum(np.maximum(fitting, starts + 1), stop)

    @cached_property
    def _stops(self) -> Ints:
        """Where the runs of documents end, over which no example goes on."""
        return np.array([last for _, last in runs(self.store, self.documents)], np.int64)


def _chain(
    store: TokenStore, documents: Ints, following: Callable[[int, int], Ints]
) -> Iterator[Ints]:
    """From the first sentence on to that which `following` names, and so on to the last one.

    `following(first, last)` says it of sentences first … last − 1, whether one comes there or not.
    """
    for first, last in runs(store, documents):
        at = first
        while at < last:
            base, stop = at, min(at + SPAN, last)
            to, found = following(base, stop).tolist(), []
            while at < stop:
                found.append(at)
                at = to[at - base]
            yield np.array(found, np.int64)


def too_long(rule: Segmentation) -> tuple[int, float]:
    """How many sentences are longer than an example, and the share of all pieces this leaves out.

    Of a pair the share is the least: what is beside such a sentence takes room too.
    """
    count = left_out = total = 0
    for first, last in runs(rule.store, rule.documents):
        for at in range(first, last, SPAN):
            lengths = np.diff(rule.store.sentences[at : min(at + SPAN, last) + 1])
            surplus = np.maximum(lengths - rule.room, 0)
            count += int(np.count_nonzero(surplus))
            left_out += int(surplus.sum())
            total += int(lengths.sum())
    return count, left_out / total


def hold_out(store: TokenStore, count: int, seed: int) -> tuple[Ints, Ints]:
    """(rest, held out): the numbers of `count` documents drawn by `seed`, and those of the others.

    Raises InputError where that would leave none to train on.
    """
    if not 0 <= count < store.num_documents:
        raise InputError(
            f"--validation_documents: got {count}, but the corpus has "
            f"{counted(store.num_documents, 'document')}; hold out fewer, or name a "
            "--validation_corpus"
        )
    order = np.argsort(draws(seed, 0, Purpose.HOLD_OUT, 0, store.num_documents), kind="stable")
    return np.sort(order[count:]), np.sort(order[:count])


def runs(store: TokenStore, documents: Ints) -> list[tuple[int, int]]:
    """The sentences (first, last + 1) of each run of neighbouring documents."""
    breaks = np.flatnonzero(np.diff(documents) != 1) + 1
    firsts = documents[np.concatenate([[0], breaks])]
    lasts = documents[np.concatenate([breaks, [len(documents)]]) - 1]
    pairs = zip(store.documents[firsts].tolist(), store.documents[lasts + 1].tolist(), strict=True)
    return list(pairs)
