"""From tokens and flags to what pretraining takes besides: examples and model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.data.features import Features
from minibert.data.masking import Masking
from minibert.data.pretraining import Phase, PretrainingData
from minibert.data.segments import (
    FullSequences,
    Ints,
    Segmentation,
    SentencePairs,
    too_long,
)
from minibert.data.token_store import TokenStore
from minibert.errors import InputError
from minibert.hub import resolve_model
from minibert.io.progress import say
from minibert.models import BertForPreTraining
from minibert.models.sizes import sized_config
from minibert.tokenization import BertTokenizer
from minibert.training.arguments import TrainingArguments
from minibert.training.pretraining_arguments import (
    ExampleArguments,
    ModelArguments,
)
from minibert.training.pretraining_sources import Sources


def make_examples(
    e: ExampleArguments, sources: Sources, tokenizer: BertTokenizer, args: TrainingArguments
) -> tuple[PretrainingData, Features | None]:
    """What to train on, and the examples to evaluate on."""
    masking = Masking.by(tokenizer, e.mlm_probability, e.max_predictions_per_seq, e.whole_word_mask)

    def rule(store: TokenStore, documents: Ints, length: int, short: float) -> Segmentation:
        if e.no_nsp:
            return FullSequences(store, documents, length)
        return SentencePairs(store, documents, length, short)

    train = sources.train, sources.train_documents
    first = rule(*train, e.max_seq_length, e.short_seq_prob)
    phases: tuple[Phase, ...] = (Phase(first),)
    if e.second_phase_steps:
        if not 0 < e.second_phase_steps < args.max_steps:
            raise InputError(
                f"--second_phase_steps {e.second_phase_steps} are the last of --max_steps, "
                f"which is {args.max_steps}: set it to more"
            )
        second = rule(*train, e.second_phase_length, e.short_seq_prob)
        phases = (Phase(first, args.max_steps - e.second_phase_steps), Phase(second))
    longer, share = too_long(first)
    if longer:
        say(
            f"warning: {longer:,} sentences are longer than an example of {e.max_seq_length} "
            f"tokens and are cut to fit: {share:.2%} of all tokens, at least, are left out "
            "of every epoch; raise --max_seq_length"
        )
    held_out = sources.validation, sources.validation_documents
    evaluate = None
    if len(sources.validation_documents) == 1 and not e.no_nsp:
        raise InputError(
            "one document is held out, but the random next sentences of its examples come from "
            "another: hold out two or more, or leave next sentences out (--no_nsp)"
        )
    if len(sources.validation_documents):
        full = rule(*held_out, e.max_seq_length, 0.0)
        check = PretrainingData(masking, (Phase(full),))
        evaluate = check.sample(args.seed, e.max_eval_samples)
    return PretrainingData(masking, phases), evaluate


def make_model(
    m: ModelArguments, base: Path | None, tokenizer: BertTokenizer, e: ExampleArguments,
    args: TrainingArguments,
) -> BertForPreTraining:  # fmt: skip
    """A new model, or the one in the directory `base`, for this vocabulary and these examples."""
    dropout: dict[str, Any] = {}
    if m.dropout is not None:
        dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), m.dropout)
    machine: dict[str, Any] = {
        "backend": args.backend,
        "dtype": args.dtype,
        "precision": args.precision,
        "threads": args.threads,
    }
    if base is None:
        config = sized_config(
            m.model_size,
            len(tokenizer),
            max_position_embeddings=max(512, e.longest),
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=m.initializer_range,
            **dropout,
        )
        return BertForPreTraining(
            config, seed=args.seed, initialization=m.initialization, **machine
        )
    model = BertForPreTraining.from_pretrained(base, seed=args.seed, **machine, **dropout)
    say(f"model {m.model_name_or_path}\n{model.load_report}")
    config = model.config
    _check_vocabulary(tokenizer, base, config.vocab_size)
    if e.longest > config.max_position_embeddings:
        name = "max_seq" if e.longest == e.max_seq_length else "second_phase"
        raise InputError(
            f"--{name}_length {e.longest} is more than the model's position table holds "
            f"(max_position_embeddings = {config.max_position_embeddings}): lower it"
        )
    return model


def _check_vocabulary(tokenizer: BertTokenizer, base: Path, vocab_size: int) -> None:
    """InputError unless the ids mean to `tokenizer` what they mean to the model in `base`.

    Pieces that the model's vocabulary calls unused may be others: that is what they are for.
    """
    advice = "they do not belong together; leave out --tokenizer_name"
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"the vocabulary has {len(tokenizer)} pieces, but the model's vocab_size is "
            f"{vocab_size}: {advice}"
        )
    if not any((base / name).exists() for name in ("tokenizer.json", "vocab.txt")):
        return
    own = BertTokenizer.from_pretrained(base)
    for index, piece in enumerate(own.convert_ids_to_tokens(range(len(own)))):
        found = tokenizer.convert_tokens_to_ids(piece)
        if found != index and not piece.startswith("[unused"):
            here = "absent" if found == tokenizer.unk_token_id else f"piece {found}"
            raise InputError(
                f"the vocabulary is not the model's: {piece!r} is {here}, and piece {index} in "
                f"{base}: {advice}"
            )


def base_directory(m: ModelArguments) -> Path | None:
    """The directory of the model to go on with."""
    if m.model_name_or_path is None:
        return None
    if m.embeddings_from_counts:
        raise InputError(
            "--embeddings_from_counts is for a new model: leave it out, or --model_name_or_path"
        )
    return resolve_model(m.model_name_or_path, revision=m.model_revision)
