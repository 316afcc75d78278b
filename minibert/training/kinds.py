"""Kinds of task: from a file's path and a user's flags to examples, task and model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

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
from minibert.tasks.label_sets import are_default, listed
from minibert.tasks.multiple_choice import MultipleChoice
from minibert.tasks.question_answering import QuestionAnswering
from minibert.tasks.sentence_embedding import SentenceEmbedding
from minibert.tasks.token_classification import TokenClassification
from minibert.training.arguments import option
from minibert.training.new_heads import draw_classifier, has_other_labels

COLUMNS = "columns of texts, for --task text-classification and sentence-embedding"
TEXTS, TAGS = "only for --task text-classification", "only for --task token-classification"
QUESTIONS, SENTENCES = "only for --task question-answering", "only for --task sentence-embedding"
KNOWN = "the first known name"

Examples = Any  # of one file: it has a path, a length, `take(numbers)` and `head(count)`


@dataclass
class TaskArguments:
    """What only one kind of task wants to know."""

    text_column: str | None = option(
        None, "the first text's column, in a header or in JSON", shown=KNOWN, group=COLUMNS,
        also=["text_column_name"],
    )  # fmt: skip
    text_pair_column: str | None = option(
        None, "the second text's", shown="none, where the first is named", group=COLUMNS
    )
    label_column: str | None = option(
        None, "the label's, or the score's; a file without it is predicted", shown=KNOWN,
        group=COLUMNS, also=["label_column_name"],
    )  # fmt: skip
    problem_type: str | None = option(
        None, "what the labels are",
        ("single_label_classification", "multi_label_classification", "regression"),
        shown="as they show", group=TEXTS,
    )  # fmt: skip
    word_column: int = option(0, "of CoNLL files: the words' column, from 0", group=TAGS)
    tag_column: int = option(
        -1, "of CoNLL files: the tags' column", shown="-1, the last", group=TAGS
    )
    tag_scheme: str | None = option(
        None, "how tags mark entities", get_args(Scheme), shown="as they show", group=TAGS
    )
    label_names: list[str] | None = option(  # noqa: RUF009
        None, "what the numbers of JSON's tags mean: O B-PER I-PER …", group=TAGS
    )
    refuse_invalid_tags: bool = option(False, "stop at a tag that breaks its scheme", group=TAGS)
    version_2_with_negative: bool | None = option(
        None, "questions may have no answer", shown="as the training file shows", group=QUESTIONS
    )
    doc_stride: int = option(
        128, "tokens from one window of a long context to the next", group=QUESTIONS
    )
    max_query_length: int = option(
        64,
        "longer questions are cut to that many tokens; one that still fills a window is left "
        "out of training, and answered by the empty text",
        group=QUESTIONS,
    )
    n_best_size: int = option(20, "starts and ends of answers that are combined", group=QUESTIONS)
    max_answer_length: int = option(30, "tokens of the longest answer", group=QUESTIONS)
    null_score_diff_threshold: float = option(
        0.0, "how much better no answer has to be", group=QUESTIONS
    )
    on_mismatch: str = option(
        "refuse", "what to do with answers that are not at their place in the context",
        ("refuse", "skip"), group=QUESTIONS,
    )  # fmt: skip
    pooling: str | None = option(
        None, "from the tokens' vectors to the text's", tuple(POOLINGS),
        shown="as the model says, else mean", group=SENTENCES,
    )  # fmt: skip
    score_scale: float | None = option(
        None, "the highest score, of texts that say the same; scores divided by it are cosines",
        shown="1, 5, 10 or 100, the first that holds the training file's scores", group=SENTENCES,
    )  # fmt: skip


class Kind(NamedTuple):
    """How one kind of task begins."""

    read: Callable[[Path, TaskArguments], Examples]
    make: Callable[[Examples, TaskArguments, BertConfig], Task]
    """The training file's task; a model's configuration gives known labels their numbers."""

    of_model: Callable[[BertConfig, TaskArguments, Sequence[Examples]], Task]
    """A finished model's task; the files to measure say what no configuration does."""


def _read_texts(path: Path, a: TaskArguments, pairs: bool = False) -> Examples:
    examples = read_examples(
        path,
        text_column=a.text_column,
        text_pair_column=a.text_pair_column,
        label_column=a.label_column,
        pairs=pairs,
    )
    say(examples.description)
    if examples.warning:
        say(f"warning: {examples.warning}")
    return examples


def _read_tagged(path: Path, a: TaskArguments) -> Examples:
    examples = read_tagged(
        path,
        word_column=a.word_column,
        tag_column=a.tag_column,
        label_names=a.label_names,
        scheme=a.tag_scheme,  # type: ignore[arg-type]  # the flag's choices are the schemes
        refuse_invalid=a.refuse_invalid_tags,
    )
    if examples.warning:
        say(f"warning: {examples.warning}")
    return examples


def _question_settings(a: TaskArguments) -> dict[str, Any]:
    names = (
        "doc_stride", "max_query_length", "n_best_size", "max_answer_length",
        "null_score_diff_threshold",
    )  # fmt: skip
    return {name: getattr(a, name) for name in names}


def _finished_question_answering(
    config: BertConfig, a: TaskArguments, files: Sequence[Examples]
) -> Task:
    version_2 = a.version_2_with_negative
    if version_2 is None:
        version_2 = any(file.unanswerable for file in files)
    settings = _question_settings(a)
    return QuestionAnswering.of_config(config, version_2_with_negative=version_2, **settings)


def _scaled(task: SentenceEmbedding) -> SentenceEmbedding:
    if task.scale is not None:
        say(f"scores are divided by {task.scale:g} to be cosines (--score_scale)")
    return task


def _finished_embedding(config: BertConfig, a: TaskArguments, files: Sequence[Examples]) -> Task:
    scored = [file for file in files if file.labels is not None and file.sentence2 is not None]
    if not scored:
        return SentenceEmbedding.of_config(config)
    return _scaled(SentenceEmbedding.of(scored[0], a.score_scale))


Labelled = TypeVar("Labelled", Classification, TokenClassification)


def _named(task: Labelled, files: Sequence[Examples]) -> Labelled:
    """LABEL_0, … of a finished model, under the names of a file that has as many labels."""
    labelled = [file for file in files if file.labels is not None]
    if not task.label2id or not are_default(task.label2id) or not labelled:
        return task
    found = task.of(labelled[0]).label2id
    if len(found) != len(task.label2id) or found.keys() == task.label2id.keys():
        return task
    say(f"labels: the model's {listed(task.label2id)} are taken for {listed(found)}")
    return replace(task, label2id=found)


def _finished_classification(
    config: BertConfig, a: TaskArguments, files: Sequence[Examples]
) -> Task:
    if config.problem_type is None and config.num_labels == 1:  # as transformers' loss takes it
        config = config.replace(problem_type=a.problem_type or "regression")
    return _named(Classification.of_config(config), files)


def _classification(train: Examples, a: TaskArguments, config: BertConfig) -> Task:
    problem_type: Any = a.problem_type  # one of the flag's choices
    return Classification.of(train, problem_type).in_the_order_of(config)


KINDS = {
    "text-classification": Kind(
        _read_texts,
        _classification,
        _finished_classification,
    ),
    "token-classification": Kind(
        _read_tagged,
        lambda train, _, config: TokenClassification.of(train).in_the_order_of(config),
        lambda config, _, files: _named(TokenClassification.of_config(config), files),
    ),
    "question-answering": Kind(
        lambda path, a: read_squad(path, on_mismatch=a.on_mismatch),  # type: ignore[arg-type]  # a choice
        lambda train, a, _: QuestionAnswering.of(
            train, a.version_2_with_negative, **_question_settings(a)
        ),
        _finished_question_answering,
    ),
    "multiple-choice": Kind(
        lambda path, _: read_multiple_choice(path),
        lambda train, *_: MultipleChoice.of(train),
        lambda config, *_: MultipleChoice.of_config(config),
    ),
    "sentence-embedding": Kind(
        lambda path, a: _read_texts(path, a, pairs=True),
        lambda train, a, _: _scaled(SentenceEmbedding.of(train, a.score_scale)),
        _finished_embedding,
    ),
}


def load_model(
    task: Task,
    directory: Path,
    a: TaskArguments,
    max_seq_length: int,
    *,
    seed: int = 0,
    ignore_mismatched_sizes: bool = False,
    **arguments: Any,
) -> BertPreTrainedModel:
    """The task's model from a directory; arguments as for `from_pretrained`.

    A head that was trained for other labels is refused, or, with `ignore_mismatched_sizes`,
    replaced by a new one, even of equal size. A sentence encoder keeps pooling and
    `max_seq_length` among its settings.
    """
    other = has_other_labels(task, directory, ignore_mismatched_sizes)
    model = task.model_class.from_pretrained(
        directory, seed=seed, ignore_mismatched_sizes=ignore_mismatched_sizes,
        **arguments, **task.config_changes(),
    )  # fmt: skip
    if other:
        draw_classifier(model, seed)
    if isinstance(model, BertForSentenceEmbedding):
        pooling = a.pooling or model.settings.pooling
        model.settings = replace(model.settings, pooling=pooling, max_seq_length=max_seq_length)
    elif a.pooling is not None:
        raise InputError("--pooling is a choice of sentence-embedding only")
    return model
