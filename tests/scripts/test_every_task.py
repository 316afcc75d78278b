"""From a file to an answer, for every task: scripts/finetune.py, then scripts/predict.py."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import toy

from minibert import BertForMaskedLM, BertModel
from minibert.training.finetuning_arguments import DataArguments

GOOD, BAD = toy.GOOD, toy.BAD
FAST = ["--num_train_epochs=12", "--learning_rate=0.01", "--per_device_train_batch_size=16"]
FAST += ["--warmup_ratio=0", "--backend=numpy", "--threads=1", "--eval_strategy=no"]
FAST += ["--save_strategy=no", "--max_seq_length=20"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny encoder with the toy's words."""
    encoder = BertModel(toy.config(), backend="numpy", seed=1)
    encoder.save_pretrained(tmp_path / "model", tokenizer=toy.tokenizer())
    return tmp_path / "model"


def tagged(count: int, seed: int) -> str:
    """The one word that says something is an entity."""
    sentences = []
    for text, label in toy.reviews(count, seed):
        kinds = dict.fromkeys((*GOOD, *BAD), f"B-{label}")
        sentences.append("".join(f"{word}\t{kinds.get(word, 'O')}\n" for word in text.split()))
    return "\n".join(sentences)


def questions(count: int, seed: int) -> str:
    rows = []
    for i, (text, _) in enumerate(toy.reviews(count, seed)):
        word = next(w for w in text.split() if w in GOOD + BAD)
        answers = {"text": [word], "answer_start": [text.index(word)]}
        row = {"id": str(i), "question": "was the film", "context": text, "answers": answers}
        rows.append(json.dumps(row) + "\n")
    return "".join(rows)


def choices(count: int, seed: int) -> str:
    rows = []
    for i, (text, label) in enumerate(toy.reviews(count, seed)):
        words = [GOOD[i % 4], BAD[i % 4]]
        row = {"context": text, "choices": words, "label": int(label == "neg")}
        rows.append(json.dumps(row) + "\n")
    return "".join(rows)


def pairs(count: int, seed: int) -> str:
    """Texts of one label are alike."""
    rows = toy.reviews(count, seed)
    lines = ["sentence1\tsentence2\tscore"]
    for (a, label), (b, other) in zip(rows, rows[1:] + rows[:1], strict=True):
        lines.append(f"{a}\t{b}\t{5.0 if label == other else 0.0}")
    for (a, label), (b, other) in zip(rows, rows[2:] + rows[:2], strict=True):
        lines.append(f"{a}\t{b}\t{5.0 if label == other else 0.0}")
    return "\n".join(lines) + "\n"


TASKS: dict[str, tuple[str, Any, str, float]] = {  # file, maker, metric, what it must reach
    "token-classification": ("words.conll", tagged, "f1", 0.9),
    "question-answering": ("questions.jsonl", questions, "exact_match", 90),
    "multiple-choice": ("choices.jsonl", choices, "accuracy", 0.9),
    "sentence-embedding": ("pairs.tsv", pairs, "spearman", 0.7),
}


def train(task: str, script: Any, model: Path, folder: Path, *more: Any) -> tuple[Any, Path]:
    name, make, *_ = TASKS[task]
    files = [folder / f"{part}.{name}" for part in ("train", "test")]
    for file, count, seed in zip(files, (96, 24), (0, 9), strict=True):
        file.write_text(make(count, seed), encoding="utf-8")
    out = folder / "out"
    flags = ["--task", task, "--model_name_or_path", model, "--train_file", files[0]]
    flags += ["--validation_file", files[1], "--test_file", files[1], "--output_dir", out]
    return script("finetune", *flags, *FAST, *more), out


def ask(script: Any, out: Path, *given: Any, **more: Any) -> list[dict[str, Any]]:
    ended = script("predict", "--model", out, "--backend=numpy", "--jsonl", *given, **more)
    assert (ended.status, ended.err) == (0, "")
    return [json.loads(line)["output"] for line in ended.out.splitlines()]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_learnt_from_a_file(task: str, script: Any, model: Path, tmp_path: Path) -> None:
    ended, out = train(task, script, model, tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert f"task: {task}" in ended.out
    results = json.loads((out / "all_results.json").read_text())
    _, _, metric, bound = TASKS[task]
    assert results[f"test_{metric}"] >= bound
    assert (out / "README.md").is_file()
    assert f"predict.py --model {out}" in ended.out


def test_words_are_named(script: Any, model: Path, tmp_path: Path) -> None:
    _, out = train("token-classification", script, model, tmp_path)
    (row,) = ask(script, out, "the plot was awful")
    assert ask(script, out, "--file", tmp_path / "test.words.conll")[0]
    words = tmp_path / "words.jsonl"
    words.write_text(json.dumps({"tokens": ["the", "plot", "was", "awful"], "ner_tags": [0]}))
    assert ask(script, out, "--file", words) == [row]
    words.write_text('{"tokens": ["plot"]}\n"a text"\n')
    ended = script("predict", "--model", out, "--file", words)
    assert "line 2 has a text, not words, but" in ended.err
    assert [(e["entity_group"], e["start"], e["end"]) for e in row] == [("neg", 13, 18)]
    ended = script("predict", "--model", out, "--backend=numpy", "the plot was awful")
    assert ended.out.startswith("neg 13:18 'awful' 0.")
    ended = script("predict", "--model", out, "--aggregation_strategy=none", "a great film")
    assert ended.out.startswith("B-pos 2:7 'great' 0.")
    ended = script("predict", "--model", out, "--stride=22", "a great film")
    assert ended.err == (
        "predict.py: error: --stride must be less than the 22 tokens of a window, got 22\n"
    )
    ended = script("predict", "--model", out, "--stride=3", "--aggregation_strategy=none", "a film")
    assert "--stride wants entities, which windows can be merged by" in ended.err
    ended = script("predict", "--model", out, "a film " * 20)
    assert ended.err.startswith("warning: 1 of 1 texts were cut to 24 tokens; pass a stride (")
    assert script("predict", "--model", out, "--stride=3", "a film " * 20).err == ""


def test_questions_are_answered(script: Any, model: Path, tmp_path: Path) -> None:
    ended, out = train("question-answering", script, model, tmp_path)
    (line,) = [line for line in ended.out.splitlines() if line.startswith("data: ")]
    assert line.startswith("data: 96 train (96 windows), 24 validation (24 windows), 24 test (24 ")
    context = "the story was great"
    (row,) = ask(script, out, "was the film", "--context", context)
    assert row["answer"] == "great"
    assert row["start"] == 14
    assert len(ask(script, out, "was the film", "--context", context, "--top_k=2")[0]) == 2
    assert ask(script, out, f"was the film\t{context}") == [row]
    file = tmp_path / "context.txt"
    file.write_text(context)
    assert ask(script, out, "was the film", "--context_file", file) == [row]
    assert ask(script, out, "was the film", "--context", "no.txt")[0]["answer"] in "no.txt"
    file.write_text("\n")
    ended = script("predict", "--model", out, "was the film", "--context_file", file)
    assert ended.err == f"predict.py: error: {file}: the context is empty\n"
    ended = script("predict", "--model", out, "was the film", "--context", " ")
    assert ended.err == "predict.py: error: --context: the context is empty\n"
    ended = script("predict", "--model", out, "film " * 40, "--context", context)
    assert ended.err.startswith("predict.py: error: text 1: the question fills a window and leaves")
    assert ended.err.count("\n") == 1
    trained = script("predict", "--model", out, "--file", tmp_path / "test.questions.jsonl")
    assert len(trained.out.splitlines()) == 24
    squad = tmp_path / "squad.json"
    asked_there = [{"id": "x", "question": "was the film", "answers": []}]
    paragraph = {"context": context, "qas": asked_there}
    squad.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    assert ask(script, out, "--file", squad) == [row]
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"question": "was the film", "context": context}) + "\n")
    assert ask(script, out, "--file", asked) == [row]
    ended = script("predict", "--model", out, "was the film")
    assert ended.err == (
        "predict.py: error: text 1: question-answering: there is no context after a tab; pass "
        "--context or --context_file for all\n"
    )


def test_choices_are_made(script: Any, model: Path, tmp_path: Path) -> None:
    _, out = train("multiple-choice", script, model, tmp_path)
    file = tmp_path / "asked.jsonl"
    rows = [("the plot was dull", ["lovely", "poor"]), ("a fine film", ["bad", "good", "awful"])]
    file.write_text("".join(json.dumps({"context": c, "choices": e}) + "\n" for c, e in rows))
    assert [row["choice"] for row in ask(script, out, "--file", file)] == ["poor", "good"]
    (row,) = ask(script, out, "the plot was dull", "--choices", "lovely", "poor")
    assert row["choice"] == "poor"
    swag = tmp_path / "swag.csv"
    swag.write_text("sent1,sent2,ending0,ending1,label\nthe plot,was dull,lovely,poor,1\n")
    assert ask(script, out, "--file", swag)[0]["choice"] in ("was dull poor", "was dull lovely")
    ended = script("predict", "--model", out, "a text")
    assert ended.err.startswith("predict.py: error: text 1: multiple-choice: there are no choices")


def test_texts_are_compared(script: Any, model: Path, tmp_path: Path) -> None:
    _, out = train("sentence-embedding", script, model, tmp_path)
    on = ["--task=sentence-similarity"]
    alike, unlike = ask(script, out, *on, "a good film\ta great plot", "a good film\tdull story")
    assert alike[0] > unlike[0] + 0.5
    (vector,) = ask(script, out, "a good film")
    assert sum(x * x for x in vector) == pytest.approx(1, rel=1e-5)


def test_pooling_is_chosen_and_kept(script: Any, model: Path, tmp_path: Path) -> None:
    ended, out = train("sentence-embedding", script, model, tmp_path, "--pooling=cls")
    assert ended.status == 0
    assert json.loads((out / "1_Pooling" / "config.json").read_text())["pooling_mode_cls_token"]


def test_pairs_need_no_header(script: Any, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"{a}\t{b}\n" for a, b in zip(GOOD * 8, BAD * 8, strict=True)))
    flags = ["--task=sentence-embedding", "--model_name_or_path", model, "--train_file", file]
    ended = script("finetune", *flags, *FAST, "--output_dir", tmp_path / "out", "--max_steps=1")
    assert (ended.status, ended.err) == (0, "")
    assert "texts 'sentence1' and 'sentence2', no labels, by position" in ended.out
    assert "  accuracy " in ended.out


def test_scores_are_scaled(script: Any, model: Path, tmp_path: Path) -> None:
    ended, _ = train("sentence-embedding", script, model, tmp_path, "--max_steps=1")
    assert "scores are divided by 5 to be cosines (--score_scale)" in ended.out
    more = ["--max_steps=1", "--score_scale=8", "--overwrite_output_dir"]
    ended, _ = train("sentence-embedding", script, model, tmp_path, *more)
    assert "scores are divided by 8 to be cosines" in ended.out
    more[1] = "--score_scale=2"
    ended, _ = train("sentence-embedding", script, model, tmp_path, *more)
    assert (
        "the score 5.0 divided by 2 (--score_scale) is no cosine: correct it, or pass" in ended.err
    )


def test_tags_that_are_numbers_are_named(script: Any, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "words.jsonl"
    file.write_text('{"tokens": ["good", "film"], "ner_tags": [1, 0]}\n' * 12)
    flags = ["--task=token-classification", "--model_name_or_path", model, "--train_file", file]
    flags += ["--output_dir", tmp_path / "out", *FAST, "--max_steps=1"]
    ended = script("finetune", *flags)
    assert "the tags are numbers; --label_names O B-PER … must name them" in ended.err
    ended = script("finetune", *flags, "--label_names", "O", "B-good")
    assert (ended.status, ended.err) == (0, "")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["label2id"] == {"B-good": 0, "O": 1}


@pytest.mark.parametrize("task", TASKS)
def test_a_finished_model_is_measured(task: str, script: Any, model: Path, tmp_path: Path) -> None:
    """To the same numbers as after its training, without the training file, in its own task."""
    _, out = train(task, script, model, tmp_path)
    want = json.loads((out / "all_results.json").read_text())
    name = TASKS[task][0]
    flags = ["--model_name_or_path", out, "--do_predict", "--test_file", tmp_path / f"test.{name}"]
    ended = script("finetune", *flags, *FAST, "--output_dir", tmp_path / "measured")
    assert (ended.status, ended.err) == (0, "")
    (line,) = [line for line in ended.out.splitlines() if line.startswith("test (")]
    assert f"  {TASKS[task][2]} {want[f'test_{TASKS[task][2]}']:.4f}" in line
    assert (tmp_path / "measured" / "predictions.jsonl").read_text().count("\n") > 1


def test_tags_of_other_names_are_refused(script: Any, model: Path, tmp_path: Path) -> None:
    _, out = train("token-classification", script, model, tmp_path)
    file = tmp_path / "other.conll"
    file.write_text("good\tB-x\nfilm\tO\n\nbad\tB-y\n\n" * 8)
    flags = ["--task=token-classification", "--model_name_or_path", out, "--train_file", file]
    flags += ["--output_dir", tmp_path / "new", *FAST, "--max_steps=1"]
    ended = script("finetune", *flags)
    assert "has the labels B-neg, B-pos, O; the file has B-x, B-y, O; --ignore" in ended.err
    assert script("finetune", *flags, "--ignore_mismatched_sizes").status == 0


def test_validation_pairs_need_scores_where_training_has_them(
    script: Any, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "dev.tsv"
    file.write_text("sentence1\tsentence2\na film\tthe plot\n")
    more = ["--max_steps=1", "--validation_file", file]
    ended, _ = train("sentence-embedding", script, model, tmp_path, *more)
    assert ended.status == 2
    assert "dev.tsv: there is no label column" in ended.err


def test_masks_are_filled(script: Any, tmp_path: Path) -> None:
    model = BertForMaskedLM(toy.config(), backend="numpy")
    model.save_pretrained(tmp_path / "m", tokenizer=toy.tokenizer())
    (row,) = ask(script, tmp_path / "m", "a [MASK] film", "--targets", "good", "bad")
    assert {fill["token_str"] for fill in row} == {"good", "bad"}
    ended = script("predict", "--model", tmp_path / "m", "a film")
    assert ended.err == (
        "predict.py: error: text 1: fill-mask: the text ('a film') has no [MASK]; write [MASK] "
        "where a word is wanted\n"
    )


def test_answers_without_labels_are_written(script: Any, model: Path, tmp_path: Path) -> None:
    """Of a test file that has words and no tags, and of questions without answers."""
    untagged = tmp_path / "words.txt.conll"
    untagged.write_text("the\nfilm\n\nplot\n")
    ended, out = train("token-classification", script, model, tmp_path, "--test_file", untagged)
    assert ended.status == 0
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [len(row) for row in rows] == [2, 1]


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("token-classification", "a\tO\nfilm\n", "line 2: "),
        ("token-classification", "a\tO\nfilm\tO\n", "at least 2 different tags are wanted"),
        ("question-answering", '{"question": "q"', "the input ends in the middle of it"),
        (
            "question-answering",
            '{"id": "7", "question": "q", "context": "abc", '
            '"answers": {"text": ["b"], "answer_start": [0]}}\n',
            "7",
        ),
        ("multiple-choice", '{"context": "a", "choices": ["b"], "label": 0}\n', "line 1: "),
        ("sentence-embedding", "sentence1\ta\nb\tc\n", "got single texts, wanted pairs"),
    ],
)
def test_bad_files_are_one_line(
    task: str, content: str, message: str, script: Any, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / f"bad.{TASKS[task][0]}"
    file.write_text(content)
    flags = ["--task", task, "--model_name_or_path", model, "--train_file", file]
    ended = script("finetune", *flags, "--output_dir", tmp_path / "out")
    assert ended.status == 2
    (line,) = ended.err.splitlines()
    assert line.startswith("finetune.py: error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_task_wants_its_own_data(script: Any, model: Path, tmp_path: Path) -> None:
    ended = script("finetune", "--task=multiple-choice", "--output_dir", tmp_path / "out")
    assert ended.status == 2
    assert "task multiple-choice wants a --train_file" in ended.err
    measured = ("--task=multiple-choice", "--model_name_or_path", model)
    for flag, name in (("--do_eval", "validation"), ("--do_predict", "test")):
        ended = script("finetune", *measured, flag)
        assert f"task multiple-choice wants a --{name}_file" in ended.err


def test_windows_are_counted_beside_questions(script: Any, model: Path, tmp_path: Path) -> None:
    flags = ["--max_steps=1", "--doc_stride=1", "--max_seq_length=8"]
    ended, _ = train("question-answering", script, model, tmp_path, *flags)
    (line,) = [line for line in ended.out.splitlines() if line.startswith("data: ")]
    windows = int(line.removeprefix("data: 96 train (").split(" ")[0])
    assert windows > 96


def test_one_question_that_is_too_long_does_not_end_a_run(
    script: Any, model: Path, tmp_path: Path
) -> None:
    """It is counted and named at the start; only where all are, nothing can be learnt."""
    long = {"id": "long", "question": "film " * 20, "context": "a film"}
    answers = {"answers": {"text": ["film"], "answer_start": [2]}}
    test = tmp_path / "test.jsonl"
    rows = [json.dumps(long | answers) + "\n"]
    test.write_text("".join([*rows, questions(3, 2)]))
    file = tmp_path / "train.jsonl"
    flags = [
        "--task=question-answering", "--model_name_or_path", model, "--max_steps=1",
        "--max_seq_length=20", "--train_file", file, "--output_dir", tmp_path / "out",
    ]  # fmt: skip
    file.write_text("".join([*rows, questions(8, 1)]))
    ended = script("finetune", *flags, "--validation_file", test, "--test_file", test)
    assert ended.status == 0
    for fate in ("9 train questions are left out of training", "4 test questions are answered by"):
        (line,) = [line for line in ended.out.splitlines() if f"warning: 1 of {fate}" in line]
        assert "('long')" in line
    file.write_text("".join(rows))
    ended = script("finetune", *flags, "--validation_file", test, "--overwrite_output_dir")
    assert ended.status == 2
    assert "train.jsonl, question 'long': the question fills a window" in ended.err


def test_the_hint_for_pairs_is_answered(script: Any, model: Path, tmp_path: Path) -> None:
    """The command at the end, taken as it stands."""
    file = tmp_path / "pairs.tsv"
    file.write_text(
        "".join(f"{a}\t{b}\tyes\n{b}\t{a}\tno\n" for a, b in zip(GOOD, BAD, strict=True))
    )
    flags = ["--model_name_or_path", model, "--train_file", file, "--validation_file", file]
    ended = script("finetune", *flags, *FAST, "--output_dir", tmp_path / "out", "--max_steps=1")
    assert ended.status == 0
    _, name, *arguments = shlex.split(ended.out.splitlines()[-1])
    assert name == "scripts/predict.py"
    assert json.loads(arguments[-1]) == {"text": "your text", "text_pair": "another"}
    ended = script("predict", *arguments, "--backend=numpy")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(("yes ", "no "))


def test_a_finished_model_s_name_is_resolved_once(
    script: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it says both what the task is and what the weights are."""
    _, out = train("multiple-choice", script, model, tmp_path)
    asked: list[str] = []

    def resolve(name: str, **_: Any) -> Path:
        asked.append(name)
        return out if name == "org/name" else Path(name)

    monkeypatch.setattr("minibert.hub.resolve_model", resolve)
    flags = ["--model_name_or_path=org/name", "--do_eval", "--validation_file"]
    flags += [str(tmp_path / "test.choices.jsonl"), "--output_dir", str(tmp_path / "measured")]
    assert script("finetune", *flags, *FAST).status == 0
    assert asked.count("org/name") == 1


def test_a_task_has_its_length() -> None:
    """Also one that a finished model says, and no flag."""
    data = DataArguments(do_eval=True)
    assert data.length == 128
    data.task = "question-answering"
    assert data.length == 384
    data.max_seq_length = 64
    assert data.length == 64
