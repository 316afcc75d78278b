"""scripts/crosscheck.py: its commands, their exit status, their errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from traces import NANO

from minibert.verify import layer_cases, model_cases
from minibert.verify.hypotheses import HYPOTHESES
from minibert.verify.trace.catalogue import HEADS
from minibert.verify.trace.format import Trace

Script = Callable[..., Any]


@pytest.fixture
def logits(tmp_path: Path) -> Callable[..., Path]:
    """A file with the nano trace's logits, and what is added to them."""

    def write(plus: float) -> Path:
        array = Trace.open(NANO).read("activation/logits") + plus
        np.savez(tmp_path / "mine.npz", logits=array)
        return tmp_path / "mine.npz"

    return write


def test_compare(script: Script, logits: Any) -> None:
    ended = script("crosscheck", "compare", logits(0.0), NANO)
    assert (ended.status, ended.err) == (0, "")
    assert "1 tensor compared, 0 out of the float64 budget" in ended.out
    ended = script("crosscheck", "compare", logits(1.0), NANO, "--no-diagnosis")
    assert ended.status == 1
    assert "first out: activation/logits" in ended.out
    ended = script("crosscheck", "compare", logits(1.0), NANO, "--json", "--no-diagnosis")
    said = json.loads(ended.out)
    assert (said["passed"], said["first_out"]) == (False, "activation/logits")
    assert said["cause"] is None
    ended = script("crosscheck", "compare", logits(math.nan), NANO, "--json")
    said = json.loads(ended.out)
    assert (ended.status, said["cause"]) == (1, None)  # no mistake is looked for
    assert said["tensors"][0]["note"] == "holds nan at [0, 0]"


def test_a_mapping_of_what_is_not_there(script: Script, logits: Any, tmp_path: Path) -> None:
    mapping = tmp_path / "map.json"
    mapping.write_text('{"logits": "activation/logits", "elsewhere": "loss", "junk": null}')
    ended = script("crosscheck", "compare", logits(0.0), NANO, "--map", mapping)
    assert ended.status == 0
    (line,) = ended.err.splitlines()
    assert line == f"the mapping file names 'elsewhere', which {tmp_path / 'mine.npz'} lacks"


def test_a_guess_that_crashes(script: Script, logits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison stands, other causes are looked for, and the error is told."""

    def broken(*_: Any) -> Any:
        raise TypeError("7 arguments")

    hypotheses = {"activation": (broken, *HYPOTHESES["activation"][:1])}
    monkeypatch.setattr("minibert.verify.diagnosis.HYPOTHESES", hypotheses)
    ended = script("crosscheck", "compare", logits(1.0), NANO)
    assert (ended.status, ended.err) == (1, "")
    *table, last = ended.out.splitlines()
    assert "1 tensor compared, 1 out of the float64 budget" in table
    assert last.startswith("likely cause: unknown: none of 5 known mistakes gives these tensors (1")
    assert last.endswith("please report it: broken: TypeError: 7 arguments)")


def test_nano_is_at_hand_in_any_folder(
    script: Script, logits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minibert.verify.budget_table.PACKAGES", ("no_such_package",))
    ended = script("crosscheck", "budget", "--json")
    assert (ended.status, ended.err) == (0, "")
    rows = {row["name"]: row for row in json.loads(ended.out)["tensors"]}
    want = Trace.open(NANO).entries["activation/logits"]
    assert rows["activation/logits"]["budget"] == want.budget_float32
    assert script("crosscheck", "compare", logits(0.0), "nano").status == 0
    assert [file.name for file in tmp_path.iterdir()] == ["mine.npz"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return toy.save_model(tmp_path / "model")


def test_trace_of_a_checkpoint(script: Script, checkpoint: Path, tmp_path: Path) -> None:
    """By its text; the weights stay in their file, whose sha256 must be right."""
    path = tmp_path / "made"
    ended = script(
        "crosscheck", "trace", "--model", checkpoint, "--text", "a good film", "--text", "bad",
        "--output", path,
    )  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    trace = Trace.open(path)
    assert ended.out == (
        f"wrote {path}.safetensors and {path}.json: {len(trace.entries)} tensors\n"
    )
    assert trace.about["weights"]["file"] == "model.safetensors"
    np.savez(tmp_path / "mine.npz", logits=trace.read("activation/logits") + 1)
    mine = tmp_path / "mine.npz"
    ended = script("crosscheck", "compare", mine, path)
    assert (ended.status, ended.err) == (1, "")
    unlooked = "likely cause: not looked for; name model.safetensors with --weights\n"
    formula = "its formula: bert.pooler·weightᵀ + bias\n"
    assert ended.out.endswith(f"first out: activation/logits\n{formula}{unlooked}")
    ended = script("crosscheck", "compare", mine, path, "--json")
    assert (ended.status, ended.err) == (1, unlooked)
    assert json.loads(ended.out)["first_out"] == "activation/logits"
    assert script("crosscheck", "compare", mine, path, "--no-diagnosis").status == 1
    right = tmp_path / "right.npz"
    np.savez(right, logits=trace.read("activation/logits"))
    ended = script("crosscheck", "compare", right, path)
    assert (ended.status, "likely cause" in ended.out) == (0, False)
    weights = checkpoint / "model.safetensors"
    few = ["--weights", weights, "--no-diagnosis"]
    ended = script("crosscheck", "compare", mine, path, *few)
    assert (ended.status, ended.err) == (1, "")
    for absent in (tmp_path / "absent.safetensors", tmp_path):
        for command in (["compare", mine, path], ["budget", path]):
            ended = script("crosscheck", *command, "--weights", absent)
            assert ended.status == 2
            assert ended.err == (
                f"crosscheck.py: error: --weights {absent}: there is no such file, want the "
                "model.safetensors that made.json was made with\n"
            )
    toy.save_model(tmp_path / "other", seed=5)
    other = tmp_path / "other" / "model.safetensors"
    ended = script("crosscheck", "compare", mine, path, "--weights", other)
    assert ended.status == 2
    assert "its sha256 is" in ended.err
    assert "but made.json was made with" in ended.err


def test_trace_of_another_head_and_inputs(script: Script, checkpoint: Path, tmp_path: Path) -> None:
    ids = np.array([[2, 6, 12, 3], [2, 9, 3, 0]])
    np.savez(tmp_path / "in.npz", input_ids=ids, attention_mask=ids > 0, labels=ids % 2)
    path = tmp_path / "made"
    ended = script(
        "crosscheck", "trace", "--model", checkpoint, "--head", "BertForTokenClassification",
        "--inputs", tmp_path / "in.npz", "--dtype", "float32", "--store_weights",
        "--no_dropout", "--no_training", "--output", path,
    )  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    trace = Trace.open(path)
    assert trace.about["model"] == "BertForTokenClassification"
    assert trace.read("weight/classifier.weight").dtype == np.float32
    assert not any(name.startswith(("dropout", "training")) for name in trace.names())


@pytest.mark.parametrize("head", HEADS)
def test_text_for_every_head(head: str, script: Script, tmp_path: Path) -> None:
    """With labels of the head's own kind, and a loss that has gradients."""
    path = tmp_path / "made"
    outputs = 1 if head == "BertForMultipleChoice" else 2
    checkpoint = toy.save_model(tmp_path / "model", num_labels=outputs)
    texts = ["a good film", "bad", "the plot was dull", "very fine"]
    ended = script(
        "crosscheck", "trace", "--model", checkpoint, "--head", head,
        *(word for text in texts for word in ("--text", text)), "--no_training", "--output", path,
    )  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    trace = Trace.open(path)
    bare = head == "BertModel"
    assert ("no labels: no loss, no gradients\n" in ended.out) == bare
    if not bare:
        assert trace.read("activation/loss") > 0
        assert np.any(trace.read("gradient/bert.embeddings.word_embeddings.weight"))


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"num_labels": 1}, [[0.0], [1.0]]),
        ({"num_labels": 3, "problem_type": "multi_label_classification"},
         [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]),
        ({"num_labels": 3}, [0, -100]),
    ],
)  # fmt: skip
def test_text_for_numbers_and_classes(
    changes: dict[str, Any], labels: list[Any], script: Script, tmp_path: Path
) -> None:
    checkpoint, path = toy.save_model(tmp_path / "model", **changes), tmp_path / "made"
    ended = script("crosscheck", "trace", "--model", checkpoint, "--text", "a", "--text", "bad",
                   "--no_training", "--output", path)  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    assert Trace.open(path).read("input/labels").tolist() == labels


@pytest.mark.parametrize(
    ("head", "texts", "message"),
    [
        ("BertForMultipleChoice", 1, "got 1 text, want the choices of a question: 2 or more"),
        ("BertForSentenceEmbedding", 3, "want pairs of texts, got 3: an odd number"),
    ],
)
def test_too_few_texts(
    head: str, texts: int, message: str, script: Script, checkpoint: Path
) -> None:
    ended = script("crosscheck", "trace", "--model", checkpoint, "--head", head,
                   *["--text", "bad"] * texts)  # fmt: skip
    assert (ended.status, ended.err) == (2, f"crosscheck.py: error: {head}: {message}\n")


def test_a_misspelt_input(script: Script, checkpoint: Path, tmp_path: Path) -> None:
    ids = np.array([[2, 6, 3]])
    np.savez(tmp_path / "in.npz", input_ids=ids, attention_msk=ids)
    ended = script("crosscheck", "trace", "--model", checkpoint, "--inputs", tmp_path / "in.npz")
    assert ended.status == 2
    assert "takes no 'attention_msk': the nearest name is 'attention_mask'\n" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_sentences_with_labels_come_in_pairs(
    script: Script, checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "in.npz"
    np.savez(file, input_ids=np.array([[2, 6, 3], [2, 7, 3]]), labels=np.array([0.5, 1.0]))
    ended = script("crosscheck", "trace", "--model", checkpoint, "--head",
                   "BertForSentenceEmbedding", "--inputs", file)  # fmt: skip
    assert ended.status == 2
    assert f"{file}: input_ids have shape (2, 3), want (B, 2, S): " in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_labels", "3"], "has shape (2, 12), want (3, 12): the file's head is one of "
                                "--num_labels 2"),
        (["--num_labels", "0"], "num_labels: got 0, wanted a whole number of at least 1"),
        (["--head", "BertForMultipleChoice"], "that is no head of a BertForMultipleChoice: "
                                              "choose another --head"),
    ],
)  # fmt: skip
def test_a_head_of_another_shape(
    flags: list[str], message: str, script: Script, checkpoint: Path
) -> None:
    """The hint is a flag of this script."""
    ended = script("crosscheck", "trace", "--model", checkpoint, "--text", "a", "--text", "b",
                   *flags)  # fmt: skip
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert message in line
    assert "finetune" not in line


def test_float32_in_float64(script: Script, tmp_path: Path) -> None:
    """The table has the budgets that were applied."""
    trace, name = Trace.open(NANO), "bert.pooler"
    golden = trace.read(f"activation/{name}")
    budget = trace.entries[f"activation/{name}"].budget_float32
    np.savez(tmp_path / "mine.npz", **{name: (golden + 0.1).astype(np.float32).astype(float)})
    ended = script("crosscheck", "compare", tmp_path / "mine.npz", NANO, "--no-diagnosis")
    assert f"of {budget:.1e}  OUT" in ended.out
    assert "1 out of the float32 budget (float64 that holds float32's numbers alone)" in ended.out
    ended = script("crosscheck", "compare", tmp_path / "mine.npz", NANO, "--no-diagnosis",
                   "--dtype", "float64")  # fmt: skip
    assert "1 out of the float64 budget\n" in ended.out


def test_inputs_with_nothing_to_learn(script: Script, checkpoint: Path, tmp_path: Path) -> None:
    """In-batch contrast of a single pair."""
    np.savez(tmp_path / "in.npz", input_ids=np.array([[[2, 6, 7, 3], [2, 9, 8, 3]]]))
    ended = script("crosscheck", "trace", "--model", checkpoint, "--head",
                   "BertForSentenceEmbedding", "--inputs", tmp_path / "in.npz")  # fmt: skip
    assert ended.status == 2
    assert "is 0 but for rounding: the batch has nothing to learn from" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_inputs_without_labels(script: Script, checkpoint: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", input_ids=np.array([[2, 6, 3]]))
    ended = script("crosscheck", "trace", "--model", checkpoint, "--inputs", tmp_path / "in.npz",
                   "--output", tmp_path / "made")  # fmt: skip
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith("\nno labels: no loss, no gradients\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace"], "say what to trace: nano, minilm, base, or --model DIRECTORY"),
        (["trace", "--model", "x"], "give the batch as --text (once a row), or as --inputs FILE"),
        (["trace", "huge"], "invalid choice: 'huge'"),
        (["compare", "absent.npz", str(NANO)], "absent.npz: there is no such file"),
        (["compare", f"{NANO}.safetensors", "absent"], "cannot read absent.json"),
        (["against", "keras", str(NANO)], "invalid choice: 'keras'"),
        (["trace", "nano", "--model", "x"], "--model beside nano, which is a trace of its own"),
        (["trace", "nano", "--limit", "5"], "--limit beside nano"),
        (["trace", "--limit", "0"], "--limit: got 0, wanted a whole number of at least 1"),
        (["trace", "--limit", "-3"], "--limit: got -3, wanted a whole number of at least 1"),
        (["trace", "base", "--no_dropout"], "--no_dropout beside base"),
        (
            ["budget", str(NANO), "--weights", "x"],
            "nano.json needs no weight file: leave --weights",
        ),
        (["compare", f"{NANO}.safetensors", str(NANO), "--weights", "x"], "needs no weight file"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, script: Script) -> None:
    ended = script("crosscheck", *arguments)
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("crosscheck.py: error: ")
    assert message in line


def test_certify(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case for case in layer_cases.layer_cases() if case.layer == "softmax"]
    monkeypatch.setattr(layer_cases, "layer_cases", lambda: cases)
    monkeypatch.setattr(model_cases, "KINDS", {})
    ended = script("crosscheck", "certify")
    assert ended.status == 0
    assert ended.out.startswith("| what | computed by | against |")
    said = json.loads(script("crosscheck", "certify", "--json").out)
    assert {row["what"] for row in said["rows"]} == {"softmax"}
