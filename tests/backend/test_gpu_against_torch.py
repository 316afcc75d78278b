"""Errors in each precision beside PyTorch's own, in the same mode, on the same numbers.

The oracle is NumPy in float64. Ours may be twice as wrong as PyTorch is: roundings differ.
On a GPU both sides run there; without one, 16 bits on the stand-in are held to PyTorch on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest
from numpy.typing import NDArray

from minibert import BertConfig, BertForSequenceClassification
from minibert.backend import PRECISIONS
from minibert.backend.cupy_backend import CupyBackend, why_unavailable

REASON = why_unavailable()
AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}
SCALE = 65536.0  # of the loss, on both sides, in fp16
Tensors = dict[str, NDArray[Any]]


def batch(count: int, longest: int) -> dict[str, Any]:
    """Sequences of 8 tokens up to the longest."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(8, longest, count).astype(int)
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(1, 1000, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask, "labels": rng.integers(0, 3, count)}


def save_model(directory: Path) -> Path:
    config = BertConfig(
        vocab_size=1000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=1024, num_labels=3, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.06,
    )  # fmt: skip
    BertForSequenceClassification(config, backend="numpy").save_pretrained(directory)
    return directory


def ours(directory: Path, given: dict[str, Any], **how: Any) -> Tensors:
    """The last hidden state and every gradient."""
    model = BertForSequenceClassification.from_pretrained(directory, **how)
    xp, scale = model.xp, SCALE if model.xp.precision == "fp16" else 1.0
    model.loss_scale = xp.full((), scale, dtype=str(model.parameters.dtype))
    states = model(**given, output_hidden_states=True).hidden_states
    _, gradients = model.loss_and_gradients(**given)
    tensors = {name: np.asarray(xp.to_host(g)) / scale for name, g in gradients.items()}
    return tensors | {"last hidden state": np.asarray(xp.to_host(states[-1]))}


@contextmanager
def products(torch: Any, precision: str) -> Iterator[None]:
    """Of float32 in PyTorch, in full or as TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    yield
    torch.set_float32_matmul_precision(before)


def theirs(directory: Path, given: dict[str, Any], precision: str, device: str) -> Tensors:
    """The same from transformers on PyTorch."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.BertForSequenceClassification.from_pretrained(directory).eval().to(device)
    inputs = {name: torch.tensor(array, device=device) for name, array in given.items()}
    dtype = getattr(torch, AUTOCAST.get(precision, "bfloat16"))
    scale = SCALE if precision == "fp16" else 1.0
    with products(torch, precision):
        with torch.autocast(device, dtype, enabled=precision in AUTOCAST):
            output = model(**inputs, output_hidden_states=True)
        (output.loss * scale).backward()
    tensors = {
        name: parameter.grad.double().cpu().numpy() / scale
        for name, parameter in model.named_parameters()
    }
    state = output.hidden_states[-1].detach().double().cpu().numpy()
    return tensors | {"last hidden state": state * given["attention_mask"][..., None]}


def errors(got: Tensors, want: Tensors) -> dict[str, float]:
    """Of the hidden state, and of all gradients together: ‖got − want‖/‖want‖."""
    state = "last hidden state"
    parts = {state: [state], "gradients": [name for name in want if name != state]}
    return {
        part: float(
            np.sqrt(sum(np.square(got[name] - want[name]).sum() for name in names))
            / np.sqrt(sum(np.square(want[name]).sum() for name in names))
        )
        for part, names in parts.items()
    }


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # PyTorch's own, which differ from version to version
@pytest.mark.skipif(REASON is not None, reason=f"no GPU to test on: {REASON}")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_at_most_twice_the_error_of_pytorch(precision: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the peer is PyTorch: pip install '.[crosscheck]'")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA: it cannot be measured on the same GPU")
    compare(
        save_model(tmp_path / "model"), batch(16, 128), CupyBackend(precision=precision), "cuda"
    )


@pytest.mark.crosscheck
@pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="needs g++ or clang++")
@pytest.mark.parametrize("precision", AUTOCAST)
def test_at_most_twice_the_error_of_pytorch_without_a_gpu(
    fake: Any, precision: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    compare(save_model(tmp_path / "model"), batch(2, 16), CupyBackend(precision=precision), "cpu")


def compare(directory: Path, given: dict[str, Any], xp: CupyBackend, device: str) -> None:
    exact = ours(directory, given, backend="numpy", dtype="float64")
    got = errors(ours(directory, given, backend=xp), exact)
    peer = errors(theirs(directory, given, xp.precision, device), exact)
    for part, error in got.items():
        assert error <= 2 * peer[part], (part, error, peer[part])
