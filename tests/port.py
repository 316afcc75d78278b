"""Somebody's BERT: a sequence classifier in plain PyTorch, as people write it, with one mistake.

Padded arrays, an added mask, autograd, PyTorch's own AdamW: nothing of minibert's computes here.
What a port hands in stands under a trace's names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from minibert.verify.trace.setup import Setup

ACTIVATIONS = {
    "SiLU": functional.silu,
    "ReLU": functional.relu,
    "Mish": functional.mish,
    "GELU by erf(x)": lambda x: x * (1 + x.erf()) / 2,
    "GELU by tanh, a digit lost": lambda x: (
        x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.44715 * x**3))
    ),
}
MASKS = {"mask of -1": -1.0, "mask of -10": -10.0, "mask of +10000": 10000.0}
BOTH = "heads neither split nor joined by a transposition"
UNSPLIT = {BOTH, "heads not split by a transposition"}
UNJOINED = {BOTH, "heads not joined by a transposition"}
DIVISORS = {
    "scores divided by √H": lambda H, D: math.sqrt(H),
    "scores not divided": lambda H, D: 1,
    "scores divided by 3": lambda H, D: 3,
    "query scaled before its bias": lambda H, D: 1,
}
OVER_QUERIES = {
    "softmax over the queries": None,
    "softmax over the queries, mask of -10000": -10000.0,
    "softmax over the queries, mask filled in": -1e9,
}
POSITIONS = {
    "positions from 1": lambda places, P: (places + 1).clip(max=P - 1),
    "positions from 2, wrapped": lambda places, P: (places + 2) % P,
}
EPS = {
    "eps of 1e-5": "",
    "eps of 1e-5 from layer 1 on": "layer.1.",
    "eps of 1e-5 in one norm": "layer.1.attention.output.LayerNorm",
    "eps of 1e-5 in the embeddings": "embeddings",
    "eps of 1e-5 in the encoder": "encoder",
}
"""Part of the names of the layer norms that have it."""
UNBIASED = {"no bias of the values": "self.value", "no bias of the classifier": "classifier"}
RATES = {"learning rate of 5e-5": 5e-5, "learning rate of 2e-3": 2e-3}
SCALES = {"dropout not scaled": lambda p: 1, "dropout scaled by 1/p": lambda p: 1 / p}
LAST = 1  # the number of the last layer


class Port:
    """`run` computes one step; `seen` holds what it saw on the way."""

    def __init__(
        self, setup: Setup, dtype: str, mistake: str = "", masks: Mapping[str, Any] | None = None
    ) -> None:
        """masks: what each dropout keeps, by its name; None: there is none."""
        self.setup, self.config, self.wrong = setup, setup.config, mistake
        self.masks = masks or {}
        self.dtype = getattr(torch, dtype)
        self.w = {
            name: torch.tensor(np.asarray(value), dtype=self.dtype, requires_grad=True)
            for name, value in setup.weights.items()
        }
        self.inputs = {name: torch.tensor(np.asarray(a)) for name, a in setup.inputs.items()}
        self.seen: dict[str, Any] = {}

    def keep(self, name: str, x: Any) -> Any:
        if x.requires_grad:
            x.retain_grad()
        self.seen[name] = x
        return x

    def dropped(self, name: str, x: Any) -> Any:
        """With the mask of this name, if there are masks."""
        if name not in self.masks:
            return x
        if self.wrong == f"no {name}":
            return self.keep(name, 1 * x)
        p = {"dropout": self.config.head_dropout}.get(name, self.config.hidden_dropout_prob)
        if name.endswith("self.dropout"):
            p = self.config.attention_probs_dropout_prob
        scale = SCALES.get(self.wrong, lambda p: 65536 / (65536 - round(65536 * p)))(p)
        return self.keep(name, x * torch.tensor(self.masks[name]) * scale)

    def linear(self, name: str, x: Any, weights: str = "") -> Any:
        if name.endswith("self.query") and self.wrong == "queries of two layers exchanged":
            weights = name.translate(str.maketrans("01", "10"))
        W, b = (self.w[f"{weights or name}.{kind}"] for kind in ("weight", "bias"))
        if name.endswith("layer.1.attention.self.key") and self.wrong == "a weight transposed":
            W = W.T
        if name.endswith("self.query") and self.wrong == "every query transposed":
            W = W.T
        if self.wrong == "weights read as (in, out)":
            W = W.reshape(W.shape[::-1]).T
        if UNBIASED.get(self.wrong, "nowhere") in name:
            b = 0
        if name.endswith("self.query") and self.wrong == "query scaled before its bias":
            W = W / math.sqrt(self.config.head_size)
        return self.keep(name, x @ W.T + b)

    def norm(self, name: str, x: Any, weights: str = "") -> Any:
        if "embeddings" in name and self.wrong == "no norm of the embeddings":
            return x
        self.keep(name.replace("LayerNorm", "sum" if "embeddings" in name else "residual"), x)
        gamma, beta = (self.w[f"{weights or name}.{kind}"] for kind in ("weight", "bias"))
        mean = x.mean(-1, keepdim=True)
        variance = x.var(-1, keepdim=True, unbiased=self.wrong == "sample variance")
        rstd = 1 / (variance + self.config.layer_norm_eps).sqrt()
        if EPS.get(self.wrong, "nowhere") in name:
            rstd = 1 / (variance + 1e-5).sqrt()
        if self.wrong == "eps beside the root":
            rstd = 1 / (variance.sqrt() + 1e-5)
        if self.wrong == "mean absolute deviation":
            rstd = 1 / (x - mean).abs().mean(-1, keepdim=True)
        if self.wrong == "norm's weight used as 1 + w":
            gamma = 1 + gamma
        self.seen[f"{name}.mean"], self.seen[f"{name}.rstd"] = mean[..., 0], rstd[..., 0]
        return self.keep(name, (x - mean) * rstd * gamma + beta)

    def lookup(self, name: str, ids: Any) -> Any:
        padding = self.config.pad_token_id if "word" in name else None
        if self.wrong == "no padding_idx":
            padding = None
        table = self.w[f"bert.embeddings.{name}_embeddings.weight"]
        return self.keep(
            f"bert.embeddings.{name}_embeddings", functional.embedding(ids, table, padding)
        )

    def embeddings(self) -> Any:
        ids, types = self.inputs["input_ids"], self.inputs["token_type_ids"]
        places = torch.arange(ids.shape[1])
        if self.wrong in POSITIONS:
            places = POSITIONS[self.wrong](places, self.config.max_position_embeddings)
        x = self.lookup("word", ids)
        if self.wrong == "word embeddings times √H":
            x = x * math.sqrt(self.config.hidden_size)
        if self.wrong != "no position embeddings":
            x = x + self.lookup("position", places)[None]
        x = x + self.lookup("token_type", 0 * types if self.wrong == "no token types" else types)
        if self.wrong == "embeddings times √H":
            x = x * math.sqrt(self.config.hidden_size)
        return self.dropped("bert.embeddings.dropout", self.norm("bert.embeddings.LayerNorm", x))

    def attention(self, name: str, x: Any, weights: str) -> Any:
        (B, S, H), N = x.shape, self.config.num_attention_heads
        N = 1 if self.wrong == "one head" else N
        D, keep = H // N, self.keep if self.wrong != "one head" else lambda name, x: x

        def split(y: Any) -> Any:
            if self.wrong in UNSPLIT:
                return y.reshape(B, N, S, D)
            return y.reshape(B, S, N, D).transpose(1, 2)

        q, k, v = (
            split(self.linear(f"{name}.{part}", x, f"{weights}.{part}"))
            for part in ("query", "key", "value")
        )
        divisor = DIVISORS.get(self.wrong, lambda H, D: math.sqrt(D))(H, D)
        scores = keep(f"{name}.scores", q @ k.transpose(-1, -2) / divisor)
        probs = self.masked(scores).softmax(-2 if self.wrong in OVER_QUERIES else -1)
        if self.wrong == "probabilities masked after the softmax":
            probs = probs * self.inputs["attention_mask"][:, None, None, :]
        probs = self.dropped(f"{name}.dropout", keep(f"{name}.probs", probs))
        context = probs @ v
        if self.wrong not in UNJOINED:
            context = context.transpose(1, 2)
        return self.keep(f"{name}.context", context.reshape(B, S, H))

    def masked(self, scores: Any) -> Any:
        """Where the padding is masked, in the usual way or in a wrong one."""
        keep = self.inputs["attention_mask"][:, None, None, :].to(self.dtype)
        S = scores.shape[-1]
        if self.wrong == "mask of the first row":
            keep = keep[:1]
        if self.wrong == "causal mask":
            causal = torch.ones(S, S).tril().bool()
            return scores.masked_fill(~causal | (keep == 0), -math.inf)
        if self.wrong in ("no mask", "probabilities masked after the softmax"):
            return scores
        if self.wrong == "mask on the queries":
            return scores.masked_fill(keep.transpose(-1, -2) == 0, -1e9)
        if self.wrong == "softmax over the queries, mask filled in":
            return scores.masked_fill(keep == 0, OVER_QUERIES[self.wrong])
        if self.wrong == "mask inverted, added":
            return scores + keep * -10000.0
        if self.wrong == "mask inverted, filled":
            return scores.masked_fill(keep == 1, -1e9)
        if self.wrong == "mask multiplied":
            return scores * keep
        added = MASKS.get(self.wrong) or OVER_QUERIES.get(self.wrong)
        return scores + (1 - keep) * (added or torch.finfo(self.dtype).min)

    def layer(self, i: int, x: Any) -> Any:
        name = f"bert.encoder.layer.{i}."
        other = f"bert.encoder.layer.{0 if self.wrong == 'layer 0 everywhere' else i}."
        first, second = "attention.output.LayerNorm", "output.LayerNorm"
        if self.wrong == "norms before the sub-layers":
            h = x + self.attended(name, other, self.norm(name + first, x))
            return h + self.fed_forward(name, other, self.norm(name + second, h))
        if self.wrong == "norms before the residual":
            h = x + self.norm(name + first, self.attended(name, other, x))
            return h + self.norm(name + second, self.fed_forward(name, other, h))
        residual = 0 if self.wrong == "no residual after attention" else x
        h = self.norm(name + first, self.attended(name, other, x) + residual, other + first)
        residual = 0 if self.wrong == "no residual after feed-forward" else h
        if self.wrong == "no residual in the last layer" and i == LAST:
            residual = 0
        if self.wrong == "the layer's input twice":
            residual = x
        f = self.fed_forward(name, other, h)
        return self.norm(name + second, f + residual, other + second)

    def attended(self, name: str, other: str, x: Any) -> Any:
        a = self.attention(f"{name}attention.self", x, f"{other}attention.self")
        a = self.linear(f"{name}attention.output.dense", a, f"{other}attention.output.dense")
        return self.dropped(f"{name}attention.output.dropout", a)

    def fed_forward(self, name: str, other: str, h: Any) -> Any:
        f = self.linear(f"{name}intermediate.dense", h, f"{other}intermediate.dense")
        gelu = ACTIVATIONS.get(self.wrong, functional.gelu)
        approximate = {"approximate": "tanh"} if self.wrong == "GELU by tanh" else {}
        f = self.keep(f"{name}intermediate", gelu(f, **approximate))
        f = self.linear(f"{name}output.dense", f, f"{other}output.dense")
        return self.dropped(f"{name}output.dropout", f)

    def pooled(self, x: Any) -> Any:
        mask = self.inputs["attention_mask"]
        rows = torch.arange(len(mask))
        first = {
            "pooler on the last token": x[rows, mask.sum(1) - 1],
            "pooler on the last column": x[:, -1],
            "pooler on the mean": (x * mask[..., None]).sum(1) / mask.sum(1)[:, None],
            "pooler on the mean with padding": x.mean(1),
        }.get(self.wrong, x[:, 0])
        z = self.linear("bert.pooler.dense", first)
        return self.keep("bert.pooler", z if self.wrong == "pooler without tanh" else z.tanh())

    def loss(self) -> Any:
        x = self.embeddings()
        for i in range(self.config.num_hidden_layers):
            x = self.layer(i, x)
        pooled = self.dropped("dropout", self.pooled(x))
        logits = self.keep("logits", self.linear("classifier", pooled))
        labels, K = self.inputs["labels"], logits.shape[-1]
        smoothing = 0.1 if self.wrong == "label smoothing" else 0.0
        if self.wrong == "label smoothing of the others":
            rows, classes = (
                functional.one_hot(labels.clip(0), K).to(self.dtype),
                1 - 0.1 - 0.1 / (K - 1),
            )
            target = rows * classes + 0.1 / (K - 1)
            each = -(target * logits.log_softmax(-1)).sum(-1)[labels >= 0]
            return self.keep("loss", each.mean())
        if self.wrong == "softmax before the loss":
            logits = logits.softmax(-1)
        reduction = "sum" if self.wrong == "loss summed" else "mean"
        return self.keep("loss", functional.cross_entropy(
            logits, labels, label_smoothing=smoothing, reduction=reduction))  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Activations and gradients."""
        if self.wrong == "gradients of two runs":
            self.loss().backward()
        (self.loss() * (1024 if self.wrong == "loss scale left in" else 1)).backward()
        found = {f"activation/{name}": x.detach().numpy() for name, x in self.seen.items()}
        for name, x in {**self.seen, **self.w}.items():
            if (x.is_leaf or x.retains_grad) and x.grad is not None and name != "loss":
                found[f"gradient/{name}"] = x.grad.numpy().copy()
        for name in self.w.keys() & {n for n in self.w if f"gradient/{n}" not in found}:
            found[f"gradient/{name}"] = np.zeros(self.w[name].shape)
        return found

    def train(self) -> dict[str, Any]:
        """Parameters and moments under AdamW, each parameter by its name."""
        recipe, found = self.setup.recipe, {}
        late = self.wrong in ("no decay", "decay after the step")
        wd = 0.0 if late else recipe.weight_decay
        decayed = [w for n, w in self.w.items() if not n.endswith("bias") and "LayerNorm" not in n]
        rest = [w for n, w in self.w.items() if n.endswith("bias") or "LayerNorm" in n]
        groups = [
            {"params": decayed, "weight_decay": wd},
            {"params": rest, "weight_decay": wd if self.wrong == "decay on everything" else 0.0},
        ]
        if self.wrong == "decay on the rest alone":
            groups[0]["weight_decay"], groups[1]["weight_decay"] = 0.0, wd
        lr = RATES.get(self.wrong, recipe.lr)
        kind = torch.optim.Adam if self.wrong == "Adam for AdamW" else torch.optim.AdamW
        optimizer = kind(groups, lr=lr, eps=recipe.eps, betas=(recipe.beta1, recipe.beta2),
                         maximize=self.wrong == "uphill",
                         amsgrad=self.wrong == "AMSGrad")  # fmt: skip
        for step in range(1, max(recipe.steps) + 1):
            optimizer.zero_grad()
            self.loss().backward()
            if self.wrong == "clipped by the norm alone":
                gradients = [w.grad for w in self.w.values() if w.grad is not None]
                norm = torch.cat([g.flatten() for g in gradients]).norm()
                for gradient in gradients:
                    gradient.mul_(min(1.0, float(recipe.max_norm / norm)))
            elif self.wrong != "no clipping":
                torch.nn.utils.clip_grad_norm_(self.w.values(), recipe.max_norm)
            self.miscorrect(optimizer, step)
            optimizer.step()
            if self.wrong == "decay after the step":
                with torch.no_grad():
                    for w in decayed:
                        w.mul_(1 - lr * recipe.weight_decay)
            if step in recipe.steps:
                for name, w in self.w.items():
                    state = optimizer.state.get(w, {})
                    where = f"training/adamw_torch/step_{step}"
                    found[f"{where}/parameters/{name}"] = w.detach().numpy().copy()
                    if "exp_avg" in state:
                        found[f"{where}/m/{name}"] = state["exp_avg"].numpy().copy()
                        found[f"{where}/v/{name}"] = state["exp_avg_sq"].numpy().copy()
        return found

    def miscorrect(self, optimizer: Any, step: int) -> None:
        """One moment keeps its bias: a factor of the step, and not of the decay."""
        r = self.setup.recipe
        second = 1 / math.sqrt(1 - r.beta2**step)
        factor, eps = {
            "first moment alone corrected": (second, second * r.eps),
            "second moment alone corrected": (1 - r.beta1**step, r.eps),
        }.get(self.wrong, (None, None))
        for group in optimizer.param_groups if factor else ():
            decay = r.weight_decay / factor if group["weight_decay"] else 0.0
            group.update(lr=r.lr * factor, eps=eps, weight_decay=decay)
