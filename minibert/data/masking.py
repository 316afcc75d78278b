"""Which tokens are masked, and by what: the masked language model's task.

Source: google-research/bert create_pretraining_data.py, create_masked_lm_predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError
from minibert.layers.losses import IGNORE_INDEX
from minibert.tokenization import BertTokenizer

Ints = NDArray[np.int64]


class Masked(NamedTuple):
    """An example as the model sees it, and what it is to find."""

    ids: NDArray[np.int32]  # (n,)
    labels: Ints  # (n,), −100 where nothing is asked


@dataclass(frozen=True)
class Masking:
    """The rule: of n tokens, min(max_predictions, max(1, round(probability·n))) are to be found.

    [CLS] and [SEP] never are. Of those chosen 80 % are replaced by [MASK], 10 % by a token of the
    whole vocabulary, and 10 % stay. With `continues` (V,), true for pieces that begin with ##,
    words are chosen whole: a word that would exceed the number is passed over, so there may be
    fewer, and what replaces its pieces is decided for each by itself.
    """

    vocab_size: int
    mask_id: int
    never: tuple[int, ...]  # ids of [CLS] and [SEP]
    probability: float = 0.15
    max_predictions: int | None = None
    continues: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.probability < 1:
            raise InputError(f"--mlm_probability must be between 0 and 1, got {self.probability}")
        if self.max_predictions is not None and self.max_predictions < 1:
            raise InputError(
                f"--max_predictions_per_seq must be at least 1, got {self.max_predictions}"
            )

    @classmethod
    def by(
        cls,
        tokenizer: BertTokenizer,
        probability: float = 0.15,
        max_predictions: int | None = None,
        whole_words: bool = False,
    ) -> Masking:
        """The rule with the ids of a tokenizer."""
        if tokenizer.mask_token_id is None:
            raise InputError("the vocabulary has no [MASK]: a masked language model needs one")
        continues = tokenizer.continues() if whole_words else None
        never = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        return cls(
            len(tokenizer),
            tokenizer.mask_token_id,
            never,
            probability,
            max_predictions,
            continues,
        )

    def number(self, length: int) -> int:
        """How many of `length` tokens, [CLS] and [SEP] counted, are to be found at most."""
        wanted = max(1, round(self.probability * length))
        return wanted if self.max_predictions is None else min(self.max_predictions, wanted)

    def apply(self, ids: NDArray[np.int32], random: NDArray[np.float64]) -> Masked:
        """Mask one example: ids (n,), random (2n,) uniform in [0, 1)."""
        n = len(ids)
        chosen = self._choose(ids, random[:n])
        labels = np.full(n, IGNORE_INDEX, np.int64)
        labels[chosen] = ids[chosen]
        u = random[n:][chosen]
        anything = ((u - 0.9) * 10 * self.vocab_size).astype(np.int32)  # of use where u ≥ 0.9
        masked = ids.copy()
        masked[chosen] = np.where(u < 0.8, self.mask_id, np.where(u < 0.9, ids[chosen], anything))
        return Masked(masked, labels)

    def _choose(self, ids: NDArray[np.int32], random: NDArray[np.float64]) -> Ints:
        """The places that are asked for, word by word in the order of random numbers."""
        places = np.flatnonzero(~np.isin(ids, self.never))
        if self.continues is None:
            return places[np.argsort(random[places], kind="stable")][: self.number(len(ids))]
        # A piece belongs to its left neighbour's word, but not across a [SEP].
        inside = self.continues[ids[places]] & (np.diff(places, prepend=-1) == 1)
        inside[:1] = False
        words = np.split(places, np.flatnonzero(~inside)[1:])
        order = np.argsort(random[[word[0] for word in words]], kind="stable")
        return np.concatenate(list(_fitting([words[i] for i in order], self.number(len(ids)))))


def _fitting(words: Iterable[Ints], room: int) -> Sequence[Ints]:
    """Each word that fits into what room is left; at least an empty one."""
    fitting = [np.zeros(0, np.int64)]
    for word in words:
        if len(word) <= room:
            fitting.append(word)
            room -= len(word)
    return fitting
