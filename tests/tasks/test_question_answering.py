"""The task as a whole: its settings, its scores, its predictions."""

from __future__ import annotations

import random

import numpy as np
import pytest
import toy
from folders import data_file
from questions import SPECIALS, certain, examples, tokenizer

from minibert import BertTokenizer
from minibert.config import BertConfig
from minibert.data.squad import read_squad
from minibert.errors import InputError
from minibert.pipelines.question_answering import QuestionAnsweringPipeline
from minibert.tasks.question_answering import QuestionAnswering
from minibert.training.arguments import TrainingArguments
from minibert.training.trainer import Trainer

ROWS = [
    ("who", "ab cd. ef", [("cd", 3), ("ab cd", 0)]),
    ("who", "gh ij", []),
    ("who", "kl mn " * 9, [("mn kl", 3)]),
]


def test_the_training_file_says_whether_questions_may_have_no_answer():
    assert QuestionAnswering.of(examples(*ROWS)).version_2_with_negative
    assert not QuestionAnswering.of(examples(ROWS[0])).version_2_with_negative
    assert QuestionAnswering.of(examples(ROWS[0]), True, doc_stride=9) == QuestionAnswering(
        version_2_with_negative=True, doc_stride=9
    )
    with pytest.raises(InputError, match="1 of 3 questions have no answer; drop `--ver"):
        QuestionAnswering.of(examples(*ROWS), version_2_with_negative=False)
    with pytest.raises(InputError, match="no question has 'answers'; training wants them"):
        QuestionAnswering.of(examples(("who", "ab", None)))


def test_a_configuration_carries_two_logits():
    task = QuestionAnswering.of(examples(ROWS[0]))
    config = BertConfig(num_labels=3).replace(**task.config_changes())
    assert config.num_labels == 2
    assert QuestionAnswering.of_config(config) == task


@pytest.mark.parametrize(
    "name", ["doc_stride", "max_query_length", "n_best_size", "max_answer_length"]
)
def test_settings_are_checked(name):
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        QuestionAnswering(**{name: 0})


@pytest.mark.parametrize("length", [384, 20])
def test_certain_logits_score_a_hundred(length):
    task = QuestionAnswering(version_2_with_negative=True, doc_stride=8)
    features, _ = task.features(examples(*ROWS), tokenizer(), length)
    outputs = certain(features)
    assert task.answers(outputs, features) == {"q0": "cd", "q1": "", "q2": "mn kl"}
    assert task.predictions(outputs, features)[:2] == [
        {"id": "q0", "answer": "cd"},
        {"id": "q1", "answer": ""},
    ]
    assert task.metrics(outputs, features) == dict.fromkeys(
        ("exact_match", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1"), 100.0
    )


def test_version_1_always_answers():
    task = QuestionAnswering()
    features, _ = task.features(examples(*ROWS), tokenizer())
    predictions = task.answers(certain(features), features)
    assert predictions["q1"]
    metrics = task.metrics(certain(features), features)
    assert list(metrics) == task.metric_names
    assert task.best_metric in metrics
    assert metrics["exact_match"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(("threshold", "answered"), [(17.9, False), (18.0, True)])
def test_the_threshold_moves_towards_an_answer(threshold, answered):
    task = QuestionAnswering(True, null_score_diff_threshold=threshold)
    features, _ = task.features(examples(ROWS[1]), tokenizer())
    predictions = task.answers(certain(features), features)  # null − best = 18 − 0
    assert bool(predictions["q0"]) == answered


def test_every_answer_counts_also_one_whose_place_was_wrong():
    task = QuestionAnswering()
    row = ("who", "ab cd. ef", [("xy", None), ("CD!", None)])
    features, _ = task.features(examples(row), tokenizer())
    assert features.labels.tolist() == [[-100, -100]]
    outputs = {name: [np.zeros(n) for n in features.lengths]
               for name in ("start_logits", "end_logits")}  # fmt: skip
    outputs["start_logits"][0][7] = outputs["end_logits"][0][8] = 5.0
    assert task.answers(outputs, features) == {"q0": "cd"}
    assert task.metrics(outputs, features)["exact_match"] == 100.0


def test_decoding_gives_what_pipelines_return():
    task = QuestionAnswering()
    features, _ = task.features(examples(*ROWS), tokenizer(), 20)
    found = task.decode(certain(features), features, top_k=2, handle_impossible_answer=True)
    assert [len(answers) for answers in found] == [2, 2, 2]
    assert found[0][0] == {"score": found[0][0]["score"], "start": 3, "end": 5, "answer": "cd"}
    assert found[1][0]["answer"] == ""


def test_the_dev_set_in_seconds():
    """10,570 questions, a piece a letter: every first answer comes back, to the character."""
    questions = read_squad(data_file("squad/dev-v1.1.json"))
    letters = tokenizer("".join(set(questions.contexts)).lower())
    task = QuestionAnswering(max_answer_length=300)
    features, _ = task.features(questions, letters, 512)
    predictions = task.answers(certain(features), features)
    firsts = {name: found[0].text for name, found in
              zip(questions.ids, questions.answers, strict=True)}  # fmt: skip
    wrong = {name: text for name, text in predictions.items() if firsts[name] != text}
    assert wrong == {}


def test_a_tiny_model_learns_to_answer(tmp_path):
    """Who: the name; where: the place; when: nothing says. Contexts are two windows long."""
    names, places = ["ann", "bob", "eve", "kim"], ["rome", "oslo", "york", "bern"]
    words = ["who", "where", "when", "so", "is", "in", "and", *names, *places]
    words_tokenizer = BertTokenizer.from_vocab([*SPECIALS, *words])

    def questions(count, seed):
        rng = random.Random(seed)
        rows = []
        for i in range(count):
            context = ["so"] * rng.randint(0, 4) + [rng.choice(names), "is", "in"]
            context += [rng.choice(places)] + ["and", "so"] * rng.randint(0, 3)
            text = " ".join(context)
            answer = [None, *(w for w in context if w in (*names, *places))][(i + 1) % 3]
            found = [(answer, text.index(answer))] if answer else []
            rows.append((("who", "where", "when")[i % 3], text, found))
        return examples(*rows)

    train, held_out = questions(240, 0), questions(60, 1)
    task = QuestionAnswering.of(train, doc_stride=5)
    config = toy.config(
        vocab_size=len(words) + len(SPECIALS),
        hidden_size=24,
        initializer_range=0.2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **task.config_changes(),
    )
    model = task.model_class(config, backend="numpy", dtype="float32", seed=1, threads=1)
    settings = {"learning_rate": 5e-3, "num_train_epochs": 20.0, "eval_strategy": "no"}
    args = TrainingArguments(**toy.SETTINGS | settings | {"output_dir": str(tmp_path / "out")})
    features = [task.features(part, words_tokenizer, 13)[0] for part in (train, held_out)]
    assert len(features[0]) > len(train)
    trainer = Trainer(model, args, task, *features)
    trainer.train()
    scores = trainer.evaluate(features[1])
    assert scores["exact_match"] > 90
    assert scores["NoAns_f1"] > 90
    model.save_pretrained(tmp_path / "model", tokenizer=words_tokenizer)
    answer = QuestionAnsweringPipeline.from_pretrained(tmp_path / "model", backend="numpy")
    text = "so so bob is in oslo and so"
    assert answer(question="who", context=text)["answer"] == "bob"
    found = answer(question=["where", "when"], context=text, handle_impossible_answer=True)
    assert [a["answer"] for a in found] == ["oslo", ""]


def test_a_question_that_cannot_be_read_is_answered_by_the_empty_text():
    questions = examples(("a", "cd ef", [("cd", 0)]), ("abcdef", "cd", [("cd", 0)]))
    for version_2 in (False, True):
        task = QuestionAnswering(version_2_with_negative=version_2)
        features, _ = task.features(questions, tokenizer(), 9)
        assert features.unread == [1]
        outputs = certain(features)
        assert task.answers(outputs, features) == {"q0": "cd", "q1": ""}
        assert task.metrics(outputs, features)["exact_match"] == 50.0
        (found, none) = task.decode(outputs, features)
        assert found[0]["answer"] == "cd"
        assert none == [{"score": 0.0, "start": 0, "end": 0, "answer": ""}]
