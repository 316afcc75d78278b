"""Optimizers and gradient clipping over one flat parameter buffer.

A rule (`adamw_torch`, `adam_google`, …) is a pure in-place function on 1-D arrays: the equations.
`Optimizer` owns the moments and decides in which pieces, on which threads, the rule runs.

On the CPU a step is limited by memory, so a rule sees one block at a time: all its passes find the
block in the cache, and each number crosses the memory bus once. On a GPU a block is the buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from .errors import CheckpointError, InputError
from .parallel import Workers

Array = Any  # an array of whichever library `xp` is
Item = TypeVar("Item")
Result = TypeVar("Result")

BLOCK = 1 << 17  # elements; smaller ones fit L2 better, but pass the interpreter's lock more often
ROW = 1024  # elements of a sum of squares that are added in the array's own dtype
FLUSH_EVERY = 64  # steps; see `flush_denormals`


class Hyper(NamedTuple):
    """The scalars of one step. `step` counts from 1; `scale` multiplies the gradient."""

    lr: float
    scale: float | Array  # a 0-d array on a GPU, so that clipping needs no host transfer
    step: int
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    momentum: float


# ---- The rules: p, g, m, v are (n,), scratch is (rows, n); p, m and v are updated in place. ----


def adamw_torch(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """AdamW as in torch.optim.AdamW (Loshchilov & Hutter 2019): decay first, bias corrected.

    p ← (1 - lr·wd)·p
    p ← p - lr · m̂ / (√v̂ + eps),   m̂ = m / (1 - beta1^t),   v̂ = v / (1 - beta2^t)
    """
    _moments(xp, g, m, v, h, h.scale, scratch[0])
    _decay(xp, p, h)
    _descend_corrected(xp, p, m, v, h, scratch[0])


def adamw_hf(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """AdamW as in transformers before version 5: eps outside the correction, decay last.

    p ← p - lr · √(1 - beta2^t) / (1 - beta1^t) · m / (√v + eps)
    p ← (1 - lr·wd)·p
    """
    _moments(xp, g, m, v, h, h.scale, scratch[0])
    rate = h.lr * math.sqrt(1 - h.beta2**h.step) / (1 - h.beta1**h.step)
    _descend(xp, p, m, v, rate, h.eps, scratch[0])
    _decay(xp, p, h)


def adam_google(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """AdamWeightDecayOptimizer of google-research/bert optimization.py: no bias correction.

    p ← p - lr · (m / (√v + eps) + wd·p)   =   (1 - lr·wd)·p - lr · m / (√v + eps)
    """
    _moments(xp, g, m, v, h, h.scale, scratch[0])
    _decay(xp, p, h)
    _descend(xp, p, m, v, h.lr, h.eps, scratch[0])


def adam(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """Adam with L2 regularisation as in torch.optim.Adam (Kingma & Ba 2015).

    g ← g + wd·p, then `adamw_torch` without decay. The penalty passes through the moments.
    """
    penalised, penalty = scratch[0], scratch[1]
    xp.multiply(g, h.scale, out=penalised)
    if h.weight_decay:
        xp.multiply(p, h.weight_decay, out=penalty)
        xp.add(penalised, penalty, out=penalised)
    _moments(xp, penalised, m, v, h, 1.0, penalised)
    _descend_corrected(xp, p, m, v, h, penalised)


def sgd(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """Gradient descent with momentum and L2 as in torch.optim.SGD; `v` is empty.

    m ← momentum·m + g + wd·p;   p ← p - lr·m
    """
    s = scratch[0]
    xp.multiply(m, h.momentum, out=m)
    xp.multiply(g, h.scale, out=s)
    xp.add(m, s, out=m)
    if h.weight_decay:
        xp.multiply(p, h.weight_decay, out=s)
        xp.add(m, s, out=m)
    xp.multiply(m, h.lr, out=s)
    xp.subtract(p, s, out=p)


class Rule(NamedTuple):
    """A rule and the memory it needs."""

    update: Callable[[Any, Array, Array, Array, Array, Hyper, Array], None]
    second_moment: bool
    scratch_rows: int


RULES = {
    "adamw_torch": Rule(adamw_torch, second_moment=True, scratch_rows=1),
    "adamw_hf": Rule(adamw_hf, second_moment=True, scratch_rows=1),
    "adam_google": Rule(adam_google, second_moment=True, scratch_rows=1),
    "adam": Rule(adam, second_moment=True, scratch_rows=2),
    "sgd": Rule(sgd, second_moment=False, scratch_rows=1),
}


# ---- What the rules share. Scalars are folded first: a pass over the block is what costs. ----


def _moments(
    xp: Any, g: Array, m: Array, v: Array, h: Hyper, scale: float | Array, s: Array
) -> None:
    """Update m ← beta1·m + (1 - beta1)·g and v ← beta2·v + (1 - beta2)·g², with g·scale for g.

    `s` may be `g`. It holds (1 - beta1)·g first, and its square serves v.
    """
    xp.multiply(g, scale * (1 - h.beta1), out=s)
    xp.multiply(m, h.beta1, out=m)
    xp.add(m, s, out=m)
    xp.multiply(s, s, out=s)
    xp.multiply(s, (1 - h.beta2) / (1 - h.beta1) ** 2, out=s)
    xp.multiply(v, h.beta2, out=v)
    xp.add(v, s, out=v)


def _descend(xp: Any, p: Array, m: Array, v: Array, rate: float, eps: float, s: Array) -> None:
    """Step p ← p - rate · m / (√v + eps)."""
    xp.sqrt(v, out=s)
    xp.add(s, eps, out=s)
    xp.divide(m, s, out=s)
    xp.multiply(s, rate, out=s)
    xp.subtract(p, s, out=p)


def _descend_corrected(xp: Any, p: Array, m: Array, v: Array, h: Hyper, s: Array) -> None:
    """Step p ← p - lr · m̂ / (√v̂ + eps), both fractions multiplied by c = √(1 - beta2^t).

    lr · (m / (1 - beta1^t)) / (√v / c + eps)   =   lr·c / (1 - beta1^t) · m / (√v + c·eps)
    """
    c = math.sqrt(1 - h.beta2**h.step)
    _descend(xp, p, m, v, h.lr * c / (1 - h.beta1**h.step), c * h.eps, s)


def _decay(xp: Any, p: Array, h: Hyper) -> None:
    """Shrink p ← (1 - lr·wd)·p; do nothing at all without weight decay."""
    if h.weight_decay:
        xp.multiply(p, 1 - h.lr * h.weight_decay, out=p)


def flush_denormals(xp: Any, m: Array) -> None:
    """Round m to a multiple of about 1e-37 (float32), so that what decays ends as an exact 0.

    The momentum of a word not seen for some 800 steps decays to denormal numbers and stays there:
    rounding keeps 0.9·x at x. CPUs compute with them many times slower. The update they cause is
    below 1e-29·lr, far under the resolution of any parameter.
    """
    xp.add(m, 1e-30, out=m)
    xp.subtract(m, 1e-30, out=m)


# ---- Optimizer ----


class Optimizer:
    """One of `RULES` over a flat buffer, updated in place.

    Args:
        xp: array module or backend of `parameters`.
        parameters: (P,) float32 or float64, contiguous; kept by reference.
        decayed: weight decay applies to parameters[:decayed) only.
        rule: a name in `RULES`. Google's BERT is "adam_google" with eps 1e-6, weight_decay 0.01.
        weight_decay, beta1, beta2, eps: as in the rule's equations; `momentum` is for "sgd".
        workers: threads for the CPU; all cores by default. The result has the same bytes for any
            number of them.

    Raises InputError for an unknown rule, a hyperparameter out of range or an unfit buffer.
    """

    def __init__(
        self,
        xp: Any,
        parameters: Array,
        decayed: int,
        *,
        rule: str = "adamw_torch",
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        momentum: float = 0.9,
        workers: Workers | None = None,
    ) -> None:
        _check_buffer(parameters, decayed)
        _check_hyper(rule, weight_decay, beta1, beta2, eps, momentum)
        self.parameters, self.rule, self.steps = parameters, rule, 0
        self._hyper = Hyper(0.0, 1.0, 0, weight_decay, beta1, beta2, eps, momentum)
        self._xp, self._host = xp, _on_host(parameters)
        self._workers = (workers or Workers()) if self._host else Workers(1)
        size, dtype = parameters.size, parameters.dtype
        # zeros, not zeros_like: the system hands out zeroed pages when they are first touched.
        self.m = xp.zeros(size, dtype=dtype)
        self.v = xp.zeros(size if RULES[rule].second_moment else 0, dtype=dtype)
        # The decayed part ends a block, so that no block needs two kinds of arithmetic.
        block = BLOCK if self._host else max(size, 1)
        self._blocks = [(part, True) for part in _blocks(0, decayed, block)]
        self._blocks += [(part, False) for part in _blocks(decayed, size, block)]
        widest = max((part.stop - part.start for part, _ in self._blocks), default=0)
        shape = (RULES[rule].scratch_rows, widest)
        self._scratch = [xp.empty(shape, dtype=dtype) for _ in range(self._workers.threads)]

    def step(self, gradient: Array, lr: float, scale: float | Array = 1.0) -> None:
        """Update the parameters in place by `gradient` (P,), which is left as it is.

        lr: the learning rate of this step. scale: multiplies the gradient on the fly, see
        `clip_scale`; a number, or a 0-d array on the parameters' device, which is not read back.
        """
        self._check_step(gradient, lr)
        self.steps += 1
        h = self._hyper._replace(lr=float(lr), step=self.steps)
        # A NumPy float64 scalar would widen every float32 product; a Python float does not.
        h = h._replace(scale=float(scale) if self._host else scale)
        undecayed = h._replace(weight_decay=0.0)
        update, flush = RULES[self.rule].update, self.steps % FLUSH_EVERY == 0

        def run(block: tuple[slice, bool], worker: int) -> None:
            part, decays = block
            p, g, m, v = self.parameters[part], gradient[part], self.m[part], self.v[part]
            scratch = self._scratch[worker][:, : part.stop - part.start]
            update(self._xp, p, g, m, v, h if decays else undecayed, scratch)
            if flush:
                flush_denormals(self._xp, m)

        _spread(self._workers, self._blocks, run)

    def state_dict(self) -> dict[str, Any]:
        """{"step": int, "m": (P,), "v": (P,), or (0,) for "sgd"}: the live arrays, not copies."""
        return {"step": self.steps, "m": self.m, "v": self.v}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy in a state of the same rule, shapes and dtype; host arrays may go to a GPU.

        Raises CheckpointError, and changes nothing, where the state does not fit.
        """
        if missing := [name for name in ("step", "m", "v") if name not in state]:
            raise CheckpointError(f"the optimizer's state lacks {', '.join(missing)}")
        step = state["step"]
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise CheckpointError(f"the optimizer's step must be an integer ≥ 0, got {step!r}")
        for name in ("m", "v"):
            got, want = state[name], getattr(self, name)
            if (got.shape, got.dtype) != (want.shape, want.dtype):
                raise CheckpointError(
                    f"the optimizer's {name} is {got.dtype} {got.shape}, but {self.rule} on this "
                    f"model needs {want.dtype} {want.shape}: resume with the model, the rule and "
                    "the dtype that the checkpoint was made with"
                )
        self.steps = step
        self.m[:] = self._xp.asarray(state["m"])
        self.v[:] = self._xp.asarray(state["v"])

    def _check_step(self, gradient: Array, lr: float) -> None:
        want = self.parameters
        if gradient.shape != want.shape or gradient.dtype != want.dtype:
            raise InputError(
                f"the gradient is {gradient.dtype} {gradient.shape}, "
                f"but the parameters are {want.dtype} {want.shape}: it must be their twin"
            )
        if not 0 <= lr < math.inf:
            raise InputError(f"the learning rate must be a finite number ≥ 0, got {lr}")


def _check_buffer(parameters: Array, decayed: int) -> None:
    flat = parameters.ndim == 1 and parameters.flags.c_contiguous
    if not flat or str(parameters.dtype) not in ("float32", "float64"):
        raise InputError(
            "the optimizer needs one contiguous 1-D buffer of float32 or float64, "
            f"got {parameters.dtype} {parameters.shape}"
        )
    if not 0 <= decayed <= parameters.size:
        raise InputError(f"decayed must be within 0…{parameters.size}, got {decayed}")


def _check_hyper(
    rule: str, weight_decay: float, beta1: float, beta2: float, eps: float, momentum: float
) -> None:
    if rule not in RULES:
        raise InputError(f"unknown optimizer {rule!r}: choose one of {', '.join(RULES)}")
    for name, value in (("beta1", beta1), ("beta2", beta2), ("momentum", momentum)):
        if not 0 <= value < 1:
            raise InputError(f"{name} must be at least 0 and below 1, got {value}")
    if not 0 < eps < math.inf:
        raise InputError(f"eps must be positive (it divides where v is 0), got {eps}")
    if not 0 <= weight_decay < math.inf:
        raise InputError(f"weight_decay must be a finite number ≥ 0, got {weight_decay}")


# ---- The global norm, and clipping by it ----


def sum_into(xp: Any, target: Array, others: Sequence[Array], workers: Workers) -> float | Array:
    """Add each of `others` to `target`, in their order; return the global norm of the sum.

    All arrays are (P,) of one dtype. Each block is summed and measured while it is in the cache.
    Returns a float on the CPU, the same for any number of threads: squares are added up in the
    arrays' dtype within a row of 1024, in float64 and in order over the rows. On a GPU returns a
    0-d array of the arrays' dtype, without waiting for it.
    """
    for other in others:
        if other.shape != target.shape or other.dtype != target.dtype:
            raise InputError(
                f"cannot add {other.dtype} {other.shape} to {target.dtype} {target.shape}"
            )

    def add(part: slice) -> Array:
        block = target[part]
        for other in others:
            xp.add(block, other[part], out=block)
        return block

    def add_and_square(part: slice, _worker: int) -> float:
        return _sum_of_squares(xp, add(part))

    if not _on_host(target):
        whole = add(slice(None))
        return xp.sqrt(xp.dot(whole, whole))
    return math.sqrt(sum(_spread(workers, _blocks(0, target.size, BLOCK), add_and_square)))


def _sum_of_squares(xp: Any, block: Array) -> float:
    """Σ block² in rows: BLAS splits a long dot product over its threads, and the split shows."""
    rows = block[: block.size // ROW * ROW].reshape(-1, ROW)
    rest = block[rows.size :]
    return float(xp.vecdot(rows, rows).sum(dtype="float64")) + float(xp.vecdot(rest, rest))


def global_norm(xp: Any, flat: Array, workers: Workers) -> float | Array:
    """√Σ flat², for `flat` (P,); what it returns, and how exactly, stands at `sum_into`."""
    return sum_into(xp, flat, (), workers)


def clip_scale(norm: float | Array, max_norm: float) -> float | Array:
    """min(1, max_norm / (norm + 1e-6)): the `scale` that clips a gradient of this global norm.

    The formula of torch.nn.utils.clip_grad_norm_. `norm` is a float or a 0-d array on a GPU, and
    so is the result. A NaN stays NaN.
    """
    if not max_norm > 0:
        raise InputError(f"max_norm must be positive, got {max_norm}: without clipping, scale is 1")
    scale = max_norm / (norm + 1e-6)
    return min(scale, 1.0) if isinstance(scale, float) else scale.clip(None, 1.0)


# ---- Blocks and threads ----


def _on_host(array: Array) -> bool:
    """The array API's word for host memory; a GPU array's device is an object."""
    return bool(array.device == "cpu")


def _blocks(start: int, stop: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, stop)) for at in range(start, stop, size)]


def _spread(
    workers: Workers, items: Sequence[Item], function: Callable[[Item, int], Result]
) -> list[Result]:
    """`[function(item, worker)]` in the order of the items; a worker takes one span of them.

    One job a worker, not one an item: there are thousands of blocks, and a job costs 15 µs.
    """
    count = min(workers.threads, len(items))
    bounds = [worker * len(items) // max(count, 1) for worker in range(count + 1)]

    def run(worker: int) -> list[Result]:
        span = items[bounds[worker] : bounds[worker + 1]]
        return [function(item, worker) for item in span]

    return [result for span in workers.map(run, range(count)) for result in span]
