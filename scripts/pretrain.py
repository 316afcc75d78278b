#!/usr/bin/env python3
"""Pretrain a BERT on plain text: vocabulary, data, masked language model and next sentence.

    python scripts/pretrain.py --corpus novels/ --model_size small --max_steps 20000
        A new BERT from a folder of text files, each a document. A twentieth of them is held out;
        --validation_corpus names other files for it. Compressed files, tar archives and JSON lines
        (--text_field text) are read as they are.

    python scripts/pretrain.py --corpus wiki.txt --documents blank_lines --sentences lines
        Google's format: one sentence a line, a blank line between documents.

    python scripts/pretrain.py --corpus novels/ --no_nsp --whole_word_mask
        Masked language model alone, on full sequences of sentences; words are masked whole. A new
        model has that head alone (BertForMaskedLM).

    python scripts/pretrain.py --corpus … --max_steps 20000 --second_phase_steps 2000
        The first 18,000 steps on examples of 128 tokens, the last 2,000 on 512.
        The final results are those of both lengths.

    python scripts/pretrain.py --corpus papers/ --model_name_or_path google-bert/bert-base-uncased
        Go on with a pretrained model and its vocabulary, on text of your own.

    python scripts/pretrain.py --corpus … --optim lamb --learning_rate 2e-3
                               --per_device_train_batch_size 256 --gradient_accumulation_steps 8
        Large batches; the accumulated parts take the memory of one.

    python scripts/pretrain.py --corpus … --resume_from_checkpoint last
        Go on after Ctrl-C, or a kill, to the same bytes as if nothing had happened.

The corpus is tokenised once, in parallel, into a store on the disk that may be larger than memory;
later runs open it in seconds. Examples are made from it as they are needed, with new masks in every
epoch. The output is a directory that minibert and transformers load, with both heads if both have
learnt; log.jsonl; and, where matplotlib is installed (the [plot] extra), curves.png.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from minibert.checkpoint.model_card import model_card
from minibert.data.features import Features
from minibert.io.command_line import Parser, run
from minibert.io.files import atomic_write
from minibert.io.numbers import counted, four_places
from minibert.tasks.pre_training import PreTraining
from minibert.training.arguments import parse
from minibert.training.counted_start import narrow_embeddings, start_from_counts
from minibert.training.places import check_places
from minibert.training.plot import plot_log
from minibert.training.pretraining import (
    base_directory,
    check_phases,
    make_examples,
    make_model,
)
from minibert.training.pretraining_arguments import (
    CorpusArguments,
    ExampleArguments,
    ModelArguments,
    PretrainingArguments,
    VocabularyArguments,
    refuse_idle_flags,
)
from minibert.training.pretraining_sources import list_files, make_tokenizer, tokenise
from minibert.training.state import LOG, claim_output, saving
from minibert.training.trainer import Trainer

SHOWN = (
    "learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "optim", "weight_decay",
    "adam_beta1", "adam_beta2", "adam_epsilon", "per_device_train_batch_size",
    "gradient_accumulation_steps", "max_grad_norm", "dtype", "precision",
)  # fmt: skip


def main() -> None:
    corpus, vocabulary, examples, shape, args = parse(
        Parser(__doc__),
        (CorpusArguments, VocabularyArguments, ExampleArguments, ModelArguments,
         PretrainingArguments),
    )  # fmt: skip
    output, quiet = Path(args.output_dir), args.disable_tqdm
    claim_output(output, args)
    refuse_idle_flags(shape, vocabulary)
    check_phases(examples, args)
    corpora = list_files(corpus)
    check_places(corpus, corpora, output)
    base = base_directory(shape)
    tokenizer = make_tokenizer(corpus, vocabulary, corpora, base, quiet)
    model = make_model(shape, vocabulary, base, tokenizer, examples, args)
    if base is None:
        tokenizer = tokenizer.with_max_length(model.config.max_position_embeddings)
    pairs = not examples.no_nsp
    sources = tokenise(corpus, vocabulary, corpora, base, tokenizer, args.seed, quiet, pairs)
    if shape.embeddings_from_counts and not (args.resume_from_checkpoint or args.dry_run):
        start_from_counts(model, sources, args.seed, quiet)
    train, held_out = make_examples(examples, sources, tokenizer, args)
    trainer = Trainer(
        model, args, PreTraining(next_sentence=pairs), train, held_out.get(examples.max_seq_length),
        tokenizer, shape.identity(model.config),
    )  # fmt: skip
    describe(trainer, held_out)
    if args.dry_run:
        own = base or vocabulary.tokenizer_name
        made = "the tokenised corpus is" if own else "vocabulary and tokenised corpus are"
        kept = f"{made} kept in {sources.train.directory.parent}"
        print(trainer.dry_run(f"No model was written; {kept}."))
        return
    trainer.train()
    results = {
        length: trainer.evaluate(part, f"held out, {length} tokens")
        for length, part in held_out.items()
    }
    if shape.embeddings_from_counts:
        narrow_embeddings(model)
    save(trainer, corpus, examples, shape, named(results))
    report(results, output)


def describe(trainer: Trainer, held_out: Mapping[int, Features]) -> None:
    model, args = trainer.model, trainer.args
    c = model.config
    where = model.xp.name
    where += f", {counted(model.workers.threads, 'thread')}" * (where == "numpy")
    precision = args.dtype if args.precision == "fp32" else args.precision
    print(
        f"{model.parameters.layout.size:,} parameters ({c.num_hidden_layers} layers of "
        f"{c.hidden_size}, vocabulary of {c.vocab_size:,}), {precision}, on {where}"
    )
    counts = [
        f"{counted(len(part), 'held-out example')} of {length} tokens"
        for length, part in held_out.items()
    ]
    steps = counted(trainer.total_steps, "step")
    print(f"{steps}; {', '.join(counts) or 'nothing held out'}", flush=True)


def named(results: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """The results by name; with that of the length where there are several."""
    if len(results) == 1:
        return dict(*results.values())
    return {
        f"{name}_at_{length}_tokens": value
        for length, metrics in results.items()
        for name, value in metrics.items()
    }


def save(
    trainer: Trainer,
    corpus: CorpusArguments,
    examples: ExampleArguments,
    shape: ModelArguments,
    results: dict[str, float],
) -> None:
    model, args, output = trainer.model, trainer.args, trainer.output_dir
    hyperparameters = {name: value for name, value in asdict(args).items() if name in SHOWN}
    hyperparameters |= {"steps": trainer.state.step, **asdict(examples)}
    hyperparameters |= {"documents": corpus.documents, "sentences": corpus.sentences}
    if not examples.second_phase_steps:
        del hyperparameters["second_phase_steps"], hyperparameters["second_phase_length"]
    if shape.model_name_or_path is None:
        hyperparameters |= shape.identity(model.config)
        hyperparameters["initialization"] = shape.initialization
    card = model_card(
        output.resolve().name,
        base_model=shape.model_name_or_path or f"a BERT of size {shape.model_size}, from scratch",
        data=names_of(corpus.corpus),
        hyperparameters=hyperparameters,
        seed=args.seed,
        metrics=results,
        task="fill-mask",
        training="pretrained further" if shape.model_name_or_path else "pretrained",
        evaluated_on=names_of(corpus.validation_corpus) if corpus.validation_corpus else None,
    )
    with saving(output):
        model.save_pretrained(output, tokenizer=trainer.tokenizer, card=card)
    atomic_write(output / "all_results.json", json.dumps(results, indent=1) + "\n")
    if not plot_log(output / LOG, output / "curves.png", not examples.no_nsp):
        print('no picture of the curves: pip install "minibert[plot]" for it')


def names_of(paths: Sequence[str]) -> str:
    return ", ".join(Path(path).name for path in paths)


def report(results: Mapping[int, Mapping[str, float]], output: Path) -> None:
    for length, metrics in results.items():
        shown = "  ".join(f"{name} {four_places(value)}" for name, value in metrics.items())
        print(f"held out{f', {length} tokens' * (len(results) > 1)}  {shown}")
    python, model = Path(sys.executable).name, shlex.quote(str(output))
    print(f"model saved; try\n  {python} scripts/finetune.py --model_name_or_path {model}")


if __name__ == "__main__":
    run(main)
