"""Arguments of pretraining: what to read, how examples are made, which model, how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minibert.config import BertConfig
from minibert.data.corpus import DOCUMENTS, SENTENCES
from minibert.data.pretraining import ALL_AS_LONG
from minibert.errors import InputError
from minibert.models.initialization import INITIALIZATIONS
from minibert.models.sizes import SIZES
from minibert.training.arguments import TrainingArguments, option


@dataclass
class CorpusArguments:
    """What to train on."""

    corpus: list[str] = option(  # noqa: RUF009
        None, "text files, folders, .gz .xz .bz2 .tar archives, .jsonl", metavar="PATH"
    )
    validation_corpus: list[str] | None = option(  # noqa: RUF009
        None, "text to evaluate on, read in the same way", metavar="PATH"
    )
    validation_documents: int | None = option(
        None, "documents of the corpus to hold out instead",
        shown="one in twenty, 2 at least, or 1 with no_nsp",
    )  # fmt: skip
    documents: str = option(
        "files", "a document is a file (of an archive: a member), or ends at a blank line; a JSON "
        "line is always one", DOCUMENTS,
    )  # fmt: skip
    sentences: str = option(
        "rule", "found by punctuation, or one a line; those over 120 tokens are broken", SENTENCES
    )
    text_field: str = option("text", "of JSON lines: the field that holds the text")
    store: str | None = option(
        None, "where vocabulary and tokenised corpus are kept", metavar="DIR",
        shown="in $MINIBERT_CACHE/corpora, until you delete it there",
    )  # fmt: skip
    overwrite_store: bool = option(False, "make both anew: after the corpus has changed")
    preprocessing_num_workers: int | None = option(
        None, "processes that tokenise", shown="all cores"
    )

    def __post_init__(self) -> None:
        if not self.corpus:
            raise InputError("--corpus is wanted: text files, folders or archives to train on")
        if self.preprocessing_num_workers is not None and self.preprocessing_num_workers < 1:
            raise InputError("--preprocessing_num_workers must be at least 1")
        if self.validation_corpus and self.validation_documents is not None:
            raise InputError("give --validation_corpus or --validation_documents, not both")


@dataclass
class VocabularyArguments:
    """Its vocabulary, learnt from the corpus unless there is one."""

    tokenizer_name: str | None = option(
        None, "a directory or hub name with a vocabulary", shown="the model's, or a new one"
    )
    vocab_size: int = option(30522, "pieces of a new vocabulary")
    cased: bool = option(False, "keep capital letters and accents")
    limit_alphabet: int = option(1000, "characters that are kept, the most frequent ones")
    min_frequency: int = option(2, "times that a pair of pieces occurs before it is joined")

    def __post_init__(self) -> None:
        for name in ("vocab_size", "limit_alphabet", "min_frequency"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"--{name} must be at least 1, got {value}")


@dataclass
class ExampleArguments:
    """How examples are made, anew in every epoch."""

    max_seq_length: int = option(128, "tokens of an example")
    second_phase_length: int = option(512, "tokens of an example in the second phase")
    second_phase_steps: int = option(0, "last steps of max_steps that are the second phase")
    no_nsp: bool = option(
        False, "no next-sentence prediction: full sequences of sentences instead of pairs"
    )
    short_seq_prob: float = option(0.1, "share of documents whose pairs are shorter")
    mlm_probability: float = option(0.15, "share of tokens that are masked")
    max_predictions_per_seq: int | None = option(None, "and at most that many in an example")
    whole_word_mask: bool = option(False, "mask all pieces of a word, or none")
    max_eval_samples: int = option(1000, "held-out examples to evaluate on, always the same")

    def __post_init__(self) -> None:
        if self.max_eval_samples < 1 or self.second_phase_steps < 0:
            raise InputError(
                "--max_eval_samples must be positive, --second_phase_steps not negative"
            )

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        second = self.second_phase_length if self.second_phase_steps else 0
        return max(self.max_seq_length, second)


@dataclass
class ModelArguments:
    """Which model."""

    model_name_or_path: str | None = option(
        None, "go on with a pretrained model: a directory or hub name", shown="a new model"
    )
    model_revision: str | None = option(None, "of a model on the hub: a branch, tag or commit")
    model_size: str = option("small", "of a new model, as Google published them", tuple(SIZES))
    initialization: str = option("huggingface", "whose way of drawing new weights", INITIALIZATIONS)
    initializer_range: float = option(
        0.02, "standard deviation of new weights; a narrow model learns sooner with a wider one"
    )
    embeddings_from_counts: bool = option(
        False,
        "begin with words by their neighbours in the corpus (PPMI, SVD), positions by waves and "
        "keys as queries, instead of at random: takes seconds, and a small model learns several "
        "times sooner",
    )
    dropout: float | None = option(
        None, "of activations and attention", shown="the model's, 0.1 of a new one"
    )

    def __post_init__(self) -> None:
        if self.embeddings_from_counts and not self.initializer_range > 0:
            raise InputError(
                "--embeddings_from_counts makes tables as wide as --initializer_range says, which "
                f"is {self.initializer_range:g}: set it above 0, such as 0.02"
            )

    def identity(self, config: BertConfig) -> dict[str, Any]:
        """What a resumed run must share: how tables are made wide, and narrow at the end."""
        return {
            "embeddings_from_counts": self.embeddings_from_counts,
            "initializer_range": config.initializer_range,
        }


NEW_MODEL = ("model_size", "initialization", "initializer_range", "embeddings_from_counts")
NEW_VOCABULARY = ("vocab_size", "cased", "limit_alphabet", "min_frequency")


def refuse_idle_flags(m: ModelArguments, v: VocabularyArguments) -> None:
    """InputError for flags of a new model, or vocabulary, where there is one that is gone on with.

    They would change nothing, and nobody told.
    """
    model = _given(m, NEW_MODEL) if m.model_name_or_path else []
    vocabulary = _given(v, NEW_VOCABULARY) if m.model_name_or_path or v.tokenizer_name else []
    if not (idle := model + vocabulary):
        return
    kinds = [kind for kind, names in (("model", model), ("vocabulary", vocabulary)) if names]
    named = (("--model_name_or_path", m.model_name_or_path),
             ("--tokenizer_name", vocabulary and v.tokenizer_name))  # fmt: skip
    whose = " and ".join(flag for flag, given in named if given)
    are, them = ("are", "them") if len(idle) > 1 else ("is", "it")
    raise InputError(
        f"{', '.join(f'--{name}' for name in idle)} {are} for a new {' or '.join(kinds)}: leave "
        f"{them} out, or {whose}"
    )


def _given(arguments: Any, names: tuple[str, ...]) -> list[str]:
    """Those of the names whose value is not the default."""
    fields = type(arguments).__dataclass_fields__
    return [name for name in names if getattr(arguments, name) != fields[name].default]


def _changed(name: str, default: Any) -> Any:
    """A field of `TrainingArguments` with another default."""
    metadata = TrainingArguments.__dataclass_fields__[name].metadata
    return field(default=default, metadata={**metadata, "shown": None})


def _without_meaning(name: str) -> Any:
    """A field of `TrainingArguments` that the help does not show."""
    return option(TrainingArguments.__dataclass_fields__[name].default, None)


@dataclass
class PretrainingArguments(TrainingArguments):
    """How to train. Every field is a flag of the same name."""

    output_dir: str = _changed("output_dir", "outputs/pretrained")
    num_train_epochs: float = option(
        40.0, "times to go through the corpus, counted as so many times the steps of the first"
    )
    learning_rate: float = _changed("learning_rate", 1e-4)
    optim: str = _changed("optim", "adam_google")
    adam_epsilon: float = _changed("adam_epsilon", 1e-6)
    eval_strategy: str = _changed("eval_strategy", "steps")
    eval_steps: int = _changed("eval_steps", 1000)
    save_strategy: str = _changed("save_strategy", "steps")
    save_steps: int = _changed("save_steps", 1000)
    load_best_model_at_end: bool = _changed("load_best_model_at_end", False)
    logging_steps: int = _changed("logging_steps", 50)
    # No use where all examples are about as long: refused, but for the last, which is theirs.
    max_tokens_per_batch: int | None = _without_meaning("max_tokens_per_batch")
    group_by_length: bool = _without_meaning("group_by_length")
    length_window: int = _without_meaning("length_window")
    dry_run: bool = option(
        False, "do a step of each phase and print memory and time estimates; vocabulary and store "
        "are made and kept, nothing else is written",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens_per_batch is not None or self.group_by_length:
            raise InputError(ALL_AS_LONG)
