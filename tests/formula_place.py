"""The tensors of a trace by the names that the formula of one of them has for them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from minibert.verify.trace.format import Trace


class Place:
    """The tensors around one gradient, by the names that its formula has for them."""

    def __init__(self, trace: Trace, name: str) -> None:
        self.trace = trace
        self.run = "dropout/" if name.startswith("dropout/") else ""
        self.name = name.removeprefix(self.run).removeprefix("gradient/")
        found = re.match(r"bert\.(encoder\.layer\.(\d+)|embeddings)\.", self.name)
        self.prefix = found[0] if found else ""
        self.layer = int(found[2]) if found and found[2] else -1
        self.config = trace.about["config"]

    def input(self, name: str) -> Any:
        return self.trace.read(f"input/{name}")

    def ids(self, name: str) -> Any:
        return self.input(name).reshape(self.trace.mask.shape)

    def full(self, kind: str, short: str) -> str:
        """The entry of kind "activation", … that a formula of this place calls `short`."""
        for start in (self.prefix, "", f"{self.prefix}attention.self."):
            if f"{kind}/{start}{short}" in self.trace.entries:
                return start + short
        raise KeyError(f"{kind}/{short} at {self.name}")

    def weight(self, short: str) -> Any:
        return self.trace.read(f"weight/{self.full('weight', short)}")

    def d(self, short: str) -> Any:
        """The gradient of an activation: 0 where the loss does not see it."""
        name = self.full(f"{self.run}activation", short)
        gradient = f"{self.run}gradient/{name}"
        known = gradient in self.trace.entries
        return self.trace.read(gradient) if known else np.zeros_like(self(short))

    def __call__(self, short: str) -> Any:
        kind = f"{self.run}activation"
        match short:
            case "(the layer's input)":
                return self.hidden_state(self.layer)
            case "last hidden state":
                return self.hidden_state(self.config["num_hidden_layers"])
            case "(last hidden state of the first token)":
                return first_tokens(self, self("last hidden state"))
            case _:
                return self.trace.read(f"{kind}/{self.full(kind, short)}")

    def hidden_state(self, i: int) -> Any:
        entries = self.trace.entries.items()
        (name,) = (
            n for n, e in entries
            if n.startswith(f"{self.run}activation/") and f"hidden_states.{i}" in e.aliases
        )  # fmt: skip
        return self.trace.read(name)

    def at(self, i: int) -> Place:
        """The same in layer i."""
        return Place(self.trace, f"{self.run}gradient/bert.encoder.layer.{i}.output.LayerNorm")

    def kept(self, short: str) -> Any:
        """keep/(1 − p̂) of a dropout."""
        name = self.full("dropout/keep", short)
        p = self.trace.about["dropout"]["modules"][name]["p"]
        scale = 65536 / (65536 - min(round(p * 65536), 65535))
        return self.trace.read(f"dropout/keep/{name}") * scale

    def by_head(self, x: Any) -> Any:
        """(B, S, H) → (B, N, S, D)."""
        B, S, H = x.shape
        N = self.config["num_attention_heads"]
        return x.reshape(B, S, N, H // N).swapaxes(1, 2)

    def xhat(self, norm: str, x: str) -> Any:
        return (self(x) - self(f"{norm}.mean")[..., None]) * self(f"{norm}.rstd")[..., None]


def merged(x: Any) -> Any:
    """(B, N, S, D) → (B, S, H)."""
    B, N, S, D = x.shape
    return x.swapaxes(1, 2).reshape(B, S, N * D)


def flat(x: Any) -> Any:
    return x.reshape(-1, x.shape[-1])


def softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def first_tokens(t: Place, x: Any) -> Any:
    return x[np.arange(len(x)), t.trace.mask.argmax(axis=1)]


def summed_by(ids: Any, dy: Any, mask: Any, rows: int) -> Any:
    """Row i: the sum of dy (B, S, H) over the tokens of id i."""
    tokens = [(i, g) for i, g, m in zip(ids.flat, flat(dy), mask.flat, strict=True) if m]
    return np.array([sum((g for i, g in tokens if i == row), 0 * dy[0, 0]) for row in range(rows)])
