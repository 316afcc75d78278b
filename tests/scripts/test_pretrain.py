"""scripts/pretrain.py: from text to a model, its resume after a kill, one line for bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import toy
import toy_corpus
from toy_corpus import WORDS

from minibert import BertConfig, BertForMaskedLM, BertForPreTraining, BertTokenizer
from minibert.data import corpus as corpora
from minibert.data import made_of
from minibert.io.numbers import four_places
from minibert.pipelines import FillMaskPipeline
from minibert.training.state import checkpoints

FAST = [
    *("--sentences", "lines", "--vocab_size", 200, "--model_size", "tiny", "--max_seq_length", 24),
    *("--per_device_train_batch_size", 8, "--threads", 1, "--backend", "numpy", "--disable_tqdm"),
    *("--preprocessing_num_workers", 1, "--logging_steps", 2, "--max_steps", 6, "--eval_steps", 3),
    *("--max_eval_samples", 8, "--initializer_range", 0.05),
]


def going_on(flags: list[Any]) -> list[Any]:
    """The flags without those of a new model and a new vocabulary."""
    new = ("--vocab_size", "--model_size", "--initializer_range")
    kept = zip(flags, [None, *flags[:-1]], strict=True)
    return [flag for flag, before in kept if flag not in new and before not in new]


@pytest.fixture
def flags(tmp_path: Path) -> list[Any]:
    corpus = toy_corpus.write(tmp_path / "corpus", documents=8)
    places = ["--corpus", corpus, "--store", tmp_path / "store", "--output_dir", tmp_path / "out"]
    return [*places, *FAST]


def test_the_main_job(script, flags, tmp_path):
    """Both heads, a vocabulary, a log, a model that fills masks; a second start opens the store."""
    ended = script("pretrain", *flags, "--validation_documents", 2)
    assert (ended.status, ended.err) == (0, "")
    assert "train: " in ended.out
    assert "6 steps; 8 held-out examples" in ended.out
    out = tmp_path / "out"
    config = BertConfig.from_pretrained(out)
    assert (config.num_hidden_layers, config.hidden_size) == (2, 128)
    assert config.architectures == ("BertForPreTraining",)
    assert config.initializer_range == 0.05
    model = BertForPreTraining.from_pretrained(out, backend="numpy")
    assert not model.load_report.missing
    tokenizer = BertTokenizer.from_pretrained(out)
    assert config.vocab_size == len(tokenizer)
    assert tokenizer.mask_token_id == 103
    assert FillMaskPipeline.from_pretrained(out)("sun [MASK] sun.")[0]["score"] > 0
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval_mlm_accuracy" in line] == [3, 6]
    results = json.loads((out / "all_results.json").read_text())
    assert results.keys() >= {"mlm_loss", "perplexity", "mlm_accuracy", "nsp_accuracy"}
    card = (out / "README.md").read_text()
    assert "a BERT of size tiny, from scratch, pretrained on corpus" in card
    assert "second_phase" not in card
    assert "language" not in card
    assert "| embeddings_from_counts | False |" in card
    assert tokenizer.model_max_length == config.max_position_embeddings == 512

    ids = (tmp_path / "store/train/ids").stat().st_mtime_ns
    again = script("pretrain", *flags, "--validation_documents", 2, "--overwrite_output_dir")
    assert again.status == 0
    assert (tmp_path / "store/train/ids").stat().st_mtime_ns == ids
    assert json.loads((out / "all_results.json").read_text()) == results


def test_a_tokenizer_knows_a_longer_window(script, flags, tmp_path):
    assert script("pretrain", *flags, "--max_seq_length", 700, "--max_steps", 1).status == 0
    assert BertTokenizer.from_pretrained(tmp_path / "out").model_max_length == 700


def test_a_start_from_counts_is_the_corpus_own_and_survives_a_resume(script, flags, tmp_path):
    """Words of like neighbours begin alike; a resumed run has the bytes of an uninterrupted one."""
    counted = [*flags, "--embeddings_from_counts", "--save_steps", 3]
    ended = script("pretrain", *counted, "--max_steps", 6)
    assert (ended.status, ended.err) == (0, "")
    whole = (tmp_path / "out/model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "out/checkpoint-6")
    (tmp_path / "out/model.safetensors").unlink()
    resumed = script("pretrain", *counted, "--max_steps", 6, "--resume_from_checkpoint", "last")
    assert (resumed.status, resumed.err) == (0, "")
    assert (tmp_path / "out/model.safetensors").read_bytes() == whole
    last = [*flags, "--save_steps", 3, "--resume_from_checkpoint", "last"]
    others = {
        "embeddings_from_counts: then True, now False": last,
        "initializer_range: then 0.05, now 0.1":
            [*last, "--embeddings_from_counts", "--initializer_range", 0.1],
    }  # fmt: skip
    for said, run in others.items():  # the tables would stay wide, or be made narrower
        ended = script("pretrain", *run)
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert f"was written by a different run ({said}). Resume with the same" in ended.err

    model = BertForPreTraining.from_pretrained(tmp_path / "out", backend="numpy")
    tokenizer = BertTokenizer.from_pretrained(tmp_path / "out")
    words = model.parameters["bert.embeddings.word_embeddings.weight"]
    sun, suns, moon = words[tokenizer.convert_tokens_to_ids(["sun", "suns", "moon"])]
    assert sun @ suns > 0.5 * (sun @ sun)
    assert sun @ moon < 0.3 * (sun @ sun)

    refused = script(
        *("pretrain", *going_on(counted), "--overwrite_output_dir"),
        *("--model_name_or_path", tmp_path / "out"),
    )
    assert refused.status != 0
    assert "--embeddings_from_counts is for a new model" in refused.err
    refused = script("pretrain", *counted, "--overwrite_output_dir", "--initializer_range", 0)
    assert refused.status != 0
    assert "set it above 0" in refused.err


def test_going_on_with_a_model_in_two_phases_without_next_sentences(script, flags, tmp_path):
    """On full sequences with whole words, of another corpus, evaluated on a third."""
    base = tmp_path / "base"
    toy_corpus.model().save_pretrained(base, tokenizer=toy_corpus.tokenizer())
    held_out = toy_corpus.write(tmp_path / "held out", documents=2, seed=3)
    ended = script(
        *("pretrain", *going_on(flags), "--model_name_or_path", base),
        *("--validation_corpus", held_out),
        *("--no_nsp", "--whole_word_mask", "--second_phase_steps", 2, "--second_phase_length", 40),
        *("--optim", "lamb", "--dropout", 0),
    )
    assert (ended.status, ended.err) == (0, "")
    config = BertConfig.from_pretrained(tmp_path / "out")
    assert (config.hidden_size, config.hidden_dropout_prob) == (24, 0.0)
    saved = BertForPreTraining.from_pretrained(tmp_path / "out", backend="numpy")
    assert not saved.load_report.missing  # it keeps the head that it brought
    assert not (tmp_path / "store/tokenizer").exists()
    results = json.loads((tmp_path / "out/all_results.json").read_text())
    card = (tmp_path / "out/README.md").read_text()
    assert "| second_phase_length | 40 |" in card
    names = ("loss", "mlm_loss", "perplexity", "mlm_accuracy", "mlm_baseline")
    assert [*results] == [f"{name}_at_{length}_tokens" for length in (24, 40) for name in names]
    for length in (24, 40):
        shown = four_places(results[f"perplexity_at_{length}_tokens"])
        assert re.search(rf"held out, {length} tokens  loss .*perplexity {shown} ", ended.out)
        assert f"| perplexity_at_{length}_tokens | {shown} |" in card
    log = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    evaluated = [entry["eval_mlm_loss"] for entry in log if "eval_mlm_loss" in entry]
    assert results["mlm_loss_at_24_tokens"] == evaluated[-1]


def test_without_next_sentences_a_new_model_has_no_head_for_them(script, flags, tmp_path):
    """Nor has one that goes on with it."""
    runs = {
        "out": [*flags, "--max_steps", 2],
        "further": [
            *(*going_on(flags), "--max_steps", 2, "--output_dir", tmp_path / "further"),
            *("--model_name_or_path", tmp_path / "out"),
        ],
    }
    for name, run in runs.items():
        ended = script("pretrain", *run, "--no_nsp")
        assert ended.status == 0
        assert "untrained" not in ended.out  # nothing is missing that would be trained
        for place in (tmp_path / name, tmp_path / name / "checkpoint-2"):
            saved = BertForMaskedLM.from_pretrained(place, backend="numpy")
            assert saved.config.architectures == ("BertForMaskedLM",)
            assert not saved.load_report.missing
            assert not saved.load_report.unexpected  # no pooler either
        assert f"\n{saved.parameters.layout.size:,} parameters (" in ended.out


def test_a_diverged_run_prints_no_page_of_digits(script, flags, tmp_path):
    """Held out, in the log's lines and in the card; the files have the number itself."""
    wild = ("--learning_rate", 1e4, "--max_grad_norm", 0, "--optim", "sgd", "--warmup_ratio", 0)
    ended = script("pretrain", *flags, *wild, "--max_steps", 2)
    assert ended.status == 0
    assert json.loads((tmp_path / "out/all_results.json").read_text())["perplexity"] > 1e30
    for text in (ended.out, (tmp_path / "out/README.md").read_text().split("## Results")[1]):
        assert "e+" in text
        assert not re.search(r"\d{20}", text)


def test_models_of_several_vocabularies_share_a_corpus(script, flags, tmp_path, monkeypatch):
    """Each has its store in the cache; in a --store that is named, the other one's is not lost."""
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "cache"))
    base = tmp_path / "base"
    toy_corpus.model().save_pretrained(base, tokenizer=toy_corpus.tokenizer())
    cached = [flag for flag in flags if flag not in ("--store", tmp_path / "store")]
    for run in (cached, [*going_on(cached), "--model_name_or_path", base], cached):
        ended = script("pretrain", *run, "--dry_run")
        assert (ended.status, ended.err) == (0, "")
    assert len(list((tmp_path / "cache/corpora").iterdir())) == 2
    assert "kept in the cache" not in ended.out  # it was there

    assert script("pretrain", *flags, "--dry_run").status == 0
    refused = script("pretrain", *going_on(flags), "--model_name_or_path", base)
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "tokenised with another tokenizer; choose another --store" in refused.err


def test_a_store_in_the_cache_is_said_once_and_can_be_deleted(script, flags, tmp_path, monkeypatch):
    """With its size and that of all others; made anew it is the same, and a run goes on with it."""
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "cache"))
    corpora = tmp_path / "cache/corpora"
    (corpora / "another").mkdir(parents=True)
    (corpora / "another/ids").write_bytes(bytes(3_000_000))
    cached = [flag for flag in flags if flag not in ("--store", tmp_path / "store")]
    ended = script("pretrain", *cached, "--save_steps", 3)
    (made,) = set(corpora.iterdir()) - {corpora / "another"}
    size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    said = f"kept in the cache: {size / 1e6:.1f} MB as {made.name} ({corpora} holds "
    assert f"{said}{(3e6 + size) / 1e6:.1f} MB in all; what you delete there can" in ended.out

    whole = (tmp_path / "out/model.safetensors").read_bytes()
    shutil.rmtree(made)
    shutil.rmtree(tmp_path / "out/checkpoint-6")
    ended = script("pretrain", *cached, "--save_steps", 3, "--resume_from_checkpoint", "last")
    assert (ended.status, ended.err) == (0, "")
    assert said in ended.out
    assert (tmp_path / "out/model.safetensors").read_bytes() == whole


def test_a_dry_run_writes_no_model(script, flags, tmp_path):
    ended = script("pretrain", *flags, "--dry_run")
    assert ended.status == 0
    assert "dry run: loss" in ended.out
    assert not (tmp_path / "out").exists()
    kept = f"vocabulary and tokenised corpus are kept in {tmp_path / 'store'}.\n"
    assert ended.out.endswith(f"No model was written; {kept}")
    phases = ["--second_phase_steps", 2, "--second_phase_length", 40]
    ended = script("pretrain", *flags, *phases, "--validation_documents", 2, "--dry_run")
    assert ended.status == 0
    counts = r"6 steps; 8 held-out examples of 24 tokens, [5-8] held-out examples of 40 tokens"
    assert re.search(counts, ended.out)
    steps = r"s for a step of 192 tokens; then loss .* s for a step of 320 tokens; about"
    assert re.search(steps, ended.out)


def test_a_terminated_run_has_saved_and_says_so(script, process, flags, tmp_path):
    """With the status that a process manager expects after its SIGTERM."""
    run = [*flags, "--max_steps", 10**6, "--logging_steps", 1]
    stopped = process("pretrain", *run)
    while not (tmp_path / "out/log.jsonl").exists() and stopped.poll() is None:
        time.sleep(0.01)
    stopped.terminate()
    _, err = stopped.communicate(timeout=60)
    (last, path), *others = checkpoints(tmp_path / "out")
    assert (stopped.returncode, others) == (143, [])
    said = f"pretrain.py: interrupted and saved at step {last} of 1000000; go on with the same "
    assert err == f"{said}command and --resume_from_checkpoint {path}\n"


def test_a_killed_run_goes_on_to_the_same_bytes(script, process, flags, tmp_path):
    """kill -9 in the middle of an epoch: what is lost are the steps since the last checkpoint."""
    run = [*flags, "--max_steps", 40, "--save_steps", 2, "--eval_strategy", "no"]
    assert script("pretrain", *run).status == 0
    shutil.move(tmp_path / "out", tmp_path / "whole")
    killed = process("pretrain", *run)
    while not (found := checkpoints(tmp_path / "out")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    last = checkpoints(tmp_path / "out")[-1][0]
    assert found[0][0] <= last < 40
    resumed = script("pretrain", *run, "--resume_from_checkpoint", "last")
    assert resumed.status == 0
    assert f"step {last} of 40" in resumed.out
    for name in ("model.safetensors", "checkpoint-40/optimizer.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_bad_input_is_said_in_one_line(script, flags, tmp_path):
    corpus, other = tmp_path / "corpus", tmp_path / "other"

    def error(*more: object) -> str:
        ended = script("pretrain", *flags, *more)
        assert ended.status == 2
        assert ended.err.count("\n") == 1
        return ended.err

    assert "nowhere: there is no such file" in error("--corpus", tmp_path / "nowhere")
    one = corpus / "000.txt"
    single = ("--corpus", one, "--store", other, *flags[4:], "--validation_documents", 0)
    ended = script("pretrain", *single)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "needs two documents or more, got 1: add files" in ended.err
    assert "validation_documents: got 8, but the corpus has 8" in error("--validation_documents", 8)
    assert "one document is held out" in error("--validation_documents", 1)
    assert "are the last of --max_steps, which is 6" in error("--second_phase_steps", 6)
    assert "max_steps, which is -1" in error("--second_phase_steps", 6, "--max_steps", -1)
    assert "set --per_device_train_batch_size" in error("--max_tokens_per_batch", 512)
    assert "not both" in error("--validation_corpus", one, "--validation_documents", 1)
    assert "unknown name 'copus'" in error("--config", toy_json(tmp_path, {"copus": []}))
    one.write_bytes(one.read_bytes().swapcase())  # of the same size; touched alone, it is taken
    os.utime(one, (0, 0))
    assert "have changed since this vocabulary was learnt (" in error()
    shutil.rmtree(tmp_path / "store/tokenizer")  # as for one that was not learnt here
    assert "has changed since it was tokenised (" in error()
    assert script("pretrain", *flags, "--overwrite_store", "--dry_run").status == 0
    (corpus / "picture.txt").write_bytes(b"\x89PNG\0")
    assert "picture.txt: it holds a zero byte" in error("--overwrite_store")
    (corpus / "picture.txt").write_bytes(b"%PDF-1.7\n")
    assert "picture.txt: it is a PDF; unpack it, or" in error("--overwrite_store")
    (corpus / "picture.txt").write_bytes(b"")
    assert "picture.txt: the file is empty" in error(
        "--corpus", *corpus.iterdir(), "--overwrite_store"
    )


@pytest.mark.parametrize("change", ["text", "a file", "size", "case", "alphabet", "order"])
def test_a_vocabulary_of_another_corpus_or_settings_is_refused(script, flags, tmp_path, change):
    """Also where there is no store yet that would notice, as after a start that was broken off."""
    assert script("pretrain", *flags, "--dry_run").status == 0
    shutil.rmtree(tmp_path / "store/train")
    corpus, more, named = tmp_path / "corpus", list[Any](), "files"
    if change == "text":
        (corpus / "002.txt").write_text("something else")
        named = "002.txt"
    elif change == "a file":
        (corpus / "new.txt").write_text("more")
        named = "new.txt"
    elif change == "order":
        flags = ["--corpus", *sorted(corpus.iterdir())[::-1], *flags[2:]]
    else:
        more = {"size": ["--vocab_size", 300], "case": ["--cased"]}.get(
            change, ["--limit_alphabet", 50]
        )
        named = more[0].removeprefix("--")
    learnt = (tmp_path / "store/tokenizer/vocab.txt").stat().st_mtime_ns
    refused = script("pretrain", *flags, *more, "--dry_run")
    assert refused.status == 2
    assert refused.err.count("\n") == 1
    assert "have changed since this vocabulary was learnt (" in refused.err
    assert f"{named})" in refused.err
    assert "add --overwrite_store" in refused.err
    assert (tmp_path / "store/tokenizer/vocab.txt").stat().st_mtime_ns == learnt
    assert script("pretrain", *flags, *more, "--dry_run", "--overwrite_store").status == 0
    assert (tmp_path / "store/tokenizer/vocab.txt").stat().st_mtime_ns > learnt


def test_a_vocabulary_of_touched_files_or_from_before_the_record_is_taken(script, flags, tmp_path):
    assert script("pretrain", *flags, "--dry_run").status == 0
    vocabulary, record = (tmp_path / "store/tokenizer" / n for n in ("vocab.txt", "made_of.json"))
    learnt, before = vocabulary.stat().st_mtime_ns, record.read_bytes()
    os.utime(tmp_path / "corpus/001.txt", (0, 0))
    assert script("pretrain", *flags, "--dry_run").status == 0
    assert record.read_bytes() != before  # the new time is known from now on
    record.unlink()
    assert script("pretrain", *flags, "--dry_run").status == 0
    assert vocabulary.stat().st_mtime_ns == learnt


def test_a_corpus_of_few_documents_is_told_how_many_are_held_out(script, flags, tmp_path):
    """Without a flag that the user never gave; and the advice works."""
    texts = sorted((tmp_path / "corpus").iterdir())

    def start(documents: int, *more: object) -> Any:
        places = ("--corpus", *texts[:documents], "--store", tmp_path / f"store {documents}")
        return script("pretrain", *places, *flags[4:], "--dry_run", *more)

    for documents, said in ((1, "1 document, of"), (3, "3 documents, of")):
        ended = start(documents)
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert f"the corpus has {said} which 2 would be held out and 2 or more" in ended.err
        assert "--documents blank_lines" in ended.err
    assert "(--validation_documents 0)" in ended.err
    assert start(3, "--validation_documents", 0).status == 0
    assert "(--validation_documents 0 and --no_nsp)" in start(1).err
    assert start(1, "--validation_documents", 0, "--no_nsp").status == 0
    assert start(4).status == 0

    alone = start(1, "--no_nsp").err
    assert "the corpus has 1 document, of which 1 would be held out and 1 or more" in alone
    assert start(2, "--no_nsp").status == 0
    (tmp_path / "corpus/000.txt").write_text("Sun sun.\n" * 30 + "\nMoon moon.\n")
    lines = start(1, "--documents", "blank_lines", "--overwrite_store")
    assert "the corpus has 2 documents" in lines.err
    assert "blank_lines" not in lines.err


def test_no_text_counts_twice_or_on_both_sides(script, flags, tmp_path):
    """By whatever name it is given."""
    corpus, rest = tmp_path / "corpus", flags[2:]
    one = corpus / "001.txt"
    (tmp_path / "link.txt").symlink_to(one)
    ended = script("pretrain", "--corpus", corpus, tmp_path / "link.txt", *rest, "--dry_run")
    assert ended.status == 0
    assert f"--corpus names 1 file more than once (first: {one}); each is read once\n" in ended.out
    assert "sentences, 8 documents in" in ended.out

    for held_out in (one, tmp_path / "link.txt", corpus):
        ended = script("pretrain", *flags, "--validation_corpus", held_out)
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert "is in --corpus and in --validation_corpus: what is held out" in ended.err
    assert f"error: {corpus / '000.txt'} is" in ended.err


def test_a_vocabulary_of_another_model_is_refused(script, flags, tmp_path):
    base, other = tmp_path / "base", tmp_path / "tokenizer"
    toy.save_model(base)
    BertTokenizer.from_vocab([*toy_corpus.VOCABULARY, *map(str, range(99))]).save_pretrained(other)
    flags = [*going_on(flags), "--model_name_or_path", base]
    ended = script("pretrain", *flags, "--tokenizer_name", other)
    assert ended.status == 2
    assert "the vocabulary has 115 pieces, but the model's vocab_size is 20" in ended.err
    phases = [*flags, "--second_phase_steps", 2, "--second_phase_length", 20]
    for name, length in (("max_seq_length", 128), ("second_phase_length", 513)):
        ended = script("pretrain", *phases, f"--{name}", length)
        assert f"--{name} {length} is more than the model's position table holds" in ended.err


@pytest.mark.parametrize(
    ("own", "given", "said"),
    [
        (WORDS, ["moon", "sun", *WORDS[2:]], "'sun' is piece 7, and piece 6 in"),
        (WORDS, [*WORDS[:3], "root", *WORDS[4:]], "'tree' is absent, and piece 9 in"),
        ([*WORDS, "[unused0]"], [*WORDS, "root"], None),
        (WORDS[:-1], WORDS, None),  # in a row of the table that was free
    ],
)
def test_a_vocabulary_with_other_ids_is_refused(script, flags, tmp_path, own, given, said):
    """Of the same pieces too: the model would read and write other words, and nobody told."""
    base, other = tmp_path / "base", tmp_path / "tokenizer"
    first = toy_corpus.VOCABULARY[:6]
    model = toy_corpus.model(max_position_embeddings=24)
    model.save_pretrained(base, tokenizer=BertTokenizer.from_vocab([*first, *own]))
    BertTokenizer.from_vocab([*first, *given]).save_pretrained(other)
    goes_on_or_says(script, flags, base, other, said)


def goes_on_or_says(script, flags, base: Path, other: Path, said: str | None) -> None:
    """Going on from `base` with the vocabulary of `other` works, or ends with that in one line."""
    run = ["--model_name_or_path", base, "--tokenizer_name", other, "--dry_run"]
    ended = script("pretrain", *going_on(flags), *run)
    if said is None:
        assert (ended.status, ended.err) == (0, "")
    else:
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert said in ended.err
        assert "leave out --tokenizer_name" in ended.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"do_lower_case": False}, "do_lower_case is False, and True in"),
        ({"strip_accents": False}, "strip_accents is False, and True in"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars is False, and True in"),
        ({"strip_accents": True}, None),  # which is what do_lower_case does anyway
    ],
)
def test_a_vocabulary_that_reads_texts_in_another_way_is_refused(
    script, flags, tmp_path, changes, said
):
    """Of the model's own pieces: a capital letter would be [UNK], or an accent be lost."""
    base, other = tmp_path / "base", tmp_path / "tokenizer"
    toy_corpus.model().save_pretrained(base, tokenizer=toy_corpus.tokenizer())
    BertTokenizer.from_vocab(toy_corpus.VOCABULARY, **changes).save_pretrained(other)
    goes_on_or_says(script, flags, base, other, said)


@pytest.mark.parametrize(
    ("given", "kind", "leave"),
    [
        ("--model_size tiny", "model", "it out, or --model_name_or_path"),
        ("--initialization google --initializer_range 0.1", "model", "them out, or --model_name"),
        ("--vocab_size 9", "vocabulary", "it out, or --model_name_or_path"),
        ("--cased --limit_alphabet 9 --min_frequency 9", "vocabulary", "them out, or --model_name"),
        ("--model_size base --cased", "model or vocabulary", "them out, or --model_name_or_path"),
        ("--tokenizer_name base --vocab_size 9", "vocabulary", "it out, or --model_name_or_path "
         "and --tokenizer_name"),
    ],
)  # fmt: skip
def test_flags_of_a_new_model_are_refused_where_there_is_one(
    script, flags, tmp_path, given, kind, leave
):
    base = tmp_path / "base"
    toy_corpus.model().save_pretrained(base, tokenizer=toy_corpus.tokenizer())
    more = ["--model_name_or_path", base, *given.replace(" base --v", f" {base} --v").split()]
    ended = script("pretrain", *going_on(flags), *more)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    names = [name for name in given.split() if name.startswith("--") and name != "--tokenizer_name"]
    are = "are" if len(names) > 1 else "is"
    assert f"error: {', '.join(names)} {are} for a new {kind}: leave {leave}" in ended.err


def test_flags_of_a_new_vocabulary_are_refused_where_one_is_named(script, flags, tmp_path):
    """A new model of any size may have it."""
    toy_corpus.tokenizer().save_pretrained(tmp_path / "own")
    run = [*going_on(flags), "--model_size", "tiny", "--tokenizer_name", tmp_path / "own"]
    ended = script("pretrain", *run, "--vocab_size", 200)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    said = "--vocab_size is for a new vocabulary: leave it out, or --tokenizer_name\n"
    assert ended.err.endswith(said)
    assert script("pretrain", *run, "--dry_run").status == 0


def test_a_first_start_lists_and_reads_no_more_than_it_must(script, flags, tmp_path, monkeypatch):
    """Each folder is listed once, and each file hashed once, for vocabulary and store together."""
    listed, hashed = list[Path](), list[str]()
    files, digest = corpora._files, made_of.hashlib.file_digest
    monkeypatch.setattr(
        corpora, "_files", lambda path, seen: listed.append(path) or files(path, seen)
    )
    monkeypatch.setattr(
        made_of.hashlib, "file_digest", lambda f, kind: hashed.append(f.name) or digest(f, kind)
    )
    other = toy_corpus.write(tmp_path / "other", documents=2, seed=3)
    assert script("pretrain", *flags, "--validation_corpus", other, "--dry_run").status == 0
    assert listed == [tmp_path / "corpus", other]
    texts = [*(tmp_path / "corpus").iterdir(), *other.iterdir()]
    assert sorted(hashed) == sorted(map(str, texts))
    hashed.clear()
    assert script("pretrain", *flags, "--validation_corpus", other, "--dry_run").status == 0
    assert not hashed


def test_the_tokenizer_of_a_model_is_loaded_once(script, flags, tmp_path, monkeypatch):
    base, loaded = tmp_path / "base", list[Any]()
    toy_corpus.model().save_pretrained(base, tokenizer=toy_corpus.tokenizer())
    plain = BertTokenizer.from_pretrained
    monkeypatch.setattr(
        BertTokenizer, "from_pretrained", lambda name: loaded.append(name) or plain(name)
    )
    run = [*going_on(flags), "--model_name_or_path", base, "--dry_run"]
    assert script("pretrain", *run).status == 0
    assert loaded == [str(base)]


@pytest.mark.parametrize(
    "content",
    ['{"made_of": {"fi', "", "[1]", "{}", '{"made_of": 3}', '{"made_of": {"files": [1]}}',
     '{"made_of": {"files": [["a", 1]]}}', '{"made_of": {"files": []}, "corpus_sha256": []}'],
)  # fmt: skip
def test_a_damaged_record_of_a_vocabulary_is_said_in_one_line(script, flags, tmp_path, content):
    assert script("pretrain", *flags, "--dry_run").status == 0
    record = tmp_path / "store/tokenizer/made_of.json"
    record.write_text(content)
    ended = script("pretrain", *flags, "--dry_run")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert f"{record}: it is damaged" in ended.err
    assert "add --overwrite_store" in ended.err
    assert script("pretrain", *flags, "--dry_run", "--overwrite_store").status == 0
    assert json.loads(record.read_text())["corpus_sha256"]


def test_held_out_documents_that_leave_one_are_counted(script, flags, tmp_path):
    texts = sorted((tmp_path / "corpus").iterdir())

    def start(documents: int, held_out: int, *more: object) -> Any:
        places = ("--corpus", *texts[:documents], "--store", tmp_path / f"store {documents}")
        held = ("--validation_documents", held_out, "--dry_run")
        return script("pretrain", *places, *flags[4:], *held, *more)

    none = "none (--validation_documents 0)"
    for documents, held_out, fewer in ((3, 2, none), (3, 1, none), (5, 4, "at most 3")):
        ended = start(documents, held_out)
        assert (ended.status, ended.err.count("\n")) == (2, 1)
        assert f"held out: {held_out} of the corpus' {documents} documents" in ended.err
        assert f"which leaves {documents - held_out} to train on, and next-sentence" in ended.err
        assert f"two or more of either: hold out {fewer}; --documents blank_lines" in ended.err
    assert start(3, 0).status == start(3, 2, "--no_nsp").status == start(5, 3).status == 0


def test_invalid_bytes_and_long_sentences_are_counted(script, flags, tmp_path):
    (tmp_path / "corpus/000.txt").write_bytes(b"sun \xff " * 40 + b"\nmoon.\n")
    ended = script("pretrain", *flags, "--validation_documents", 0, "--dry_run")
    assert ended.status == 0
    assert "000.txt: 40 bytes not UTF-8, replaced by U+FFFD\n" in ended.out
    assert "1 sentence longer than an example of 24 tokens, cut to fit: " in ended.out
    share = re.search(r"fit: (\S+)% of all tokens, at least, are left out", ended.out)
    assert share is not None
    store = tmp_path / "store/train"
    tokens = json.loads((store / "store.json").read_text())["tokens"]
    assert float(share[1]) == pytest.approx(100 * (40 - 21) / tokens, abs=0.005)


def test_text_without_full_stops_is_broken_and_used(script, flags, tmp_path):
    """Nothing of it is cut off; a file without text is left out."""
    (tmp_path / "corpus/000.txt").write_text("sun moon star " * 500)
    (tmp_path / "corpus/001.txt").write_text("")
    ended = script("pretrain", *flags, "--max_seq_length", 128, "--dry_run")
    assert (ended.status, ended.err) == (0, "")
    line = "train: 1 sentence of more than 120 tokens, broken into parts of at most 60"
    assert line in ended.out
    without = "warning: files, members of archives or JSON lines without text, left out: 1 (first: "
    assert f"{without}{tmp_path / 'corpus/001.txt'})\n" in ended.out
    assert "longer than an example" not in ended.out


def test_the_share_of_unknown_tokens_is_said(script, flags, tmp_path):
    """With a warning above one in a hundred, which an alphabet that is too small brings about."""
    ended = script("pretrain", *flags, "--dry_run")
    assert "train: 0.000% of the tokens are [UNK]" in ended.out
    assert "warning" not in ended.out
    few = script("pretrain", *flags, "--overwrite_store", "--limit_alphabet", 9, "--dry_run")
    assert few.status == 0
    warning = next(line for line in few.out.splitlines() if "warning" in line)
    assert "% of the tokens are [UNK]" in warning
    assert "raise --limit_alphabet and --vocab_size" in warning
    for name in ("limit_alphabet", "vocab_size", "min_frequency"):
        refused = script("pretrain", *flags, f"--{name}", -1)
        assert refused.status == 2
        assert refused.err.endswith(f"--{name} must be at least 1, got -1\n")


def test_the_help_gives_the_defaults_of_pretraining(script):
    """Not those of fine-tuning, whose flags most of them are."""
    text = " ".join(script("pretrain", "--help").out.split())
    for without_meaning in ("--group_by_length", "--max_tokens_per_batch", "--length_window"):
        assert without_meaning not in text
    assert "so many times the steps of the first (default 40.0)" in text
    assert "vocabulary and store are made and kept, nothing else is written" in text


def test_flags_from_a_file(script, flags, tmp_path):
    """A list of paths too."""
    settings = toy_json(tmp_path, {"corpus": [str(tmp_path / "corpus")], "max_steps": 2})
    rest = [flag for flag in flags[2:] if flag not in ("--max_steps", 6)]
    assert script("pretrain", "--config", settings, *rest, "--dry_run").status == 0


def toy_json(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "flags.json"
    path.write_text(json.dumps(values))
    return path
