"""Flags that people bring from transformers: what each script says to them, in one line."""

from __future__ import annotations

import re

import pytest

from minibert.io.foreign_flags import ADVICE

FINETUNE = {
    "--fp16": "--fp16: use --precision fp16",
    "--bf16 true": "--bf16: use --precision bf16",
    "--tf32=True": "--tf32: use --precision tf32",
    "--no_cuda": "--no_cuda: use --backend numpy",
    "--use-cpu": "--use-cpu: use --backend numpy",
    "--report_to none": "--report_to: leave it out (the log is log.jsonl in --output_dir)",
    "--local_rank -1": "--local_rank: leave it out (one process computes, on one device)",
    "--no_dataloader_pin_memory": "leave it out (one process computes, on one device)",
    "--push_to_hub": "(`hf upload NAME DIR` puts the finished --output_dir on the hub)",
    "--hub_token x": "--hub_token: set HF_TOKEN in the environment",
    "--task_name sst2": "--task_name: use --train_file and --validation_file",
    "--config_name x": "leave it out (config.json is in the directory --model_name_or_path)",
    "--overwrite_cache": "leave it out (no examples are kept in a cache)",
}
PRETRAIN = {
    "--fp16": "--fp16: use --precision fp16",
    "--do_train": "--do_train: leave it out (--help says what this script does)",
    "--train_file a.txt": "--train_file: use --corpus",
    "--validation_file a.txt": "--validation_file: use --validation_corpus",
    "--line_by_line": "--line_by_line: use --sentences lines",
    "--config_name x": "--config_name: use --model_size, or --model_name_or_path",
    "--overwrite_cache": "--overwrite_cache: use --overwrite_store",
}
PREDICT = {
    "--model DIR --test_file a.txt": "--test_file: use --file",
    "--model DIR --no_cuda": "--no_cuda: use --backend numpy",
    "--model DIR --fp16": "unrecognized arguments: --fp16",
}
SAID = [
    (script, given, said)
    for script, cases in (("finetune", FINETUNE), ("pretrain", PRETRAIN), ("predict", PREDICT))
    for given, said in cases.items()
]


@pytest.mark.parametrize(("name", "given", "said"), SAID)
def test_it_says_what_to_use(name, given, said, script):
    status, out, err = script(name, *given.split())
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"{name}.py: error: ")
    assert line.endswith(f"{said}; --help lists the flags")


def test_several_are_said_in_one_line_and_unknown_ones_with_their_values(script):
    given = "--fp16 true --lr 1 2 --report_to none --report_to wandb --seed 3"
    assert script("finetune", *given.split()).err == (
        "finetune.py: error: --fp16: use --precision fp16; --report_to: leave it out (the log is "
        "log.jsonl in --output_dir); unrecognized arguments: --lr 1 2; --help lists the flags\n"
    )


def test_they_are_known_in_a_config_file_too(script, tmp_path):
    (tmp_path / "flags.json").write_text('{"evaluation_strategy": "no", "fp16": true}')
    said = script("finetune", "--config", tmp_path / "flags.json").err
    assert said.endswith("flags.json: fp16: use --precision fp16; --help lists the flags\n")


def test_every_advice_is_of_use_in_some_script(script):
    """A flag that a script has needs none, and an advice names flags of that script alone."""
    scripts = [
        set(re.findall(r"--\w+", script(name, "--help").out))
        for name in ("finetune", "pretrain", "predict")
    ]
    for names, text in ADVICE:
        needed, foreign = re.findall(r"--\w+", text), {f"--{name}" for name in names.split()}
        assert any(flags.issuperset(needed) and foreign - flags for flags in scripts), text
