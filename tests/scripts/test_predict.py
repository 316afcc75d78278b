"""scripts/predict.py: texts from everywhere, answers in every form, errors in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy

from minibert import BertModel
from minibert.pipelines import TextClassificationPipeline

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
    assert [row["text"] for row in rows] == ["a good film\tdull", "plot\tstory"]
    want = answers(
        model,
        [
            {"text": "a good film", "text_pair": "dull"},
            {"text": "plot", "text_pair": "story"},
        ],
    )
    for row, answer in zip(rows, want, strict=True):
        (got,) = row["answers"]
        assert got == pytest.approx(answer)
    ended = script(*on(model), "a\tb", "c")
    assert (ended.status, ended.out) == (2, "")
    assert (
        ended.err == "predict.py: error: text 2 has no second text after a tab, but others have\n"
    )


def test_all_labels_best_first(script, model):
    ended = script(*on(model), "--all", "--jsonl", "grün, naïve 电影")
    (row,) = [json.loads(line) for line in ended.out.splitlines()]
    assert "电影" in ended.out  # not as escapes
    assert {answer["label"] for answer in row["answers"]} == {"neg", "meh", "pos"}
    scores = [answer["score"] for answer in row["answers"]]
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
    assert {answer["label"] for answer in json.loads(row)["answers"]} == {"a", "b"}


def test_empty_and_long_texts_get_an_answer_and_a_warning(script, model):
    """So that lines of input and output stay side by side."""
    ended = script(*on(model), stdin=b"good\n\n" + b"film " * 40 + b"\n  \n")
    assert ended.status == 0
    assert len(ended.out.splitlines()) == 4
    assert ended.err.splitlines() == [
        "warning: 2 of 4 texts are empty",
        "warning: 1 of 4 texts were cut to 24 tokens",
    ]
    assert script(*on(model), "").out.endswith("\t\n")


def test_unusual_line_separators_are_no_lines(script, model):
    assert len(script(*on(model), stdin="a\u2028b\x0cc\nd".encode()).out.split("\n")) == 3


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([], b"", "standard input is empty"),
        ([], b"good\nb\xe4d", "standard input, line 2: not UTF-8"),
        (["--file", "none.txt"], b"", "cannot read none.txt: No such file or directory"),
        (["--file", "none.txt", "good"], b"", "texts were given as arguments and by --file"),
        (["--threads", "0", "good"], b"", "threads must be at least 1, got 0"),
        (["--top", "good"], b"", "unrecognized arguments: --top; --help lists the flags"),
        (["a\udce4b"], b"", "text 0: got half of a surrogate pair at character 1"),
    ],
)
def test_bad_input_is_one_line(arguments, stdin, message, script, model):
    ended = script(*on(model), *arguments, stdin=stdin)
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("predict.py: error: ")
    assert message in line


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
