"""Flags and --config files: the same names, the same types, the same checks."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import pytest

from minibert.errors import InputError
from minibert.io.command_line import Parser
from minibert.training.arguments import TrainingArguments, option, parse


@dataclass
class ToyArguments:
    """What the toy wants. No more."""

    name: str = option("ada", "a name, 100% yours")
    size: int | None = option(None, "a size")
    quick: bool = option(True, "be quick")
    names: list[str] | None = option(None, "names", shown="none", group="others")  # noqa: RUF009


def parsed(*argv):
    toy, training = parse(Parser(), (ToyArguments, TrainingArguments), argv)
    return toy, training


def test_without_flags_everything_is_the_default():
    assert parsed() == (ToyArguments(), TrainingArguments())


def test_a_list_may_be_given_in_parts(tmp_path):
    assert parsed("--names", "a", "b", "--names", "c")[0].names == ["a", "b", "c"]
    config = tmp_path / "flags.json"
    config.write_text('{"names": ["x"]}')
    assert parsed("--config", str(config), "--names", "a", "--names", "b")[0].names == ["a", "b"]


# transformers' TrainingArguments and run_glue.py know these names; the values are of their types.
SAMPLES = {
    "output_dir": ("out", "out"),
    "overwrite_output_dir": ("true", True),
    "resume_from_checkpoint": ("last", "last"),
    "num_train_epochs": ("2.5", 2.5),
    "max_steps": ("7", 7),
    "per_device_train_batch_size": ("8", 8),
    "gradient_accumulation_steps": ("2", 2),
    "group_by_length": ("yes", True),
    "learning_rate": ("3e-5", 3e-5),
    "lr_scheduler_type": ("cosine", "cosine"),
    "warmup_ratio": ("0.2", 0.2),
    "warmup_steps": ("5", 5),
    "optim": ("adamw_hf", "adamw_hf"),
    "weight_decay": ("0", 0.0),
    "adam_beta1": ("0.8", 0.8),
    "adam_beta2": ("0.98", 0.98),
    "adam_epsilon": ("1e-6", 1e-6),
    "max_grad_norm": ("0", 0.0),
    "eval_strategy": ("steps", "steps"),
    "eval_steps": ("9", 9),
    "save_strategy": ("no", "no"),
    "save_steps": ("9", 9),
    "save_total_limit": ("1", 1),
    "load_best_model_at_end": ("false", False),
    "metric_for_best_model": ("f1", "f1"),
    "greater_is_better": ("0", False),
    "seed": ("1", 1),
    "gradient_checkpointing": ("1", True),
    "logging_steps": ("1", 1),
    "disable_tqdm": ("1", True),
}
OURS = {
    "max_tokens_per_batch": ("512", 512),
    "length_window": ("3", 3),
    "eval_tokens_per_batch": ("64", 64),
    "per_device_eval_batch_size": ("7", 7),
    "momentum": ("0.5", 0.5),
    "early_stopping_patience": ("2", 2),
    "backend": ("numpy", "numpy"),
    "dtype": ("float64", "float64"),
    "precision": ("bf16", "bf16"),
    "threads": ("1", 1),
    "dry_run": ("true", True),
}


def test_the_samples_are_all_flags():
    assert SAMPLES.keys() | OURS.keys() == {f.name for f in dataclasses.fields(TrainingArguments)}


@pytest.mark.parametrize("name", SAMPLES | OURS)
def test_each_flag_by_argument_and_by_config(name, tmp_path):
    text, value = (SAMPLES | OURS)[name]
    want = dataclasses.replace(TrainingArguments(), **{name: value})
    assert want != TrainingArguments()
    assert parsed(f"--{name}", text)[1] == want
    assert type(getattr(parsed(f"--{name}={text}")[1], name)) is type(value)
    config = tmp_path / "flags.json"
    config.write_text(json.dumps({name: value}))
    assert parsed("--config", str(config))[1] == want


ALSO = {
    "evaluation_strategy": ("eval_strategy", "steps"),
    "per_gpu_train_batch_size": ("per_device_train_batch_size", 8),
    "per_gpu_eval_batch_size": ("per_device_eval_batch_size", 7),
    "activation_checkpointing": ("gradient_checkpointing", True),
}


@pytest.mark.parametrize("other", ALSO)
def test_other_names_that_transformers_has_or_had(other, tmp_path):
    name, value = ALSO[other]
    want = dataclasses.replace(TrainingArguments(), **{name: value})
    assert parsed(f"--{other}", str(value))[1] == want
    assert parsed(f"--{other}={value}".replace("_", "-"))[1] == want
    config = tmp_path / "flags.json"
    config.write_text(json.dumps({other: value}))
    assert parsed("--config", str(config))[1] == want


def test_dashes_are_underscores():
    assert parsed("--learning-rate", "1")[1].learning_rate == 1.0
    assert parsed("--no-load-best-model-at-end")[1].load_best_model_at_end is False


def test_booleans_may_be_bare_spelled_out_or_negated():
    assert parsed("--group_by_length")[1].group_by_length is True
    assert parsed("--group_by_length", "--quick", "no")[0].quick is False
    assert parsed("--no_quick")[0].quick is False
    assert parsed("--no_load_best_model_at_end")[1].load_best_model_at_end is False


def test_a_list_is_several_arguments_or_a_list_in_json(tmp_path):
    assert parsed("--names", "O", "B-PER", "--size", "3")[0].names == ["O", "B-PER"]
    config = tmp_path / "flags.json"
    config.write_text('{"names": ["O", "B-PER"]}')
    assert parsed("--config", str(config))[0].names == ["O", "B-PER"]


def test_flags_rule_over_the_config_file(tmp_path):
    config = tmp_path / "flags.json"
    config.write_text('{"learning_rate": 1, "seed": 3, "quick": false, "size": null}')
    toy, training = parsed("--config", str(config), "--seed", "4")
    assert (training.learning_rate, training.seed) == (1.0, 4)
    assert type(training.learning_rate) is float
    assert toy == ToyArguments(quick=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"lr": 1}', r"flags.json: unknown name 'lr'; --help lists the flags"),
        ('{"report_to": "none"}', r"report_to: leave it out \(the log is log.jsonl"),
        ('{"seed": "1"}', "seed must be of type int, got '1'"),
        ('{"seed": 1.0}', "seed must be of type int, got 1.0"),
        ('{"seed": true}', "seed must be of type int, got True"),
        ('{"seed": null}', "seed must be of type int, got None"),
        ('{"learning_rate": "3e-5"}', "learning_rate must be of type float, got '3e-5'"),
        ('{"group_by_length": 1}', "group_by_length must be of type bool, got 1"),
        ('{"output_dir": ["a"]}', r"output_dir must be of type str, got \['a'\]"),
        ('{"names": "O"}', "names must be of type list, got 'O'"),
        ('{"names": ["O", 1]}', r"names must be a list of texts, got \['O', 1\]"),
        ('{"names": []}', "names must be a list of texts"),
        ('{"optim": "adamax"}', "optim must be one of adamw_torch, .*, got 'adamax'"),
        ('{"seed": -1}', "seed must not be negative"),
        ('{"learning_rate": NaN}', "learning_rate must be positive, got nan"),
        ('{"seed": 1, "seed": 2}', "the key 'seed' occurs twice"),
        ("[1]", "got a JSON list, wanted an object"),
        ("{", "not JSON"),
    ],
)
def test_a_bad_config_is_named(content, message, tmp_path):
    config = tmp_path / "flags.json"
    config.write_text(content)
    with pytest.raises(InputError, match=message):
        parsed("--config", str(config))


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none.json: No such file"):
        parsed("--config", str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lr", "1"], "unrecognized arguments: --lr 1; --help lists the flags"),
        (["--learning", "1"], "unrecognized arguments"),  # no guessing by prefix
        (["--fp16", "--lr", "1"], "--fp16: use --precision fp16; unrecognized arguments: --lr 1;"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["--optim", "adamax"], "argument --optim: invalid choice: 'adamax'"),
        (["--quick", "maybe"], "argument --quick: expected true or false, got 'maybe'"),
        (["--seed"], "argument --seed: expected one argument"),
        (["--learning_rate", "0"], "learning_rate must be positive, got 0.0"),
        (["--learning_rate", "inf"], "learning_rate must be positive, got inf"),
        (["--num_train_epochs", "inf"], "num_train_epochs must be positive, got inf"),
        (["--max_steps", "0"], "max_steps must be positive, or -1 for none, got 0"),
        (["--max_steps", "-2"], "max_steps must be positive, or -1 for none, got -2"),
        (["--warmup_ratio", "1.5"], "warmup_ratio must be between 0 and 1, got 1.5"),
        (["--warmup_steps", "-1"], "warmup_steps, .* must not be negative"),
        (["--max_grad_norm", "nan"], "max_grad_norm .* must not be negative"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (["--max_tokens_per_batch", "0"], "max_tokens_per_batch must be at least 1, got 0"),
        (["--early_stopping_patience", "0"], "early_stopping_patience must be at least 1, got 0"),
        (["--seed", str(2**63)], "seed"),
    ],
)
def test_bad_flags_are_named_in_one_line(argv, message):
    with pytest.raises(InputError, match=message) as caught:
        parsed(*argv)
    assert "\n" not in str(caught.value)


def test_help_shows_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "what the toy wants:" in shown
    assert "a name, 100% yours (default ada)" in shown
    assert "the highest learning rate (default 5e-05; the movie reviews: 2e-4)" in shown
    assert "others: --names NAME [NAME ...] names (default none)" in shown
    assert "--seed N " in shown
    assert "--output_dir DIR " in shown
    assert "(default false)" in shown
    assert all(f"--{name} " in shown for name in SAMPLES | OURS)
    assert not [name for name in ALSO if name in shown]
    assert "--learning-rate" not in shown
