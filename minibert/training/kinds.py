"""Kinds of task: from a file's path and a user's flags to examples, task and model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from minibert.checkpoint.sentence_transformers import POOLINGS
from minibert.config import BertConfig
from minibert.data.conll import read_tagged
from minibert.data.multiple_choice import read_multiple_choice
from minibert.data.readers import read_examples
from minibert.data.squad import read_squad
from minibert.data.tags import Scheme
from minibert.errors import InputError
from minibert.io.progress import say
from minibert.models import BertForSentenceEmbedding, BertPreTrainedModel
from minibert.tasks.base import Task
from minibert.tasks.classification import Classification
from minibert.tasks.multiple_choice import MultipleChoice
from minibert.tasks.question_answering import QuestionAnswering
from minibert.tasks.sentence_embedding import SentenceEmbedding
from minibert.tasks.token_classification import TokenClassification
from minibert.training.arguments import option

Examples = Any  # of one file: it has a path, a length, `take(numbers)` and `head(count)`


@dataclass
class TaskArguments:
    """What only one kind of task wants to know."""

    problem_type: str | None = option(
        None, "of text-classification (default: as the labels show)",
        ("single_label_classification", "multi_label_classification", "regression"),
    )  # fmt: skip
    word_column: int = option(0, "of CoNLL files: the words' column, from 0")
    tag_column: int = option(-1, "of CoNLL files: the tags' column (-1: the last)")
    tag_scheme: str | None = option(None, "of tags (default: as they show)", get_args(Scheme))
    refuse_invalid_tags: bool = option(False, "stop at a tag that breaks its scheme")
    version_2_with_negative: bool | None = option(
        None, "questions may have no answer (default: as the training file shows)"
    )
    doc_stride: int = option(128, "tokens from one window of a long context to the next")
    max_query_length: int = option(64, "longer questions are cut to that many tokens")
    n_best_size: int = option(20, "starts and ends of answers that are combined")
    max_answer_length: int = option(30, "tokens of the longest answer")
    null_score_diff_threshold: float = option(0.0, "how much better no answer has to be")
    on_mismatch: str = option(
        "refuse", "answers whose text is not at their place in the context", ("refuse", "skip")
    )
    pooling: str | None = option(
        None, "of sentence-embedding (default: as the model says, else mean)", tuple(POOLINGS)
    )


class Kind(NamedTuple):
    """How one kind of task begins."""

    read: Callable[[Path, TaskArguments], Examples]
    make: Callable[[Examples, TaskArguments, BertConfig], Task]
    """The training file's task; a model's configuration gives known labels their numbers."""


def _read_tagged(path: Path, a: TaskArguments) -> Examples:
    examples = read_tagged(
        path,
        word_column=a.word_column,
        tag_column=a.tag_column,
        scheme=a.tag_scheme,  # type: ignore[arg-type]  # the flag's choices are the schemes
        refuse_invalid=a.refuse_invalid_tags,
    )
    if examples.warning:
        say(f"warning: {examples.warning}")
    return examples


def _question_answering(train: Examples, a: TaskArguments, _: BertConfig) -> Task:
    return QuestionAnswering.of(
        train,
        a.version_2_with_negative,
        doc_stride=a.doc_stride,
        max_query_length=a.max_query_length,
        n_best_size=a.n_best_size,
        max_answer_length=a.max_answer_length,
        null_score_diff_threshold=a.null_score_diff_threshold,
    )


KINDS = {
    "text-classification": Kind(
        lambda path, _: read_examples(path),
        lambda train, a, config: Classification.of(train, a.problem_type).in_the_order_of(config),  # type: ignore[arg-type]
    ),
    "token-classification": Kind(
        _read_tagged,
        lambda train, _, config: TokenClassification.of(train).in_the_order_of(config),
    ),
    "question-answering": Kind(
        lambda path, a: read_squad(path, on_mismatch=a.on_mismatch),  # type: ignore[arg-type]
        _question_answering,
    ),
    "multiple-choice": Kind(
        lambda path, _: read_multiple_choice(path),
        lambda train, *_: MultipleChoice.of(train),
    ),
    "sentence-embedding": Kind(
        lambda path, _: read_examples(path),
        lambda train, *_: SentenceEmbedding.of(train),
    ),
}


def load_model(
    task: Task, directory: Path, a: TaskArguments, max_seq_length: int, **arguments: Any
) -> BertPreTrainedModel:
    """The task's model from a directory; `arguments` as for `from_pretrained`.

    A sentence encoder keeps pooling and `max_seq_length` among its settings.
    """
    model = task.model_class.from_pretrained(directory, **arguments, **task.config_changes())
    if isinstance(model, BertForSentenceEmbedding):
        pooling = a.pooling or model.settings.pooling
        model.settings = replace(model.settings, pooling=pooling, max_seq_length=max_seq_length)
    elif a.pooling is not None:
        raise InputError("pooling is a choice of sentence-embedding only")
    return model
