"""Text with [MASK] in it → the pieces that may stand there."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minibert.data.features import Features, by_length
from minibert.errors import InputError
from minibert.io.progress import tracked
from minibert.layers.losses import IGNORE_INDEX
from minibert.models import BertForMaskedLM, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.pipelines.options import AS_USUAL, Reading, check_whole
from minibert.pipelines.texts import texts_of
from minibert.tasks.classification import softmax
from minibert.tokenization import BertTokenizer
from minibert.tokenization.checks import check_texts
from minibert.tokenization.encoding import Encoding

TOKENS_PER_BATCH = 4096
Fill = dict[str, Any]  # {"score", "token", "token_str", "sequence"}


class FillMaskPipeline(Pipeline):
    """fill("Paris is the [MASK] of France.") → [{"score", "token", "token_str", "sequence"}, …].

    The best first; a text with several masks gives such a list for each, filled one by one: the
    others are still masked, and stand in the "sequence".
    """

    task = "fill-mask"
    model_class: ClassVar[type[BertPreTrainedModel]] = BertForMaskedLM
    nested = "tokenizer_kwargs"

    def __init__(self, model: BertForMaskedLM, tokenizer: BertTokenizer, **options: Any) -> None:
        super().__init__(model, tokenizer, **options)
        if tokenizer.mask_token_id is None:
            raise InputError("fill-mask: the vocabulary has no [MASK]; take a pretrained model's")
        self.mask: int = tokenizer.mask_token_id

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Fill a text, a list of them, or a stream.

        `top_k` pieces a mask (5), or those of `targets`, a piece or a list of them (one that is
        not in the vocabulary counts as its first piece, with a warning); `tokenizer_kwargs`, a dict
        of truncation and max_length, which may stand beside the rest as well. A list of one text
        gives that text's result, and not a list of one (a habit of transformers' pipeline).
        """
        results = super().__call__(inputs, **options)
        return results[0] if isinstance(inputs, list) and len(inputs) == 1 else results

    def answers(
        self,
        inputs: list[Any],
        reading: Reading = AS_USUAL,
        *,
        top_k: int = 5,
        targets: str | Sequence[str] | None = None,
    ) -> list[Any]:
        """One result an input, in their order."""
        check_whole("top_k", top_k, 0)
        chosen = None if targets is None else self._target_ids(targets)
        texts = texts_of(inputs)
        encodings = self.encode(texts, None, reading)
        for i, encoding in enumerate(encodings):
            if self.mask not in encoding.ids:
                raise self._no_mask(f"input {i} ({texts[i]!r:.60})", encoding, reading)
        ids = [encoding.ids for encoding in encodings]
        results: list[Any] = [None] * len(inputs)
        type_ids = [encoding.type_ids for encoding in encodings]
        for i, logits in self._logits(ids, type_ids, reading.batch_size):
            filled = self._fill(ids[i], logits, top_k, chosen)
            results[i] = filled[0] if len(filled) == 1 else filled
        return results

    def _no_mask(self, where: str, encoding: Encoding, reading: Reading) -> InputError:
        if encoding.truncated:
            return InputError(
                f"fill-mask: {where} has no [MASK] in its first {self.limit(reading)} tokens, "
                "which is all that is read; shorten it"
            )
        return InputError(f"fill-mask: {where} has no [MASK]; write [MASK] where a word is wanted")

    def _logits(
        self,
        ids: list[NDArray[np.int32]],
        type_ids: list[NDArray[np.int32]],
        batch_size: int | None,
    ) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """(number of the text, logits (M, V) of its M masks); batches by length.

        The masks are given labels, so that they alone enter the product with the vocabulary.
        """
        labels = [np.where(row == self.mask, 0, IGNORE_INDEX).astype(np.int64) for row in ids]
        features = Features(ids, type_ids, token_labels=labels)
        batches = by_length(features.lengths, TOKENS_PER_BATCH, batch_size)
        for batch in tracked(
            batches, len(ids), "predicting", size=len, unit=" texts", disable=self.quiet
        ):
            output = self.model.forward(features.batch(batch))
            counts = [int(np.sum(ids[i] == self.mask)) for i in batch]
            rows = np.split(self.model.xp.to_host(output.logits), np.cumsum(counts)[:-1])
            for i, logits in zip(batch, rows, strict=True):
                yield int(i), logits.astype(np.float64)

    def _fill(
        self,
        ids: NDArray[np.int32],
        logits: NDArray[np.float64],
        top_k: int,
        chosen: NDArray[np.int64] | None,
    ) -> list[list[Fill]]:
        """For each mask its best pieces."""
        probs = softmax(logits)
        places = np.flatnonzero(ids == self.mask).tolist()
        result = []
        for place, row in zip(places, probs, strict=True):
            candidates = np.arange(len(row)) if chosen is None else chosen
            best = candidates[np.argsort(-row[candidates], kind="stable")[:top_k]]
            result.append(
                [self._one(ids, place, int(k), float(row[k]), len(places) == 1) for k in best]
            )
        return result

    def _one(
        self, ids: NDArray[np.int32], place: int, token: int, score: float, alone: bool
    ) -> Fill:
        filled = ids.copy()
        filled[place] = token
        filled = filled[filled != self.tokenizer.pad_token_id]
        return {
            "score": score,
            "token": token,
            "token_str": self.tokenizer.decode([token]),
            # The other masks are special tokens, and to be seen.
            "sequence": self.tokenizer.decode(filled, skip_special_tokens=alone),
        }

    def _target_ids(self, targets: str | Sequence[str]) -> NDArray[np.int64]:
        """The ids of pieces, each once."""
        targets = [targets] if isinstance(targets, str) else targets
        check_texts("targets", targets)
        found = []
        for target in targets:
            index = self.tokenizer.convert_tokens_to_ids(target)
            if index == self.tokenizer.unk_token_id and target != "[UNK]":
                pieces = self.tokenizer.pieces([target])[0].ids.tolist()
                if not pieces:
                    _warn(f"the target {target!r} is empty: it is ignored")
                    continue
                index = pieces[0]
                piece = self.tokenizer.convert_ids_to_tokens(index)
                _warn(f"the target {target!r} is not in the vocabulary: it counts as {piece!r}")
            found.append(index)
        if not found:
            raise InputError("targets: at least one piece is wanted")
        return np.unique(np.array(found, np.int64))


def _warn(text: str) -> None:
    print(f"warning: fill-mask: {text}", file=sys.stderr)
