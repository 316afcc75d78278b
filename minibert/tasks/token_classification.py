"""Naming every word of a sentence: entities in IOB1, IOB2 or BIOES, or parts of speech.

A word's label stands on its first piece, −100 on the others, and its prediction is read there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minibert.config import BertConfig
from minibert.data.conll import TaggedSentences
from minibert.data.features import Features
from minibert.data.tags import Scheme, is_plain
from minibert.errors import InputError
from minibert.layers.losses import IGNORE_INDEX
from minibert.models import BertForTokenClassification, BertPreTrainedModel
from minibert.tasks.aggregation import AggregationStrategy, Token, aggregate, without_overlaps
from minibert.tasks.base import Outputs
from minibert.tasks.classification import softmax
from minibert.tasks.entities import entities_of, score_entities
from minibert.tasks.label_sets import in_the_order_of
from minibert.tokenization import AlignedEncoding, BertTokenizer

NO_TOKEN = -1


@dataclass(frozen=True)
class WordFeatures(Features):
    """Features of sentences whose words are labelled, with and without a token to show for it."""

    word_labels: Sequence[NDArray[np.int64]] = ()  # a sentence's (W,)
    first_tokens: Sequence[NDArray[np.int64]] = ()  # (W,) its words' first tokens, or NO_TOKEN


@dataclass(frozen=True)
class TokenClassification:
    """What the training file says about the task; every other file must agree with it."""

    label2id: dict[str, int]

    model_class: ClassVar[type[BertPreTrainedModel]] = BertForTokenClassification
    metric_names: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall", "accuracy")
    best_metric: ClassVar[str] = "f1"

    @classmethod
    def of(cls, train: TaggedSentences) -> TokenClassification:
        """The task of a training file: its tags, sorted, as in transformers' run_ner.py."""
        found = sorted({tag for row in _tags(train) for tag in row})
        if len(found) < 2:
            raise InputError(f"{train.path}: at least 2 different tags are wanted, got {found}")
        return cls({tag: i for i, tag in enumerate(found)})

    @classmethod
    def of_config(cls, config: BertConfig) -> TokenClassification:
        """The task that a fine-tuned model was trained for."""
        return cls(dict(config.label2id))

    def in_the_order_of(self, config: BertConfig) -> TokenClassification:
        """With the label numbers of a model that was trained for these labels already."""
        return replace(self, label2id=in_the_order_of(config, self.label2id))

    def config_changes(self) -> dict[str, Any]:
        """What a model's configuration has to say for this task."""
        return {"label2id": self.label2id}

    def features(
        self, examples: TaggedSentences, tokenizer: BertTokenizer, max_length: int
    ) -> tuple[WordFeatures, int]:
        """Ids and labels of a file, and how many sentences were longer than `max_length`.

        The words that are cut off, and those that the tokenizer makes nothing of, keep their
        labels for `metrics`.
        """
        encodings = tokenizer.encode_aligned(
            examples.words, max_length=max_length, is_split_into_words=True
        )
        pairs = zip(encodings, examples.words, strict=True)
        first_tokens = [_first_tokens(encoding, len(words)) for encoding, words in pairs]
        lengths = [len(encoding.ids) for encoding in encodings]
        labels = self.labels(examples) or []
        token_labels = list(map(_token_labels, lengths, first_tokens, labels))
        features = WordFeatures(
            ids=[encoding.ids for encoding in encodings],
            type_ids=[encoding.type_ids for encoding in encodings],
            token_labels=token_labels or None,
            word_labels=labels,
            first_tokens=first_tokens,
        )
        return features, sum(encoding.truncated for encoding in encodings)

    def metrics(self, outputs: Outputs, features: Features) -> dict[str, float]:
        """Micro F1, precision and recall of entities, as seqeval's, and the accuracy of words.

        Every labelled word counts: one that was cut off, or has no token, is predicted as "O".
        """
        if not isinstance(features, WordFeatures) or features.token_labels is None:
            raise InputError("metrics of token classification need features with labels")
        scheme: Scheme | None = "plain" if is_plain(self.label2id) else None
        names = self._names
        truth = [[names[i] for i in labels] for labels in features.word_labels]
        guess = self.predictions(outputs, features)
        entities = [[entities_of(row, scheme) for row in tags] for tags in (truth, guess)]
        scores = score_entities(*entities).micro
        words = list(zip(chain.from_iterable(truth), chain.from_iterable(guess), strict=True))
        accuracy = sum(a == b for a, b in words) / max(1, len(words))
        values = (scores.f1, scores.precision, scores.recall, accuracy)
        return dict(zip(self.metric_names, values, strict=True))

    def predictions(self, outputs: Outputs, features: Features) -> list[list[str]]:
        """The tag of each word of each sentence; "O" for one without a token."""
        assert isinstance(features, WordFeatures)  # which `features` makes
        names, tags = self._names, []
        for rows, first in zip(outputs["logits"], features.first_tokens, strict=True):
            best = rows.argmax(axis=-1)
            tags.append(["O" if i == NO_TOKEN else names[int(best[i])] for i in first])
        return tags

    def decode(
        self,
        outputs: Outputs,
        encodings: Sequence[AlignedEncoding],
        texts: Sequence[str],
        tokenizer: BertTokenizer,
        aggregation_strategy: AggregationStrategy = "none",
        ignore_labels: Sequence[str] = ("O",),
    ) -> list[list[dict[str, Any]]]:
        """Logits (S, K) a window → the entities of each text, as transformers' pipeline gives them.

        encodings: the windows of all texts, in order; their offsets are places in the text.
        """
        windows: list[list[list[dict[str, Any]]]] = [[] for _ in texts]
        for rows, encoding in zip(outputs["logits"], encodings, strict=True):
            text = texts[encoding.example]
            tokens = _tokens(rows, encoding, text, tokenizer)
            found = aggregate(
                tokens, aggregation_strategy, self._names, tokenizer.convert_tokens_to_string
            )
            key = "entity" if aggregation_strategy == "none" else "entity_group"
            kept = [entity for entity in found if entity[key] not in ignore_labels]
            windows[encoding.example].append(kept)
        return [
            parts[0] if len(parts) == 1 else without_overlaps([e for part in parts for e in part])
            for parts in windows
        ]

    @property
    def _names(self) -> list[str]:
        return sorted(self.label2id, key=self.label2id.__getitem__)

    def labels(self, examples: TaggedSentences) -> list[NDArray[np.int64]] | None:
        """Each sentence's (W,) label numbers, where a file has some; InputError for an unknown."""
        if examples.labels is None:
            return None
        for i, row in enumerate(_tags(examples)):
            for j, tag in enumerate(row):
                if tag not in self.label2id:
                    known = ", ".join(map(repr, self.label2id))
                    problem = f"the tag {tag!r} was not seen in training, whose tags are {known}"
                    raise examples.error(
                        i, j, f"{problem}; correct it, leave the sentence out, or train with it"
                    )
        return [np.array([self.label2id[tag] for tag in row], np.int64) for row in _tags(examples)]


def _tags(examples: TaggedSentences) -> list[list[str]]:
    if examples.labels is None:
        raise InputError(f"{examples.path}: there are words and no tags; a tag a word is wanted")
    return examples.labels


def _first_tokens(encoding: AlignedEncoding, words: int) -> NDArray[np.int64]:
    """(W,) the first token of each word, or NO_TOKEN."""
    first = np.full(words, NO_TOKEN, np.int64)
    numbers, places = np.unique(encoding.word_ids, return_index=True)
    first[numbers[numbers >= 0]] = places[numbers >= 0]
    return first


def _token_labels(
    tokens: int, first: NDArray[np.int64], word_labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(S,) the labels of words on their first tokens."""
    labels = np.full(tokens, IGNORE_INDEX, np.int64)
    has = first != NO_TOKEN
    labels[first[has]] = word_labels[has]
    return labels


def _tokens(
    logits: NDArray[Any], encoding: AlignedEncoding, text: str, tokenizer: BertTokenizer
) -> list[Token]:
    """The tokens of one window between [CLS] and [SEP], with their probabilities."""
    scores = softmax(np.asarray(logits, np.float64))
    tokens = []
    pieces = tokenizer.convert_ids_to_tokens(encoding.ids.tolist())
    for i in range(1, len(pieces) - 1):
        start, end = encoding.offsets[i].tolist()
        there = text[start:end]
        unknown = encoding.ids[i] == tokenizer.unk_token_id
        # transformers' rule: a piece that is not as long as its text has a ## before it.
        subword = not unknown and len(pieces[i]) != len(there)
        tokens.append(Token(i, there if unknown else pieces[i], scores[i], start, end, subword))
    return tokens
