"""scripts/pretrain.py where it writes: places that it cannot use, disks that are full."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import toy_corpus

from minibert.data import tokenizing
from minibert.models import BertPreTrainedModel
from minibert.training import trainer as trainer_module
from minibert.training.state import checkpoints

FAST = [
    *("--sentences", "lines", "--vocab_size", 200, "--model_size", "tiny", "--max_seq_length", 24),
    *("--per_device_train_batch_size", 8, "--threads", 1, "--backend", "numpy", "--disable_tqdm"),
    *("--preprocessing_num_workers", 1, "--logging_steps", 2, "--max_steps", 4, "--eval_steps", 4),
    *("--max_eval_samples", 8, "--save_steps", 2),
]


@pytest.fixture
def error(script, tmp_path):
    """error(store=…, …) → the one line of a start with these places."""
    corpus = toy_corpus.write(tmp_path / "corpus", documents=8)

    def start(*more: Any, status: int = 2, **places: Any) -> str:
        places = {"store": tmp_path / "store", "output_dir": tmp_path / "out"} | places
        named = [(f"--{name}", path) for name, path in places.items() if path]
        flags = [*itertools.chain.from_iterable([("--corpus", corpus), *named]), *FAST]
        ended = script("pretrain", *flags, *more)
        assert (ended.status, ended.err.count("\n")) == (status, status and 1), ended.err
        return ended.err.removeprefix("pretrain.py: error: ")

    return start


def test_what_cannot_be_a_store_is_said_first(error, tmp_path, monkeypatch):
    """Before a corpus is read, and without a trace."""
    monkeypatch.setattr(tokenizing, "build_store", lambda *_, **__: pytest.fail("has read it"))
    (tmp_path / "file").write_text("mine")
    file, inside = tmp_path / "file", tmp_path / "corpus/store"
    assert error(store=file).startswith(f"--store: {file} is a file; name a directory")
    assert "nothing can be written there (Not a directory); choose" in error(store=file / "deep")
    assert f"--store: {inside} lies in the corpus {tmp_path}/corpus," in error(store=inside)
    assert "--output_dir: " in error(output_dir=inside)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "corpus/link").symlink_to(tmp_path / "elsewhere")
    assert "elsewhere/out lies in" in error(output_dir=tmp_path / "elsewhere/out")
    (tmp_path / "corpus/link").unlink()
    (tmp_path / "elsewhere").rmdir()
    assert "lies in the corpus" in error(store=tmp_path / "corpus")
    monkeypatch.setenv("MINIBERT_CACHE", str(file))
    assert error(store=None).startswith(f"MINIBERT_CACHE (or --store) {file}/corpora: nothing can")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "file"}


def test_a_hidden_folder_of_the_corpus_is_not_read(error, tmp_path):
    hidden = tmp_path / "corpus/.kept"
    for _ in range(2):
        error("--dry_run", store=hidden / "store", output_dir=hidden / "out", status=0)


def test_what_has_the_names_of_a_store_is_not_replaced(error, tmp_path):
    for name in ("train", "tokenizer"):
        folder = tmp_path / name / name
        folder.mkdir(parents=True)
        (folder / "text.txt").write_text("mine")
        said = error("--overwrite_store", store=tmp_path / name)
        assert f"{folder} is no " in said
        assert "choose another --store, or remove it" in said
        assert (folder / "text.txt").read_text() == "mine"


def test_a_place_for_the_output_is_wanted_first(error, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "build_store", lambda *_, **__: pytest.fail("has read it"))
    assert "nothing can be written there (" in error(output_dir="/proc/none")
    none = error("--resume_from_checkpoint", "last")
    assert "out holds no checkpoint-… to resume from: to begin anew, replace" in none
    with pytest.raises(pytest.fail.Exception):  # which is not said of a first start
        error()


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("part", ["tokenizer", "train"])
def test_a_full_disk_leaves_no_store(part, error, tmp_path, monkeypatch):
    """In tokenising, or in learning the vocabulary before it; and the next start has all."""
    if part == "train":
        error("--dry_run", status=0)
        shutil.rmtree(tmp_path / "store/train")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        said = error(status=1)
    assert said.startswith(f"{tmp_path}/store/{part}")
    assert ": No space left on device; make room on that disk, and start again" in said
    assert not (tmp_path / "store" / part).exists()
    assert not list((tmp_path / "store").glob(".*"))
    error("--dry_run", status=0)


@pytest.mark.parametrize("what", ["checkpoint", "log", "model"])
def test_a_full_disk_in_training_leaves_the_checkpoint_before(what, error, tmp_path, monkeypatch):
    """With the way to go on, which leads to the end."""
    plain = trainer_module.Trainer.step

    def step(self: Any, batch: Any) -> Any:
        if self.state.step == 3 and what == "checkpoint":
            patch.setattr(trainer_module.training_state, "write_safetensors", full)
        if self.state.step == 3 and what == "log":
            patch.setattr(Path, "open", full)
        return plain(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "step", step)
        if what == "model":
            save = BertPreTrainedModel.save_pretrained
            patch.setattr(
                BertPreTrainedModel,
                "save_pretrained",
                lambda self, path, **more: (
                    full() if path == tmp_path / "out" else save(self, path, **more)
                ),
            )
        said = error(status=1)
    name = {"checkpoint": "out/checkpoint-4", "log": "out/log.jsonl", "model": "out"}[what]
    assert said.startswith(f"{tmp_path}/{name} could not be saved: ")
    assert "No space left on device. What was saved before is whole: make room, then go" in said
    assert [step for step, _ in checkpoints(tmp_path / "out")] == [2] + [4] * (what == "model")
    error("--resume_from_checkpoint", "last", status=0)
    assert (tmp_path / "out/model.safetensors").exists()


def test_a_full_disk_at_the_first_checkpoint_is_told_to_begin_anew(error, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.training_state, "write_safetensors", full)
        said = error(status=1)
    assert "checkpoint-2 could not be saved: " in said
    assert said.endswith(
        "No checkpoint was saved before: make room, then go on with the same "
        "command and --overwrite_output_dir\n"
    )
    error("--overwrite_output_dir", status=0)
