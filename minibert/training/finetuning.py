"""From the files that the user names to a task, and to what is trained and measured."""

from __future__ import annotations

from pathlib import Path

from minibert.config import BertConfig
from minibert.data.features import Features
from minibert.data.labels import labels_of
from minibert.data.splits import hold_out
from minibert.errors import InputError
from minibert.hub import movie_reviews
from minibert.io.numbers import counted
from minibert.io.progress import say
from minibert.tasks.base import Task
from minibert.tasks.question_answering import QuestionAnswering
from minibert.tasks.question_windows import UNREAD, QuestionFeatures
from minibert.tasks.sentence_embedding import SentenceEmbedding
from minibert.tokenization import BertTokenizer
from minibert.training.finetuning_arguments import DataArguments
from minibert.training.kinds import KINDS, Examples, Kind, TaskArguments

NAMED = 3  # questions that a message names


def read_data(data: DataArguments, special: TaskArguments) -> dict[str, Examples]:
    """The examples of whole files, by "train", "validation" and "test"; those that are wanted."""
    paths: dict[str, str | None] = {
        "train": data.train_file, "validation": data.validation_file, "test": data.test_file
    }  # fmt: skip
    if not any(paths.values()):
        if data.task != "text-classification":
            wanted = "train" if data.do_train else "validation" if data.do_eval else "test"
            raise InputError(
                f"--task {data.task} wants a --{wanted}_file; --help has the forms of files"
            )
        infix = ".regression" if special.problem_type == "regression" else ""
        paths = {name: str(movie_reviews() / f"{name}{infix}.tsv") for name in paths}
    elif data.do_train and not paths["train"]:
        raise InputError(
            "a --validation_file or --test_file was given without --train_file; to measure a "
            "finished model, add --do_eval or --do_predict"
        )
    if not data.do_train:
        paths = _needed_to_measure(paths, data)
    read = _kind(data).read
    files = {name: read(Path(path), special) for name, path in paths.items() if path}
    _refuse_pairs_and_singles(list(files.values()))
    return files


def _needed_to_measure(paths: dict[str, str | None], data: DataArguments) -> dict[str, str | None]:
    """The files that a finished model is measured on; a part of train_file, if no other is."""
    validation, test = paths["validation"], paths["test"]
    train = None if validation or not data.do_eval else paths["train"]
    if data.do_eval and not (train or validation):
        raise InputError("--do_eval wants a --validation_file")
    if data.do_predict and not test:
        raise InputError("--do_predict wants a --test_file")
    return {
        "train": train,
        "validation": validation if data.do_eval else None,
        "test": test if data.do_predict else None,
    }


def _refuse_pairs_and_singles(files: list[Examples]) -> None:
    for other in files[1:]:
        pairs = [getattr(file, "sentence2", None) is not None for file in (files[0], other)]
        if pairs[0] != pairs[1]:
            one, two = (other, files[0]) if pairs[0] else (files[0], other)
            raise InputError(f"{two.path} has pairs of texts, but {one.path} has single ones")


def choose_examples(
    files: dict[str, Examples], data: DataArguments, seed: int
) -> dict[str, Examples]:
    """Hold out a part for validation where there is no file for it; then the first N of each."""
    parts = dict(files)
    if "validation" not in parts and data.do_eval:
        share = data.validation_split_percentage / 100
        parts["train"], parts["validation"] = hold_out(parts["train"], share, seed)
        held = len(parts["validation"])
        say(f"validation: {counted(held, 'example')} held out of {data.train_file}")
    if not data.do_train:
        parts.pop("train", None)
    most = {
        "train": data.max_train_samples,
        "validation": data.max_eval_samples,
        "test": data.max_predict_samples,
    }
    return {
        name: part if (count := most[name]) is None else part.head(count)
        for name in most
        if (part := parts.get(name)) is not None
    }


def make_task(
    directory: Path, files: dict[str, Examples], data: DataArguments, special: TaskArguments
) -> Task:
    """The task of the whole training file, or of a finished model where nothing is trained."""
    config = BertConfig.from_pretrained(directory)
    if data.do_train:
        return _kind(data).make(files["train"], special, config)
    return _kind(data).of_model(config, special, list(files.values()))


def _kind(data: DataArguments) -> Kind:
    return KINDS[data.task or "text-classification"]


def check_labels(task: Task, parts: dict[str, Examples]) -> None:
    """Refuse a label that the task does not know, before the model is loaded."""
    for name, examples in parts.items():
        if hasattr(task, "labels"):
            task.labels(examples)
        if name == "validation" and isinstance(task, SentenceEmbedding) and task.scale is not None:
            labels_of(examples)  # pairs without scores would be measured otherwise


def encode(
    name: str,
    examples: Examples,
    task: Task,
    tokenizer: BertTokenizer,
    limit: int,
    config: BertConfig,
) -> Features:
    """The features of a part; a line about texts that were cut."""
    features, truncated = task.features(examples, tokenizer, limit)
    if truncated:
        what, length = "texts", limit
        if isinstance(task, QuestionAnswering):  # whose contexts are never cut
            what, length = "questions", task.max_query_length
        say(f"warning: {truncated} of {len(examples)} {name} {what} were cut to {length} tokens")
    if isinstance(features, QuestionFeatures):
        features.check_read()
        _warn_of_unread(name, features)
    highest = max(int(ids.max()) for ids in features.ids)  # now, not when the batch comes
    if highest >= config.vocab_size:
        raise InputError(
            f"{examples.path}: the tokenizer gives id {highest}, but the model's vocab_size is "
            f"{config.vocab_size}: do tokenizer and model belong together?"
        )
    return features


def _warn_of_unread(name: str, features: QuestionFeatures) -> None:
    """A line about questions of which nothing can be read: how many, and the first ids."""
    unread, examples = features.unread, features.examples
    if unread:
        ids = ", ".join(repr(examples.ids[q]) for q in unread[:NAMED])
        more = ", …" if len(unread) > NAMED else ""
        fate = "left out of training" if name == "train" else "answered by the empty text"
        say(
            f"warning: {len(unread)} of {len(examples)} {name} questions are {fate} ({ids}{more}): "
            f"{UNREAD}"
        )
