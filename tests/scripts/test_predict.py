"""scripts/predict.py: texts from everywhere, answers in every form, errors in one line."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from minibert import BertForNextSentencePrediction, BertForPreTraining, BertModel
from minibert.models import BertForSentenceEmbedding, BertPreTrainedModel
from minibert.pipelines import SentenceSimilarityPipeline, TextClassificationPipeline

TEXTS = ["a good film", "the plot was dull"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toy.save_model(tmp_path / "model", label2id={"neg": 0, "meh": 1, "pos": 2})


def on(model: Path) -> list[Any]:
    return ["predict", "--model", model, "--backend=numpy", "--threads=1"]


def answers(model: Path, *texts: Any, **options: Any) -> list[Any]:
    classify = TextClassificationPipeline.from_pretrained(model, backend="numpy", threads=1)
    return classify(*texts, **options)


def test_texts_as_arguments_from_a_file_and_from_standard_input(script, model, tmp_path):
    want = "".join(
        f"{answer['label']} {answer['score']:.4f}\t{text}\n"
        for text, answer in zip(TEXTS, answers(model, TEXTS), strict=True)
    )
    file = tmp_path / "texts.txt"
    file.write_text("\ufeff" + "\r\n".join(TEXTS), encoding="utf-8")
    for ended in (
        script(*on(model), *TEXTS),
        script(*on(model), "--file", file),
        script(*on(model), stdin="\n".join(TEXTS).encode()),
    ):
        assert ended == (0, want, "")


def test_a_tab_separates_the_texts_of_a_pair(script, model):
    ended = script(*on(model), "--jsonl", stdin=b"a good film\tdull\nplot\tstory\n")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["input"] for row in rows] == ["a good film\tdull", "plot\tstory"]
    want = answers(
        model,
        [
            {"text": "a good film", "text_pair": "dull"},
            {"text": "plot", "text_pair": "story"},
        ],
    )
    for row, answer in zip(rows, want, strict=True):
        assert row["output"] == pytest.approx(answer)
    for texts, said in (
        (["a\tb", "c"], "text 2 has no second text after a tab, but text 1 has a second text"),
        (["a", "b\tc"], "text 2 has a second text, but text 1 has no second text after a tab"),
    ):
        before = script(*on(model), texts[0]).out
        assert script(*on(model), *texts) == (2, before, f"predict.py: error: {said}\n")


def test_what_training_reads_is_answered_without_its_labels(script, model, tmp_path):
    """Columns, objects and compressed files; names that are of no use are left alone."""

    def ask(name: str, content: str, *more: Any) -> list[Any]:
        file = tmp_path / name
        data = content.encode()
        file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
        ended = script(*on(model), "--jsonl", "--file", file, *more)
        assert (ended.status, ended.err) == (0, "")
        return [json.loads(line) for line in ended.out.splitlines()]

    rows = ask("a.tsv", "label\tsentence\npos\ta good film\nneg\tthe plot was dull\n")
    assert [row["input"] for row in rows] == TEXTS
    want = [pytest.approx(answer) for answer in answers(model, TEXTS)]
    assert [row["output"] for row in rows] == want
    assert ask("a.csv.gz", "".join(f'"{text}",pos\n' for text in TEXTS)) == rows
    assert ask("a.txt.gz", "\n".join(TEXTS)) == rows
    given = [{"text": TEXTS[0], "label": None, "id": 7}, TEXTS[1]]
    mixed = ask("a.jsonl", "".join(json.dumps(value) + "\n\n" for value in given))
    assert [row["input"] for row in mixed] == given
    assert [row["output"] for row in mixed] == want
    given = {"review": TEXTS[0], "stars": 5}
    (own,) = ask("b.jsonl", json.dumps(given) + "\n")
    assert (own["input"], own["output"]) == (given, want[0])
    other = "".join(f"5,{text},x\n" for text in ("review", *TEXTS))
    assert ask("c.csv", other, "--text_column", "review") == rows
    assert ask("c.data", other, "--text_column", "review", "--format=csv") == rows
    pair = {"text": "good", "text_pair": "dull"}
    (row,) = ask("p.csv", "premise,hypothesis,label\ngood,dull,x\n")
    assert row["input"] == pair
    (same,) = ask("p.jsonl", json.dumps({"sentence1": "good", "sentence2": "dull", "idx": 0}))
    assert same["output"] == row["output"] == pytest.approx(answers(model, [pair])[0])
    plain = script(*on(model), "--file", tmp_path / "p.csv").out
    assert plain.endswith('\t{"text": "good", "text_pair": "dull"}\n')


def test_all_labels_best_first(script, model):
    ended = script(*on(model), "--all", "--jsonl", "grün, naïve 电影")
    (row,) = [json.loads(line) for line in ended.out.splitlines()]
    assert "电影" in ended.out  # not as escapes
    assert {answer["label"] for answer in row["output"]} == {"neg", "meh", "pos"}
    scores = [answer["score"] for answer in row["output"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    (line,) = script(*on(model), "--all", "good").out.splitlines()
    assert line.endswith("\tgood")
    assert len(line.split("\t")[0].split("  ")) == 3


def test_a_number_and_several_labels(script, tmp_path):
    number = toy.save_model(tmp_path / "number", num_labels=1, problem_type="regression")
    (line,) = script(*on(number), "good").out.splitlines()
    score = answers(number, ["good"])[0]["score"]
    assert line == f"{score:.4f}\tgood"
    several = toy.save_model(
        tmp_path / "several",
        label2id={"a": 0, "b": 1},
        problem_type="multi_label_classification",
    )
    (row,) = script(*on(several), "--jsonl", "good").out.splitlines()
    assert {answer["label"] for answer in json.loads(row)["output"]} == {"a", "b"}
    (row,) = script(*on(several), "--jsonl", "--top_k=1", "good").out.splitlines()
    assert len(json.loads(row)["output"]) == 1


def test_empty_and_long_texts_get_an_answer_and_a_warning(script, model):
    """So that lines of input and output stay side by side."""
    ended = script(*on(model), stdin=b"good\n\n" + b"film " * 40 + b"\n  \n")
    assert ended.status == 0
    assert len(ended.out.splitlines()) == 4
    assert ended.err.splitlines() == [
        "warning: 2 of 4 texts are empty",
        "warning: 1 of 4 texts were cut to 24 tokens; the rest of them is not read: shorten or "
        "split them",
    ]
    assert script(*on(model), "").out.endswith("\t\n")


def test_unusual_line_separators_are_no_lines(script, model):
    assert len(script(*on(model), stdin="a\u2028b\x0cc\nd".encode()).out.split("\n")) == 3


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([], b"", "standard input is empty"),
        ([], b"b\xe4d\ngood\n", "standard input, line 1: not UTF-8"),
        (["--file", "none.txt"], b"", "none.txt: there is no such file"),
        (["--file", "none.txt", "good"], b"", "texts were given as arguments and by --file"),
        (["--threads", "0", "good"], b"", "error: --threads must be at least 1, got 0"),
        (["--top", "good"], b"", "unrecognized arguments: --top; --help lists the flags"),
        (["a\udce4b"], b"", "text 1: got half of a surrogate pair at character 1"),
        (["--top_k=1", "--all", "good"], b"", "--all and --top_k were given: choose one"),
        (
            ["--context", "c", "good"],
            b"",
            "--context is for question-answering; the task is text-classification",
        ),
        (["--top_k=0", "good"], b"", "error: --top_k must be at least 1, got 0"),
        (["--format=csv", "good"], b"", "--format csv is for a --file or standard input"),
        (["--stride=0", "good"], b"", "--stride is for token-classification; the task is"),
    ],
)
def test_bad_input_is_one_line(arguments, stdin, message, script, model):
    ended = script(*on(model), *arguments, stdin=stdin)
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("predict.py: error: ")
    assert message in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('"a"\n{"text": 1}\n', "line 2: text-classification: 'text' must be a text, got 1"),
        ('"a"\n\n[1]\n', "line 3: text-classification: a text or an object {...} is wanted, got"),
        ('"a"\n{"te', "line 2: not JSON on one line"),
        ('"\\ud800"\n"a"\n', "line 1: got half of a surrogate pair at character 0"),
        ('"a"\n{"text": "b", "text_pair": "c"}\n', "line 2 has a second text, but"),
    ],
)
def test_bad_files_are_named_with_the_line(content, message, script, model, tmp_path):
    file = tmp_path / "asked.jsonl"
    file.write_text(content)
    ended = script(*on(model), "--file", file)
    assert ended.status == 2
    assert [line.split("\t")[1] for line in ended.out.splitlines()] in (["a"], [])
    (line,) = ended.err.splitlines()
    assert line.startswith(f"predict.py: error: {file}, {message}")


def test_what_stands_before_a_bad_line_is_answered(script, model, tmp_path):
    file = tmp_path / "asked.jsonl"
    file.write_text('"good"\n"\\ud800"\n"good"\n')
    cut = b'{"text": "good"}\n{"text": "a go'
    for ended in (
        script(*on(model), stdin=b"good\nb\xe4d\ngood\n"),
        script(*on(model), "--file", file),
        script(*on(model), stdin=cut),
        script(*on(model), *cut.decode().split("\n")),
    ):
        assert ended.status == 2
        answer, _ = script(*on(model), "good").out.split("\t")
        assert ended.out.startswith(f"{answer}\t")
        assert ended.out.count("\n") == 1
        assert ended.err.count("\n") == 1
        assert "line 2: " in ended.err or "text 2: " in ended.err


def test_objects_are_understood_the_same_everywhere(script, model, tmp_path):
    lines = [json.dumps({"text": text}) for text in TEXTS]
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(lines))
    want = script(*on(model), "--jsonl", "--file", file)
    assert want.status == 0
    assert script(*on(model), "--jsonl", *lines) == want
    assert (
        script(*on(model), "--jsonl", stdin="".join(f"{line}\n" for line in lines).encode()) == want
    )
    as_text = script(*on(model), "--jsonl", "--format=text", *lines).out.splitlines()
    assert [json.loads(line)["input"] for line in as_text] == lines


def test_whether_a_sentence_follows(script, tmp_path):
    """By the head of next sentences, alone or beside that of masked words."""
    tokenizer = toy.tokenizer()
    both = BertForPreTraining(toy.config(initializer_range=0.5), backend="numpy")
    both.save_pretrained(tmp_path / "both", tokenizer=tokenizer)
    alone = BertForNextSentencePrediction.from_pretrained(tmp_path / "both", backend="numpy")
    alone.save_pretrained(tmp_path / "alone", tokenizer=tokenizer)
    batch = tokenizer(["a good film"], ["the plot"], padding=True, return_tensors="np")
    logits = alone(**batch).logits[0].astype("f8")
    wanted = {"IsNext": 1 / (1 + np.exp(logits[1] - logits[0]))}
    wanted["NotNext"] = 1 - wanted["IsNext"]
    pair = "a good film\tthe plot"
    for ended in (
        script(*on(tmp_path / "alone"), "--jsonl", "--all", pair),
        script(*on(tmp_path / "both"), "--jsonl", "--all", "--task=next-sentence-prediction", pair),
    ):
        assert (ended.status, ended.err) == (0, "")
        output = json.loads(ended.out)["output"]
        found = {row["label"]: row["score"] for row in output}
        assert found == pytest.approx(wanted, abs=1e-6)
        assert output[0]["score"] > output[1]["score"]
    assert script(*on(tmp_path / "both"), "a [MASK]").out.count("\t") == 1  # fills masks
    ended = script(*on(tmp_path / "alone"), "a good film")
    assert "text 1: next-sentence-prediction: two texts are wanted" in ended.err
    classifier = toy.save_model(tmp_path / "classifier")
    ended = script(*on(classifier), "--task=next-sentence-prediction", pair)
    assert (
        "has no trained cls.seq_relationship: pretrain it first, python scripts/pretrain"
        in ended.err
    )


def test_a_slow_producer_is_answered_line_by_line(model):
    root = Path(__file__).resolve().parents[2]
    _, *arguments = map(str, on(model))
    pipe = subprocess.PIPE
    running = subprocess.Popen(
        [sys.executable, str(root / "scripts" / "predict.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdin=pipe, stdout=pipe, stderr=pipe, text=True,
    )  # fmt: skip
    assert running.stdin
    assert running.stdout
    assert running.stderr
    for text in TEXTS:  # the second is written after the first answer
        running.stdin.write(f"{text}\n")
        running.stdin.flush()
        assert running.stdout.readline().endswith(f"\t{text}\n")
    running.stdin.close()
    assert running.wait(timeout=60) == 0
    assert running.stderr.read() == ""
    running.stdout.close()
    running.stderr.close()


def test_features_of_an_encoder_by_the_chosen_backend(script, tmp_path, monkeypatch):
    """The model is loaded once, with the options that were given."""
    encoder = tmp_path / "encoder"
    model = BertForSentenceEmbedding(toy.config(), backend="numpy")
    model.save_pretrained(encoder, tokenizer=toy.tokenizer())
    loaded: list[Any] = []
    load = BertPreTrainedModel.from_pretrained.__func__

    def counting(kind: Any, *arguments: Any, **options: Any) -> Any:
        loaded.append((kind.__name__, options))
        return load(kind, *arguments, **options)

    monkeypatch.setattr(BertPreTrainedModel, "from_pretrained", classmethod(counting))
    ended = script(*on(encoder), "--jsonl", "good", "dull")
    ((kind, options),) = loaded
    assert kind == "BertForSentenceEmbedding"
    assert options.items() >= {"backend": "numpy", "threads": 1}.items()
    alike = SentenceSimilarityPipeline.from_pretrained(encoder, backend="numpy")
    for line, text in zip(ended.out.splitlines(), ("good", "dull"), strict=True):
        row = json.loads(line)
        assert row["input"] == text
        assert row["output"] == pytest.approx(alike.embed([text])[0].tolist(), abs=1e-6)


def test_models_that_cannot_be_used_are_named(script, model, tmp_path):
    encoder = tmp_path / "encoder"
    BertModel(toy.config(), backend="numpy").save_pretrained(encoder, tokenizer=toy.tokenizer())
    toy.tokenizer(["surplus"]).save_pretrained(model)
    torn = toy.save_model(tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    for directory, message in (
        (tmp_path / "none", "is neither an existing directory nor a hub id"),
        (tmp_path, "is no model directory: it has no config.json"),
        (encoder, "has no trained classifier: fine-tune it first, python scripts/finetune.py"),
        (model, "input_ids holds 20, but vocab_size = 20 allows 0 … 19"),
        (torn, "it is truncated: fetch it again"),
    ):
        ended = script(*on(directory), "--task=sentiment-analysis", "surplus")
        assert (ended.status, ended.out) == (2, "")
        (line,) = ended.err.splitlines()
        assert line.startswith("predict.py: error: ")
        assert message in line


def test_a_reader_that_has_seen_enough_is_no_error(process, model, tmp_path):
    """As in `predict.py … | head -1`."""
    file = tmp_path / "many.txt"
    file.write_text("a good film\n" * 5_000)
    running = process(*on(model), "--file", file)
    assert running.stdout.readline().endswith("\ta good film\n")
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(timeout=60) == 0
    running.stderr.close()
