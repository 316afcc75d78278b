"""scripts/finetune.py: the whole job, its resume, and one clear line for each bad input."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from safetensors.numpy import load_file

from minibert import BertConfig, BertForSequenceClassification, BertModel
from minibert.backend import cupy_backend
from minibert.pipelines import TextClassificationPipeline

Files = dict[str, Path]
FAST = [f"--{name}={value}" for name, value in toy.SETTINGS.items()]
SHORT = [*FAST, "--num_train_epochs=1"]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A model, three data files, and where the output will go."""
    return {
        "model": toy.save_model(tmp_path / "model"),
        "train": toy.write_tsv(tmp_path / "train.tsv", toy.reviews(96), "sentence1 label"),
        "dev": toy.write_tsv(tmp_path / "dev.tsv", toy.reviews(24, 1), "sentence1 label"),
        "test": toy.write_tsv(tmp_path / "test.tsv", toy.reviews(30, 2), "sentence1 label"),
        "out": tmp_path / "out",
    }


def flags(files: Files, *more: object, test: bool = False) -> list[object]:
    data = ["--train_file", files["train"], "--validation_file", files["dev"]]
    data += ["--test_file", files["test"]] if test else []
    return ["--model_name_or_path", files["model"], *data, "--output_dir", files["out"], *more]


def weights(directory: Path) -> tuple[bytes, bytes]:
    names = ("model.safetensors", "optimizer.safetensors")
    return tuple((directory / name).read_bytes() for name in names)  # type: ignore[return-value]


def metrics(line: str) -> dict[str, float]:
    """What a report line says: `… (24 held-out examples)  loss 0.1  accuracy 1.0 …`."""
    shown = re.findall(r"(\w+) ([-.\d]+)", line.split(")", 1)[1])
    return {name: float(value) for name, value in shown}


# ---- The whole job ----


def test_the_main_job(script, files, tmp_path):
    """A model that predict.py and transformers' format understand, which learned the task."""
    toy.save_model(files["model"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    toy.write_tsv(files["train"], toy.reviews(192), "sentence1 label")
    learn = [*FAST, "--num_train_epochs=12", "--learning_rate=0.005", "--warmup_ratio=0.3"]
    learn += ["--metric_for_best_model=loss"]
    ended = script("finetune", *flags(files, *learn, test=True))
    assert (ended.status, ended.err) == (0, "")
    shown = {
        line.split(" (")[0]: metrics(line) for line in ended.out.splitlines() if "held-" in line
    }
    assert shown["test"]["accuracy"] == shown["test"]["f1"] == 1.0
    assert shown["test"]["loss"] < 0.05
    assert "f1 1.0000 (of pos)  " in ended.out
    results = json.loads((files["out"] / "all_results.json").read_text())
    assert results["test_accuracy"] == 1.0
    assert results["eval_loss"] == pytest.approx(shown["validation"]["loss"], abs=1e-4)
    config = BertConfig.from_pretrained(files["out"])
    assert config.problem_type == "single_label_classification"
    assert config.label2id == {"neg": 0, "pos": 1}
    assert config.architectures == ("BertForSequenceClassification",)
    assert load_file(files["out"] / "model.safetensors")["classifier.weight"].shape == (2, 12)
    card = (files["out"] / "README.md").read_text()
    assert "# out" in card
    assert "| test_accuracy | 1.0000 |" in card
    classify = TextClassificationPipeline.from_pretrained(files["out"], backend="numpy")
    answers = classify(["the film was great", "a dull plot"])
    assert [answer["label"] for answer in answers] == ["pos", "neg"]
    assert f'predict.py --model {files["out"]} "your text"' in ended.out


def test_a_part_is_held_out_where_there_is_no_validation_file(script, files):
    arguments = ["--model_name_or_path", files["model"], "--train_file", files["train"]]
    ended = script("finetune", *arguments, "--output_dir", files["out"], *SHORT)
    assert ended.status == 0
    assert f"validation: 10 examples held out of {files['train']}" in ended.out
    assert "data: 86 train, 10 validation examples" in ended.out


def test_labels_are_those_of_the_whole_file(script, files):
    """Whatever is held out or cut off, as in run_glue.py."""
    rows = [*toy.reviews(30), ("the film", "rare")]
    toy.write_tsv(files["train"], rows, "sentence1 label")
    arguments = ["--model_name_or_path", files["model"], "--train_file", files["train"]]
    for seed in range(4):
        more = [f"--seed={seed}", "--validation_split_percentage=50", "--max_train_samples=5"]
        more += ["--ignore_mismatched_sizes"]
        out = files["out"].with_name(f"out{seed}")
        assert script("finetune", *arguments, "--output_dir", out, *SHORT, *more).status == 0
        assert list(BertConfig.from_pretrained(out).label2id) == ["neg", "pos", "rare"]


def test_the_first_examples_of_each_file(script, files):
    some = ["--max_train_samples=20", "--max_eval_samples=7", "--max_predict_samples=5"]
    ended = script("finetune", *flags(files, *SHORT, *some, test=True))
    assert "data: 20 train, 7 validation, 5 test examples" in ended.out
    assert "test (5 held-out examples)" in ended.out


def test_a_test_file_without_labels_is_predicted(script, files):
    toy.write_tsv(files["test"], [(text,) for text, _ in toy.reviews(5, 3)], "sentence1")
    ended = script("finetune", *flags(files, *SHORT, test=True))
    assert ended.status == 0
    assert f"5 predictions for {files['test']}" in ended.out
    lines = (files["out"] / "predictions.jsonl").read_text().splitlines()
    classify = TextClassificationPipeline.from_pretrained(files["out"], backend="numpy")
    want = classify([text for text, _ in toy.reviews(5, 3)])
    for line, answer in zip(lines, want, strict=True):
        assert json.loads(line)["label"] == answer["label"]
        assert json.loads(line)["score"] == pytest.approx(answer["score"], rel=1e-5)


def test_only_what_is_asked_for_is_done(script, files):
    only = script("finetune", *flags(files, *SHORT, "--do_train", test=True))
    assert "held-out examples)" not in only.out
    assert "evaluation" not in only.out
    trained = files | {"model": files["out"], "out": files["out"].with_name("none")}
    ended = script("finetune", *flags(trained, *SHORT, "--do_eval", test=True))
    assert ended.status == 0
    assert "validation (24 held-out examples)" in ended.out
    assert "test (30" not in ended.out
    assert not trained["out"].exists()


@pytest.mark.parametrize(
    ("label2id", "accuracy"), [({"pos": 0, "neg": 1}, 1.0), ({"neg": 0, "pos": 1}, 0.0)]
)
def test_a_trained_model_keeps_the_order_of_its_labels(label2id, accuracy, script, files):
    """transformers may have numbered them otherwise; evaluation must not turn them round."""
    model = toy.model(label2id=label2id)
    _ = model.parameters.flat  # writable
    model.parameters["classifier.bias"][0] = 50.0  # its answer is always label 0
    model.save_pretrained(files["model"], tokenizer=toy.tokenizer())
    toy.write_tsv(files["dev"], [("good", "pos"), ("the film", "pos")], "sentence1 label")
    ended = script("finetune", *flags(files, *SHORT, "--do_eval"))
    (line,) = [line for line in ended.out.splitlines() if "held-out" in line]
    assert metrics(line)["accuracy"] == accuracy


def head(directory: Path) -> Any:
    return load_file(directory / "model.safetensors")["classifier.weight"]


def test_a_head_of_other_labels_is_refused_or_begun_anew(script, files):
    """Also one of the same size, whose weights would silently mean something else."""
    toy.save_model(files["model"], label2id={"good": 0, "bad": 1})
    still = [*SHORT, "--learning_rate=1e-12", "--weight_decay=0"]
    ended = script("finetune", *flags(files, *still))
    assert ended.status == 2
    assert "the model has the labels good, bad; the file has neg, pos; --ignore_mi" in ended.err
    ended = script("finetune", *flags(files, *still, "--ignore_mismatched_sizes"))
    assert ended.status == 0
    assert "new and untrained, the file's has other labels: classifier.weight" in ended.out
    assert abs(head(files["out"]) - head(files["model"])).max() > 0.01
    assert list(BertConfig.from_pretrained(files["out"]).label2id) == ["neg", "pos"]


def test_a_head_without_names_gets_those_of_the_file(script, files):
    still = [*SHORT, "--learning_rate=1e-12", "--weight_decay=0"]
    ended = script("finetune", *flags(files, *still))
    assert "labels: the model's LABEL_0, LABEL_1 are taken for neg, pos\n" in ended.out
    np.testing.assert_allclose(head(files["out"]), head(files["model"]), atol=1e-6)


def test_a_finished_model_is_measured_without_training_data(script, files):
    toy.save_model(files["model"], label2id={"pos": 0, "neg": 1})
    model = ["--model_name_or_path", files["model"], "--output_dir", files["out"], *SHORT]
    ended = script("finetune", *model, "--do_eval", "--validation_file", files["dev"])
    assert (ended.status, ended.err) == (0, "")
    assert "f1 " in ended.out
    assert "(of neg)" in ended.out
    assert not files["out"].exists()
    toy.write_tsv(files["test"], [("good",), ("bad",)], "sentence1")
    ended = script("finetune", *model, "--do_predict", "--test_file", files["test"])
    assert f"2 predictions for {files['test']}" in ended.out
    assert [path.name for path in files["out"].iterdir()] == ["predictions.jsonl"]


def test_a_finished_head_without_names_is_measured_under_those_of_the_file(script, files):
    """As transformers saves it; and a file of other labels is refused."""
    model = ["--model_name_or_path", files["model"], "--output_dir", files["out"], *SHORT]
    ended = script("finetune", *model, "--do_eval", "--validation_file", files["dev"])
    assert ended.status == 0
    assert "labels: the model's LABEL_0, LABEL_1 are taken for neg, pos\n" in ended.out
    toy.write_tsv(files["dev"], [("a", "x"), ("a", "y"), ("a", "z")], "sentence1 label")
    ended = script("finetune", *model, "--do_eval", "--validation_file", files["dev"])
    assert "the label 'x' was not seen in training, whose labels are 'LABEL_0', " in ended.err


def test_a_regression_is_no_head_for_labels(script, files):
    toy.save_model(files["model"], num_labels=1)
    ended = script("finetune", *flags(files, *SHORT))
    assert "the model has the labels LABEL_0; the file has neg, pos; --ignore_mism" in ended.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--do_eval", "--test_file=x.tsv"], "--do_eval wants a --validation_file"),
        (["--do_predict", "--validation_file=x.tsv"], "--do_predict wants a --test_file"),
        (["--do_eval", "--dry_run"], "--dry_run does a training step: it wants --do_train"),
    ],
)
def test_what_measuring_wants_is_said(more, message, script, files):
    ended = script("finetune", "--model_name_or_path", files["model"], *more)
    assert ended.status == 2
    assert message in ended.err


def test_a_model_without_a_head_is_not_measured(script, files):
    BertModel(toy.config(), backend="numpy").save_pretrained(
        files["model"], tokenizer=toy.tokenizer()
    )
    ended = script("finetune", *flags(files, *SHORT, "--do_eval"))
    assert ended.status == 2
    assert "has no trained classifier: fine-tune it first, python scripts/finetune.py" in ended.err


def test_a_head_of_another_task_is_not_measured(script, files, tmp_path):
    file = tmp_path / "dev.conll"
    file.write_text("film\tLABEL_0\ngood\tLABEL_1\n")
    directory = toy.save_model(tmp_path / "model")
    ended = script(
        "finetune", "--do_eval", "--task=token-classification", "--validation_file", file,
        "--model_name_or_path", directory, "--backend=numpy",
    )  # fmt: skip
    assert ended.status == 2
    assert "was trained for text-classification (config.json: " in ended.err


def test_labels_are_checked_before_the_model_is_loaded(script, files):
    (files["model"] / "model.safetensors").unlink()
    toy.write_tsv(files["test"], [("good", "meh")], "sentence1 label")
    ended = script("finetune", *flags(files, *SHORT, test=True))
    assert "test.tsv, line 2: the label 'meh' was not seen in training" in ended.err


def test_columns_are_shown_and_chosen(script, files):
    rows = [(i, label, text) for i, (text, label) in enumerate(toy.reviews(40))]
    for name in ("train", "dev"):
        toy.write_tsv(files[name], rows, "number mood review")
    ended = script("finetune", *flags(files, *SHORT))
    assert "3 columns" not in ended.err
    names = ["--text_column=review", "--label_column=mood"]
    ended = script("finetune", *flags(files, *SHORT, *names, "--overwrite_output_dir"))
    assert (ended.status, ended.err) == (0, "")
    shown = "columns text 'review', label 'mood', as the first row names them"
    assert f"{files['train']}: {shown}\n{files['dev']}: {shown}\n" in ended.out


def test_flags_come_from_a_file_too(script, files, tmp_path):
    config = tmp_path / "flags.json"
    config.write_text(
        json.dumps(toy.SETTINGS | {"max_steps": 3, "train_file": str(files["train"])})
    )
    model = ["--model_name_or_path", files["model"], "--output_dir", files["out"]]
    ended = script("finetune", "--config", config, *model, "--max_steps", 2)
    assert ended.status == 0
    assert "\n2 steps\n" in ended.out


PAIRS = [(a, b, y) for (a, _), (b, y) in zip(toy.reviews(40, 5), toy.reviews(40, 6), strict=True)]
SEVERAL = [
    {"text": text, "labels": ["film"] * ("film" in text) + [name]} for text, name in toy.reviews(40)
]


@pytest.mark.parametrize(
    ("name", "content", "task", "score"),
    [
        (
            "pairs.csv",
            "sentence1,sentence2,label\n" + "".join(f'"{a}",{b},{y}\n' for a, b, y in PAIRS),
            "single_label_classification, 2 labels",
            "accuracy",
        ),
        (
            "headless.tsv",
            "".join(f"{text}\t{len(text) % 3}\n" for text, _ in toy.reviews(40)),
            "single_label_classification, 3 labels",
            "matthews_correlation",
        ),
        (
            "grades.tsv",
            "sentence\tlabel\n" + "".join(f"{t}\t{len(t) / 4}\n" for t, _ in toy.reviews(40)),
            "regression\n",
            "spearman",
        ),
        (
            "several.jsonl.gz",
            "".join(json.dumps(row) + "\n" for row in SEVERAL),
            "multi_label_classification, 3 labels",
            "f1_macro",
        ),
    ],
)
def test_every_kind_of_file_and_task(name, content, task, score, script, tmp_path, files):
    path = tmp_path / name
    data = content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    # A head of another size is begun anew, when told so.
    more = ["--ignore_mismatched_sizes", "--validation_file", path, "--test_file", path]
    model = ["--model_name_or_path", files["model"], "--output_dir", files["out"]]
    ended = script("finetune", *model, "--train_file", path, *more, *SHORT)
    assert (ended.status, ended.err) == (0, "")
    assert f"task: {task}" in ended.out
    assert f" {score} " in next(line for line in ended.out.splitlines() if line.startswith("test"))
    classify = TextClassificationPipeline.from_pretrained(files["out"], backend="numpy")
    pair = {"text": "a film", "text_pair": "the plot"}
    (answer,) = classify([pair if name == "pairs.csv" else "a film"])
    assert (answer["label"] == "LABEL_0") == (score == "spearman")


def test_long_texts_are_cut_and_counted(script, files):
    toy.write_tsv(files["dev"], [("film " * 40 + "good", "pos"), ("bad", "neg")], "sentence1 label")
    ended = script("finetune", *flags(files, *SHORT))
    assert "warning: 1 of 2 validation texts were cut to 24 tokens" in ended.out  # the table's end
    short = [*SHORT, "--max_seq_length", 4, "--overwrite_output_dir"]
    ended = script("finetune", *flags(files, *short))
    assert "train texts were cut to 4 tokens" in ended.out


def test_a_dry_run_writes_nothing(script, files, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    ended = script("finetune", *flags(files, *SHORT, "--dry_run"))
    assert (ended.status, ended.err) == (0, "")
    assert "dry run: loss " in ended.out
    assert "Nothing was written." in ended.out
    assert sorted(tmp_path.rglob("*")) == before


# ---- Stopped, and resumed ----

RUN = [*FAST, "--max_steps=9", "--save_strategy=steps", "--save_steps=2"]


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupted_run_is_resumed_to_the_same_bytes(number, status, script, process, files):
    """A signal to a process: 128 and its number, and the line says how to go on."""
    whole = files | {"out": files["out"].with_name("whole")}
    assert script("finetune", *flags(whole, *RUN)).status == 0
    code = (
        "import os, signal, minibert.training.trainer as t\n"
        "plain = t.Trainer.step\n"
        "def step(self, batch):\n"
        f"    if self.state.step == 4: os.kill(os.getpid(), signal.{number})\n"
        "    return plain(self, batch)\n"
        "t.Trainer.step = step"
    )
    stopped = process("finetune", *flags(files, *RUN), code=code)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == status
    (line,) = err.splitlines()
    assert line.startswith("finetune.py: interrupted and saved at step 5 of 9; go on with the same")
    assert line.endswith(f"--resume_from_checkpoint {files['out'] / 'checkpoint-5'}")
    resumed = script("finetune", *flags(files, *RUN, "--resume_from_checkpoint=last"))
    assert resumed.status == 0
    assert "step 5 of 9" in resumed.out
    for name in ("checkpoint-9", "."):
        ends = [(run["out"] / name / "model.safetensors").read_bytes() for run in (whole, files)]
        assert ends[0] == ends[1]
    assert weights(whole["out"] / "checkpoint-9") == weights(files["out"] / "checkpoint-9")


def test_a_kill_while_saving_leaves_the_checkpoint_before(script, process, files):
    whole = files | {"out": files["out"].with_name("whole")}
    assert script("finetune", *flags(whole, *RUN)).status == 0
    code = (
        "import os, signal, minibert.training.state as t\n"
        "plain, calls = t.write_safetensors, []\n"
        "def write(path, tensors):\n"
        "    plain(path, tensors)\n"
        "    calls.append(path)\n"
        "    if len(calls) == 2:\n"
        "        os.truncate(path, 100)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.write_safetensors = write"
    )
    killed = process("finetune", *flags(files, *RUN, "--eval_strategy=no"), code=code)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    visible = {path.name for path in files["out"].iterdir() if not path.name.startswith(".")}
    assert visible == {"checkpoint-2"}
    assert script("finetune", *flags(files, *RUN, "--resume_from_checkpoint=last")).status == 0
    assert weights(whole["out"] / "checkpoint-9") == weights(files["out"] / "checkpoint-9")


@pytest.mark.parametrize(("limit", "left"), [(20, "optimizer"), (10, "model")])
def test_a_full_disk_is_one_line(limit, left, process, files):
    """The kernel refuses the rest of a file of the second checkpoint."""
    code = (
        "import resource, minibert.training.trainer as t\n"
        "plain = t.Trainer._save_checkpoint\n"
        "def save(self):\n"
        "    if self.state.step > 2:\n"
        f"        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit} * 1024,) * 2)\n"
        "    return plain(self)\n"
        "t.Trainer._save_checkpoint = save"
    )
    full = process("finetune", *flags(files, *RUN, "--eval_strategy=no"), code=code)
    _, err = full.communicate(timeout=60)
    assert full.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith(f"finetune.py: error: {files['out']}/checkpoint-4 could not be saved: ")
    assert f"/{left}.safetensors" in line
    assert "What was saved before is whole: make room, then go on" in line
    assert [path.name for path in files["out"].iterdir()] == ["checkpoint-2"]
    saved = BertForSequenceClassification.from_pretrained(files["out"] / "checkpoint-2")
    assert np.isfinite(saved.parameters.flat).all()


def test_divergence_is_one_line_too(process, files):
    absurd = process("finetune", *flags(files, *FAST, "--learning_rate=1e30", "--threads=2"))
    _, err = absurd.communicate(timeout=60)
    assert absurd.returncode == 1
    (line,) = err.splitlines()  # and no warnings from NumPy before it
    assert line.startswith("finetune.py: error: step 2: the loss or its gradient is not finite; ")
    assert list(files["out"].iterdir()) == []


# ---- Bad input: one line, status 2, and nothing is touched ----


def write(name: str, content: str | bytes) -> Callable[[Files], Any]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda files: files[name].write_bytes(data)


def edit_config(**changes: Any) -> Callable[[Files], Any]:
    def edit(files: Files) -> None:
        path = files["model"] / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def cut_weights(files: Files) -> None:
    path = files["model"] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def corrupt_weights(files: Files) -> None:
    path = files["model"] / "model.safetensors"
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def no_encoder(files: Files) -> None:
    edit_config(num_hidden_layers=3)(files)


def larger_tokenizer(files: Files) -> None:
    toy.tokenizer(["surplus"]).save_pretrained(files["model"])
    write("dev", "sentence1\tlabel\ngood\tpos\nthe surplus\tneg\n")(files)


def earlier_model(files: Files) -> None:
    shutil.copytree(files["model"], files["out"])


def nothing(files: Files) -> None:
    pass


HEADER = "sentence1\tlabel\n"
BAD: dict[str, tuple[Callable[[Files], Any], list[str], str]] = {
    "missing file": (lambda f: f["train"].unlink(), [], "train.tsv: there is no such file"),
    "empty file": (write("train", ""), [], "train.tsv: the file is empty"),
    "header only": (write("dev", HEADER), [], "dev.tsv, line 1: there is a header and no example"),
    "missing column": (
        write("dev", "sentence2\tlabel\na\tpos\n"), [], "dev.tsv, line 1: there is no column 'sent"
    ),
    "no labels": (write("dev", "sentence1\ngood\n"), [], "the validation data has no labels"),
    "no labels in train": (write("train", "sentence1\ngood\n"), [], "no label column"),
    "another separator": (
        write("train", "sentence1;label\ngood;pos\nbad;neg\n"), [],
        "every line holds ';': columns are separated by tabs in .tsv",
    ),
    "label column that is not there": (
        write("train", "sentence1\tmark\ngood\tpos\nbad\tneg\n"), ["--label_column=marks"],
        "there is no label column; the columns are ['sentence1', 'mark'], and one",
    ),
    "empty labels": (
        write("train", f"{HEADER}good\t\nbad\t\n"), [], "the label column 'label' is empty; the"
    ),
    "a text that is its label": (
        nothing, ["--text_column=label"], "train.tsv: there is no label column; the columns are"
    ),
    "one column named twice": (
        nothing, ["--text_column=label", "--label_column=label"],
        "the column 'label' is named as a text and as the label: choose one",
    ),
    "unseen label": (
        write("dev", f"{HEADER}good\tpos\nbad\tmeh\n"), [],
        "dev.tsv, line 3: the label 'meh' was not seen in training, whose labels are 'neg', 'pos'; "
        "correct it, leave the example out, or train with it",
    ),
    "NaN label": (
        write("train", f"{HEADER}good\t1.5\nbad\tnan\n"), [], "train.tsv, line 3: a label is wanted"
    ),
    "one class": (write("train", f"{HEADER}a\tpos\nb\tpos\n"), [], "2 different labels at least"),
    "text for a number": (
        nothing, ["--problem_type=regression", "--ignore_mismatched_sizes"],
        "train.tsv, line 2: regression wants a number as label, got 'pos'",
    ),
    "invalid UTF-8": (
        write("train", HEADER.encode() + b"good\tpos\nb\xe4d\tneg\n"), [],
        "train.tsv, line 3: byte 2 of the line (0xe4) is not UTF-8",
    ),
    "ragged row": (
        write("train", f"{HEADER}good\tpos\nbad\tneg\tmore\n"), [],
        "train.tsv, line 3: 3 fields, wanted 2: ['sentence1', 'label']",
    ),
    "empty text": (
        write("train", f"{HEADER}good\tpos\n\tneg\n"), [], "line 3: the text in 'sentence1' is"
    ),
    "pairs and singles": (
        write("dev", "sentence1\tsentence2\tlabel\na\tb\tpos\n"), [],
        "dev.tsv has pairs of texts, but ",
    ),
    "no split possible": (
        write("train", f"{HEADER}good\tpos\nbad\tneg\n"), ["--validation_file="],
        "2 examples: too few to hold out 10%; give a --validation_file",
    ),
    "a model is there": (earlier_model, [], "out is not empty: add --overwrite_output_dir"),
    "output is a file": (lambda f: f["out"].write_text("x"), [], "is a file; choose another"),
    "no such model": (
        lambda f: shutil.rmtree(f["model"]), [], "is neither an existing directory nor a hub id"
    ),
    "truncated weights": (cut_weights, [], "model.safetensors: "),
    "corrupted weights": (corrupt_weights, [], "model.safetensors: header: got "),
    "missing weights": (lambda f: (f["model"] / "model.safetensors").unlink(), [], "holds neither"),
    "missing layer": (no_encoder, [], "the weights lack bert.encoder.layer.2."),
    "wrong shape": (edit_config(intermediate_size=24), [], "got shape (20, 12) in the file"),
    "another head": (
        lambda f: toy.save_model(f["model"], num_labels=3), [],
        "the model has the labels LABEL_0, LABEL_1, LABEL_2; the file has neg, pos; "
        "--ignore_mismatched_sizes gives a new head",
    ),
    "broken config": (lambda f: (f["model"] / "config.json").write_text("{"), [], "not JSON"),
    "unknown activation": (edit_config(hidden_act="swish"), [], "hidden_act: got 'swish', wanted"),
    "relative positions": (
        edit_config(position_embedding_type="relative_key"), [],
        "position_embedding_type: got 'relative_key', wanted 'absolute'",
    ),
    "heads and H": (edit_config(num_attention_heads=5), [], "hidden_size: got 12, wanted a "),
    "no tokenizer": (
        lambda f: [(f["model"] / n).unlink() for n in ("tokenizer.json", "vocab.txt")], [],
        "wanted tokenizer.json or vocab.txt, it holds neither",
    ),
    "larger tokenizer": (
        larger_tokenizer, [], "dev.tsv: the tokenizer gives id 20, but the model's "
    ),
    "unknown flag": (nothing, ["--lr=1"], "unrecognized arguments: --lr=1; --help lists the flags"),
    "bad number": (nothing, ["--seed=x"], "argument --seed: invalid int value: 'x'"),
    "bad rate": (nothing, ["--learning_rate=0"], "learning_rate must be positive, got 0.0"),
    "bad decay": (nothing, ["--weight_decay=-1"], "weight_decay must be a finite number ≥ 0"),
    "short texts": (nothing, ["--max_seq_length=2"], "max_seq_length must be at least 3, got 2"),
    "small budget": (
        nothing, ["--max_tokens_per_batch=5"], "a batch of 5 tokens cannot hold the longest example"
    ),
    "no examples": (nothing, ["--max_train_samples=0"], "wanted the first 0 examples"),
    "whole split": (nothing, ["--validation_split_percentage=100"], "must be between 1 and 99"),
    "no config file": (nothing, ["--config=none.json"], "cannot read none.json: No such file"),
    "unknown metric": (nothing, ["--metric_for_best_model=bleu"], "'bleu' is unknown: choose one"),
    "nothing to resume": (
        nothing, ["--resume_from_checkpoint=last"], "holds no checkpoint-… to resume from"
    ),
    "no checkpoint": (
        nothing, ["--resume_from_checkpoint=model"], "model is no training checkpoint"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, script, files):
    spoil, more, message = BAD[name]
    spoil(files)
    ended = script("finetune", *flags(files, *SHORT, *more))
    assert ended.status == 2
    (line,) = ended.err.splitlines()
    assert line.startswith("finetune.py: error: ")
    assert message in line
    assert "Traceback" not in ended.out
    if name not in ("a model is there", "output is a file"):
        assert not files["out"].exists()


def test_a_gpu_that_is_not_there_is_said(script, files, monkeypatch):
    monkeypatch.setattr(cupy_backend, "why_unavailable", lambda: "CuPy is not installed")
    ended = script("finetune", *flags(files, *SHORT, "--backend=cupy"))
    assert (ended.status, ended.out.count("step")) == (2, 0)
    assert ended.err == (
        "finetune.py: error: backend 'cupy' cannot be used: CuPy is not installed\n"
    )


def test_validation_data_without_training_data_is_refused(script, files):
    ended = script("finetune", "--validation_file", files["dev"], "--output_dir", files["out"])
    assert ended.status == 2
    assert "was given without --train_file; to measure a finished model, add --do_eval" in ended.err


def test_an_output_that_is_full_is_not_overwritten_unless_asked(script, files):
    assert script("finetune", *flags(files, *SHORT)).status == 0
    before = (files["out"] / "model.safetensors").read_bytes()
    refused = script("finetune", *flags(files, *SHORT, "--seed=1"))
    assert refused.status == 2
    assert (files["out"] / "model.safetensors").read_bytes() == before
    again = script("finetune", *flags(files, *SHORT, "--seed=1", "--overwrite_output_dir"))
    assert again.status == 0
    assert (files["out"] / "model.safetensors").read_bytes() != before


def test_a_run_of_other_flags_is_not_resumed(script, files):
    assert script("finetune", *flags(files, *RUN)).status == 0
    other = ["--resume_from_checkpoint=last", "--learning_rate=0.02"]
    ended = script("finetune", *flags(files, *RUN, *other))
    assert ended.status == 2
    assert "a different run (learning_rate: then 0.01, now 0.02)" in ended.err
    assert "longer" not in ended.err
    longer = ["--resume_from_checkpoint=last", "--max_steps=12"]
    ended = script("finetune", *flags(files, *RUN, *longer))
    assert f"is begun from the model: --model_name_or_path {files['out']}\n" in ended.err


def test_an_encoder_alone_gets_a_new_head(script, files):
    BertModel(toy.config(), backend="numpy").save_pretrained(
        files["model"], tokenizer=toy.tokenizer()
    )
    ended = script("finetune", *flags(files, *SHORT))
    assert ended.status == 0
    assert "the head is new and untrained, the file has none: classifier.weight, " in ended.out
