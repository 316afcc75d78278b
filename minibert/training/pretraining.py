"""From tokens and flags to what pretraining takes besides: examples and model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from minibert.checkpoint.directory import open_weights
from minibert.checkpoint.renaming import our_names
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
from minibert.io.numbers import counted
from minibert.io.progress import say
from minibert.models import BertForMaskedLM, BertForPreTraining, BertPreTrainedModel
from minibert.models.next_sentence import NEXT_SENTENCE
from minibert.models.sizes import sized_config
from minibert.tokenization import BertTokenizer
from minibert.training.arguments import TrainingArguments
from minibert.training.pretraining_arguments import (
    ExampleArguments,
    ModelArguments,
    VocabularyArguments,
)
from minibert.training.pretraining_sources import Sources


class Examples(NamedTuple):
    """What to train on, and the examples to evaluate on, by the length they are made for."""

    train: PretrainingData
    held_out: dict[int, Features]  # the first phase's first; empty where nothing is held out


def make_examples(
    e: ExampleArguments, sources: Sources, tokenizer: BertTokenizer, args: TrainingArguments
) -> Examples:
    """The examples of each phase; held-out ones of each phase's length."""
    check_phases(e, args)
    masking = Masking.by(tokenizer, e.mlm_probability, e.max_predictions_per_seq, e.whole_word_mask)

    def rule(store: TokenStore, documents: Ints, length: int, short: float) -> Segmentation:
        if e.no_nsp:
            return FullSequences(store, documents, length)
        return SentencePairs(store, documents, length, short)

    train = sources.train, sources.train_documents
    first = rule(*train, e.max_seq_length, e.short_seq_prob)
    phases: tuple[Phase, ...] = (Phase(first),)
    if e.second_phase_steps:
        second = rule(*train, e.second_phase_length, e.short_seq_prob)
        phases = (Phase(first, args.max_steps - e.second_phase_steps), Phase(second))
    longer, share = too_long(first)
    if longer:
        say(
            f"warning: {counted(longer, 'sentence')} longer than an example of {e.max_seq_length} "
            f"tokens, cut to fit: {share:.2%} of all tokens, at least, are left out "
            "of every epoch; raise --max_seq_length"
        )
    held_out = sources.validation, sources.validation_documents
    if len(held_out[1]) == 1 and not e.no_nsp:
        raise InputError(
            "one document is held out, but the random next sentences of its examples come from "
            "another: hold out two or more, or leave next sentences out (--no_nsp)"
        )
    lengths = [phase.rule.length for phase in phases] if len(held_out[1]) else []
    evaluate = {}
    for length in lengths:
        check = PretrainingData(masking, (Phase(rule(*held_out, length, 0.0)),))
        evaluate[length] = check.sample(args.seed, e.max_eval_samples)
    return Examples(PretrainingData(masking, phases), evaluate)


def check_phases(e: ExampleArguments, args: TrainingArguments) -> None:
    """InputError unless both phases have steps."""
    if e.second_phase_steps and not e.second_phase_steps < args.max_steps:
        raise InputError(
            f"--second_phase_steps {e.second_phase_steps} are the last of --max_steps, "
            f"which is {args.max_steps}: set it to more"
        )


def make_model(
    m: ModelArguments, v: VocabularyArguments, base: Path | None, tokenizer: BertTokenizer,
    e: ExampleArguments, args: TrainingArguments,
) -> BertPreTrainedModel:  # fmt: skip
    """A new model, or the one in the directory `base`, for this vocabulary and these examples."""
    kind = _model_class(base, next_sentence=not e.no_nsp)
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
        return kind(config, seed=args.seed, initialization=m.initialization, **machine)
    model = kind.from_pretrained(base, seed=args.seed, **machine, **dropout)
    say(f"model {m.model_name_or_path}\n{model.load_report}")
    config = model.config
    _check_vocabulary(tokenizer, base, config.vocab_size, bool(v.tokenizer_name))
    if e.longest > config.max_position_embeddings:
        name = "max_seq" if e.longest == e.max_seq_length else "second_phase"
        raise InputError(
            f"--{name}_length {e.longest} is more than the model's position table holds "
            f"(max_position_embeddings = {config.max_position_embeddings}): lower it"
        )
    return model


def _model_class(base: Path | None, next_sentence: bool) -> type[BertPreTrainedModel]:
    """With a next-sentence head where it learns, or where the model in `base` brings one."""
    brought = our_names(base, open_weights(base)) if base else {}
    both = next_sentence or set(NEXT_SENTENCE) <= set(brought)
    return BertForPreTraining if both else BertForMaskedLM


def _check_vocabulary(tokenizer: BertTokenizer, base: Path, vocab_size: int, named: bool) -> None:
    """InputError unless the ids mean to `tokenizer` what they mean to the model in `base`.

    named: whether it is one that the user names, and not the model's own. Pieces that the model's
    vocabulary calls unused may be others: that is what they are for.
    """
    apart = "they do not belong together" + ("; leave out --tokenizer_name" if named else "")
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"the vocabulary has {len(tokenizer)} pieces, but the model's vocab_size is "
            f"{vocab_size}: {apart}"
        )
    if not named or not any((base / name).exists() for name in ("tokenizer.json", "vocab.txt")):
        return
    own = BertTokenizer.from_pretrained(base)
    for index, piece in enumerate(own.convert_ids_to_tokens(range(len(own)))):
        found = tokenizer.convert_tokens_to_ids(piece)
        if found != index and not piece.startswith("[unused"):
            here = "absent" if found == tokenizer.unk_token_id else f"piece {found}"
            raise InputError(
                f"the vocabulary is not the model's: {piece!r} is {here}, and piece {index} in "
                f"{base}: {apart}"
            )
    for name, value in own.normalization.items():
        if (other := tokenizer.normalization.get(name, value)) != value:
            raise InputError(
                f"the vocabulary is the model's, but not how a text is read: {name} is {other}, "
                f"and {value} in {base}: {apart}"
            )


def base_directory(m: ModelArguments) -> Path | None:
    """The directory of the model to go on with."""
    if m.model_name_or_path is None:
        return None
    return resolve_model(m.model_name_or_path, revision=m.model_revision)
