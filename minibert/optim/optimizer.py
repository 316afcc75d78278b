"""The optimizer: one rule over the flat parameter buffer, with its moments and its blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from minibert.backend import Array, Backend
from minibert.errors import CheckpointError, InputError
from minibert.optim.blocks import BLOCK, blocks, on_host, spread
from minibert.optim.lamb import lamb_step, parts_of
from minibert.optim.rules import RULES, Hyper, flush_denormals
from minibert.parallel import Workers

FLUSH_EVERY = 64  # steps; see `flush_denormals`


class Optimizer:
    """One of `RULES` over a flat buffer, updated in place.

    Args:
        xp: array module or backend of `parameters`.
        parameters: (P,) float32 or float64, contiguous; kept by reference.
        decayed: weight decay applies to parameters[:decayed) only.
        rule: a name in `RULES`. Google's BERT is "adam_google" with eps 1e-6, weight_decay 0.01.
        weight_decay, beta1, beta2, eps: as in the rule's equations; `momentum` is for "sgd".
        tensors: where each tensor begins, for "lamb" (default: all that decays is one).
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
        tensors: Sequence[int] = (),
        workers: Workers | None = None,
    ) -> None:
        _check_buffer(parameters, decayed)
        _check_hyper(rule, weight_decay, beta1, beta2, eps, momentum)
        self.parameters, self.rule, self.steps = parameters, rule, 0
        self._hyper = Hyper(0.0, 1.0, 0, weight_decay, beta1, beta2, eps, momentum)
        self._xp, self._host, self._decayed = xp, on_host(parameters), decayed
        backend = isinstance(xp, Backend)
        self._fused = xp.fused_update(rule, parameters.dtype) if backend else None
        self._workers = (workers or Workers()) if self._host else Workers(1)
        size, dtype = parameters.size, parameters.dtype
        # zeros, not zeros_like: the system hands out zeroed pages when they are first touched.
        self.m = xp.zeros(size, dtype=dtype)
        self.v = xp.zeros(size if RULES[rule].second_moment else 0, dtype=dtype)
        # The decayed part ends a block, so that no block needs two kinds of arithmetic.
        block = BLOCK if self._host else max(size, 1)
        self._blocks = [(part, True) for part in blocks(0, decayed, block)]
        self._blocks += [(part, False) for part in blocks(decayed, size, block)]
        self._parts = parts_of(tensors, decayed, size, self._host)
        places = [part for part, _ in self._blocks] + [part.place for part in self._parts]
        widest = max((place.stop - place.start for place in places), default=0)
        shape = (RULES[rule].scratch_rows, 0 if self._fused else widest)
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
        flush = self.steps % FLUSH_EVERY == 0
        update = RULES[self.rule].update
        if self._fused is not None:
            p, m, v = self.parameters, self.m, self.v
            self._fused(self._xp, self.rule, p, gradient, m, v, h, self._decayed)
            if flush:
                flush_denormals(self._xp, m)
            return
        if update is None:
            lamb_step(
                self._xp, self._parts, self.parameters, gradient, self.m, self.v, h,
                self._scratch, self._workers,
            )  # fmt: skip
            if flush:
                flush_denormals(self._xp, self.m)
            return
        undecayed = h._replace(weight_decay=0.0)

        def run(block: tuple[slice, bool], worker: int) -> None:
            part, decays = block
            p, g, m, v = self.parameters[part], gradient[part], self.m[part], self.v[part]
            scratch = self._scratch[worker][:, : part.stop - part.start]
            update(self._xp, p, g, m, v, h if decays else undecayed, scratch)
            if flush:
                flush_denormals(self._xp, m)

        spread(self._workers, self._blocks, run)

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
