"""Linear: y = x Wᵀ + b."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, twinned


class LinearCache(NamedTuple):
    x: Array  # (T, I) for dW
    W: Array  # (O, I) for dx; a reference, not a copy


@twinned
def linear_forward(xp: Backend, x: Array, W: Array, b: Array) -> tuple[Array, LinearCache]:
    """x (T, I), W (O, I), b (O,) → y (T, O).

    W is stored (out, in), as in PyTorch and Hugging Face checkpoints.
    """
    y = xp.matmul(x, W.T)
    y += b
    return y, LinearCache(x, W)


@twinned
def linear_backward(xp: Backend, dy: Array, cache: LinearCache) -> tuple[Array, Array, Array]:
    """dy (T, O) → dx (T, I), dW (O, I), db (O,).

    y_to = Σᵢ x_ti W_oi + b_o, so

        dx_ti = Σₒ dy_to ∂y_to/∂x_ti = Σₒ dy_to W_oi        dx = dy W
        dW_oi = Σₜ dy_to x_ti                               dW = dyᵀ x
        db_o  = Σₜ dy_to                                    db = column sums of dy
    """
    dx = xp.matmul(dy, cache.W)
    dW = xp.matmul(dy.T, cache.x)
    db = xp.sum(dy, axis=0)
    return dx, dW, db
