"""Labels on first pieces, words without a token, metrics and answers of token classification."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
from folders import data_file

from minibert import BertTokenizer
from minibert.data.conll import TaggedSentences, read_tagged
from minibert.errors import InputError
from minibert.hub import DEFAULT_MODEL, resolve_model
from minibert.tasks.token_classification import TokenClassification

TAGS = ["B-x", "I-x", "O"]
TASK = TokenClassification({"B-x": 0, "I-x": 1, "O": 2})


def sentences(*rows: str) -> TaggedSentences:
    """Rows of word/tag as if they had been read from toy.conll."""
    cells = [[cell.rsplit("/", 1) for cell in row.split(" ")] for row in rows]
    line, lines = 1, []
    for row in cells:
        lines.append(list(range(line, line + len(row))))
        line += len(row) + 1
    words = [[word for word, _ in row] for row in cells]
    return TaggedSentences(
        Path("toy.conll"), words, [[tag for _, tag in row] for row in cells], lines
    )


def tokenizer() -> Any:
    return toy.tokenizer(["##s", "##ly"])


def logits_for(features: Any, predicted: list[list[str]], names: list[str]) -> list[Any]:
    """Logits whose best label at each word's first token is the one wanted; noise elsewhere."""
    rng, rows = np.random.default_rng(0), []
    for ids, first, tags in zip(features.ids, features.first_tokens, predicted, strict=True):
        logits = rng.normal(size=(len(ids), len(names))).astype(np.float32)
        for place, tag in zip(first, tags, strict=True):
            if place >= 0:
                logits[place, names.index(tag)] = 9
        rows.append(logits)
    return rows


# ---- What the files say ----


def test_the_labels_are_sorted():
    task = TokenClassification.of(sentences("the/O film/I-b story/B-a plot/I-a"))
    assert task.label2id == {"B-a": 0, "I-a": 1, "I-b": 2, "O": 3}
    with pytest.raises(InputError, match=r"toy.conll: at least 2 different tags .*\['O'\]"):
        TokenClassification.of(sentences("the/O film/O"))
    with pytest.raises(InputError, match="there are words and no tags"):
        TokenClassification.of(replace(sentences("the/O"), labels=None))


def test_a_configuration_carries_the_task():
    config = toy.config().replace(**TASK.config_changes())
    assert config.num_labels == 3
    assert TokenClassification.of_config(config) == TASK


def test_a_model_that_knows_the_labels_keeps_its_order():
    trained = toy.config(label2id={"O": 0, "B-x": 1, "I-x": 2})
    assert TASK.in_the_order_of(trained).label2id == {"O": 0, "B-x": 1, "I-x": 2}
    assert TASK.in_the_order_of(toy.config()) == TASK


def test_a_tag_unseen_in_training_names_its_line():
    other = sentences("the/O film/B-x", "a/O story/I-y")
    with pytest.raises(InputError, match=r"toy.conll, line 5: the tag 'I-y' was not seen in train"):
        TASK.features(other, tokenizer(), 24)


# ---- Features ----


def test_a_label_stands_on_the_first_piece():
    features, truncated = TASK.features(sentences("films/B-x badly/I-x !/O", "a/O"), tokenizer(), 9)
    pieces = [tokenizer().convert_ids_to_tokens(ids) for ids in features.ids]
    assert pieces[0] == ["[CLS]", "film", "##s", "bad", "##ly", "[UNK]", "[SEP]"]
    assert features.token_labels[0].tolist() == [-100, 0, -100, 1, -100, 2, -100]
    assert features.token_labels[1].tolist() == [-100, 2, -100]
    assert features.first_tokens[0].tolist() == [1, 3, 5]
    assert not features.type_ids[0].any()
    assert (len(features), truncated) == (2, 0)
    assert features.token_labels[0].dtype == np.int64


def test_a_word_with_punctuation_has_one_label():
    features, _ = TASK.features(sentences("film-plot/B-x a/O"), tokenizer(), 9)
    assert features.token_labels[0].tolist() == [-100, 0, -100, -100, 2, -100]


def test_words_that_are_cut_off_keep_their_labels():
    features, truncated = TASK.features(
        sentences("a/O films/B-x badly/I-x the/O", "a/O films/B-x"), tokenizer(), 5
    )
    assert truncated == 1
    assert [len(ids) for ids in features.ids] == [5, 5]
    assert features.token_labels[0].tolist() == [-100, 2, 0, -100, -100]
    assert features.word_labels[0].tolist() == [2, 0, 1, 2]
    assert features.first_tokens[0].tolist() == [1, 2, -1, -1]
    inside, _ = TASK.features(sentences("a/O films/B-x badly/I-x"), tokenizer(), 6)
    assert inside.first_tokens[0].tolist() == [1, 2, 4]  # of "badly" only the first piece is left


def test_a_word_that_the_tokenizer_makes_nothing_of():
    features, _ = TASK.features(sentences("a/O \u200b/B-x film/I-x"), tokenizer(), 9)
    assert features.token_labels[0].tolist() == [-100, 2, 1, -100]
    assert features.first_tokens[0].tolist() == [1, -1, 2]


def test_without_tags():
    unlabelled = replace(sentences("films/O a/O"), labels=None)
    features, _ = TASK.features(unlabelled, tokenizer(), 9)
    assert features.token_labels is None
    assert features.first_tokens[0].tolist() == [1, 3]
    logits = logits_for(features, [["O", "B-x"]], TAGS)
    assert TASK.predictions({"logits": logits}, features) == [["O", "B-x"]]
    with pytest.raises(InputError, match="need features with labels"):
        TASK.metrics({"logits": logits}, features)


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", ["wnut17train.conll", "emerging.test.annotated"])
def test_labels_are_those_of_run_ner(name):
    """As tokenize_and_align_labels of transformers' run_ner.py gives them, MiniLM's vocabulary."""
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    files, directory = (
        read_tagged(data_file(f"wnut17/{name}")),
        resolve_model(DEFAULT_MODEL),
    )
    task = TokenClassification.of(files)
    features, _ = task.features(files, BertTokenizer.from_pretrained(directory), 64)
    theirs = transformers.AutoTokenizer.from_pretrained(directory)(
        files.words, is_split_into_words=True, truncation=True, max_length=64
    )
    assert [ids.tolist() for ids in features.ids] == theirs["input_ids"]
    for i, tags in enumerate(files.labels):
        words = [None, *theirs.word_ids(i)]
        want = [
            -100 if word is None or word == before else task.label2id[tags[word]]
            for before, word in pairwise(words)
        ]
        assert features.token_labels[i].tolist() == want


# ---- Metrics ----


def test_metrics_counted_by_hand():
    files = sentences("films/B-x badly/I-x a/O film/B-x", "the/O story/B-x was/O dull/O")
    features, _ = TASK.features(files, tokenizer(), 24)
    guess = [["B-x", "I-x", "O", "O"], ["B-x", "I-x", "O", "B-x"]]
    # found 1 of 3, with 3 guesses; 4 of 8 words right
    metrics = TASK.metrics({"logits": logits_for(features, guess, TAGS)}, features)
    assert metrics == {"f1": 1 / 3, "precision": 1 / 3, "recall": 1 / 3, "accuracy": 4 / 8}
    assert tuple(metrics) == TASK.metric_names
    assert TASK.best_metric in TASK.metric_names


def test_words_without_a_token_count_as_outside():
    files = sentences("a/B-x film/O a/B-x the/O", "a/B-x \u200b/I-x")
    features, truncated = TASK.features(files, tokenizer(), 4)
    assert truncated == 1
    logits = logits_for(features, [["B-x", "O", "B-x", "O"], ["B-x", "I-x"]], TAGS)
    assert TASK.predictions({"logits": logits}, features) == [
        ["B-x", "O", "O", "O"],
        ["B-x", "O"],
    ]
    metrics = TASK.metrics({"logits": logits}, features)
    assert metrics == {"f1": 2 / 5, "precision": 1 / 2, "recall": 1 / 3, "accuracy": 4 / 6}


def test_parts_of_speech_are_counted_word_by_word():
    files = sentences("the/D film/N story/N was/V")
    task = TokenClassification.of(files)
    features, _ = task.features(files, tokenizer(), 24)
    logits = logits_for(features, [["D", "N", "V", "V"]], ["D", "N", "V"])
    assert task.metrics({"logits": logits}, features) == dict.fromkeys(task.metric_names, 3 / 4)


# ---- Answers ----


def test_answers_index_the_text():
    text = "  The FILMS, badly!"
    tok = tokenizer()
    (encoding,) = tok.encode_aligned([text])
    pieces = tok.convert_ids_to_tokens(encoding.ids)
    assert pieces[1:-1] == ["the", "film", "##s", "[UNK]", "bad", "##ly", "[UNK]"]
    logits = np.zeros((9, 3), np.float32)
    for place, label in enumerate([2, 2, 0, 1, 2, 0, 1, 2, 2]):
        logits[place, label] = np.log(8)  # 8 of 10
    found = TASK.decode({"logits": [logits]}, [encoding], [text], tok)
    assert [(e["entity"], e["index"], e["word"]) for e in found[0]] == [
        ("B-x", 2, "film"), ("I-x", 3, "##s"), ("B-x", 5, "bad"), ("I-x", 6, "##ly"),
    ]  # fmt: skip
    assert [text[e["start"] : e["end"]] for e in found[0]] == ["FILM", "S", "bad", "ly"]
    assert [e["score"] for e in found[0]] == pytest.approx([0.8] * 4)
    (groups,) = TASK.decode({"logits": [logits]}, [encoding], [text], tok, "first")
    assert [text[e["start"] : e["end"]] for e in groups] == ["FILMS", "badly"]
    assert [(e["entity_group"], e["word"]) for e in groups] == [("x", "films"), ("x", "badly")]
    (everything,) = TASK.decode({"logits": [logits]}, [encoding], [text], tok, "simple", ["x"])
    assert [(e["entity_group"], e["word"]) for e in everything] == [
        ("O", "the"), ("O", ","), ("O", "!")
    ]  # fmt: skip


def test_windows_of_a_text_become_one_list():
    tok, texts = tokenizer(), ["a film the plot story", "a"]
    encodings = tok.encode_aligned(texts, max_length=5, stride=1)
    assert [encoding.example for encoding in encodings] == [0, 0, 1]
    logits = []
    for encoding, labels in zip(
        encodings, ([2, 2, 0, 1, 2], [2, 1, 1, 0, 2], [2, 0, 2]), strict=True
    ):
        logits.append(np.eye(3)[labels])
        assert len(encoding.ids) == len(labels)
    first, second = TASK.decode({"logits": logits}, encodings, texts, tok, "simple")
    # "film the" of the first window overlaps "the plot" of the second, which is as long: 8 letters
    assert [(e["word"], e["start"], e["end"]) for e in first] == [
        ("film the", 2, 10), ("story", 16, 21)
    ]  # fmt: skip
    assert [e["word"] for e in second] == ["a"]
    assert TASK.decode({"logits": []}, [], [], tok) == []
