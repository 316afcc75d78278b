"""What all models share: loading and saving, packing, shards and workers.

A model class says three things: the shapes of its head, and the head's forward and backward for
one shard of a batch. Everything else is here, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from minibert.backend import Array, Backend, get_backend
from minibert.checkpoint import LoadReport, load_checkpoint, save_checkpoint
from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.layers.dropout import DropoutKey
from minibert.models.encoder import EncoderCache, EncoderWeights, encoder_shapes, encoder_weights
from minibert.models.initialization import initialize
from minibert.packing import PackedBatch, pack, split, unpack
from minibert.parallel import Turn, Turns, Workers
from minibert.parameters import Layout, Parameters, accumulate

DTYPES = ("float32", "float64")


@dataclass
class ModelOutput:
    """What a model returns; a field that does not apply, or was not asked for, is None.

    Arrays belong to the model's backend, in Hugging Face's padded shapes, zero at padding.
    """

    loss: Array | None = None  # ()
    logits: Array | None = None  # (B, K)
    last_hidden_state: Array | None = None  # (B, S, H)
    pooler_output: Array | None = None  # (B, H)
    hidden_states: tuple[Array, ...] | None = None  # L + 1 of (B, S, H)
    attentions: tuple[Array, ...] | None = None  # L of (B, N, S, S)


class Run(NamedTuple):
    """One training step of one run: what dropout masks depend on, besides the place."""

    seed: int
    step: int

    def key(self, first_row: int) -> DropoutKey:
        """The key at the first site, for a shard whose rows begin at `first_row`."""
        return DropoutKey(self.seed, self.step, 0, first_row)


class Weights(NamedTuple):
    """A model's parameters, or their gradients, as the layers take them."""

    encoder: EncoderWeights
    head: Any  # the model's own NamedTuple


class GradientSum:
    """The common gradients, to which each shard adds its own when it is its turn."""

    def __init__(self, weights: Weights, turn: Turn) -> None:
        self.weights = weights
        self._turn = turn

    def add(self, targets: Any, gradients: Any) -> None:
        """targets += gradients, two tuples alike; every shard adds the same pieces in one order."""
        with self._turn.next_piece():
            accumulate(targets, gradients)


class ShardResult(NamedTuple):
    """What one shard's forward gives, packed."""

    rows: dict[str, Array]  # fields of ModelOutput with a row for each sequence: logits, …
    last_hidden: Array  # (T, H)
    cache: Any  # for the backward; `cache.encoder` is the encoder's
    loss: Array | None = None  # this shard's part of the batch's loss


class BertPreTrainedModel:
    """The base of all models: see the module's first lines."""

    Head: ClassVar[type]
    """A NamedTuple of the head's arrays."""

    head: ClassVar[dict[str, str]]
    """For each field of `Head`: parameter name → shape in the letters H (hidden), K (labels)."""

    def __init__(
        self,
        config: BertConfig,
        *,
        backend: str | Backend = "auto",
        dtype: str = "float32",
        seed: int = 0,
        threads: int | None = None,
        arrays: dict[str, Any] | None = None,
    ) -> None:
        """A model with random weights, as Hugging Face draws them, or with these host `arrays`.

        `backend`: "numpy", "cupy" or "auto"; `dtype`: "float32" or "float64"; `threads`: workers
        on the CPU (default: all cores).
        """
        if dtype not in DTYPES:
            raise InputError(f"dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
        self.config = config
        self.xp = get_backend(backend)
        self.workers = Workers(threads if self.xp.name == "numpy" else 1)
        self.load_report: LoadReport | None = None
        layout = Layout(self.shapes(config))
        arrays = dict(arrays or {})
        for name, shape in layout.shapes.items():
            if name not in arrays:
                arrays[name] = initialize(name, shape, config, seed)
            arrays[name] = self.xp.to_device(arrays[name], dtype)
        self.parameters = Parameters(self.xp, layout, arrays)
        self._bound: tuple[bool, Weights] | None = None

    # ---- In and out of directories ----

    @classmethod
    def from_pretrained(
        cls,
        name_or_directory: str | Path,
        *,
        backend: str | Backend = "auto",
        dtype: str = "float32",
        seed: int = 0,
        threads: int | None = None,
        ignore_mismatched_sizes: bool = False,
        **config_changes: Any,
    ) -> Self:
        """A model from a local directory or a hub name; its `load_report` says what was found.

        Parameters that the checkpoint lacks (a new head) are drawn with `seed`. Further keyword
        arguments change the configuration: num_labels, id2label, problem_type,
        hidden_dropout_prob, …  On the CPU, float32 weights stay memory-mapped until training.
        """
        from minibert.hub import resolve_model

        directory = resolve_model(str(name_or_directory))
        config = BertConfig.from_pretrained(directory).replace(**config_changes)
        arrays, report = load_checkpoint(
            directory, cls.shapes(config), ignore_mismatched_sizes=ignore_mismatched_sizes
        )
        model = cls(config, backend=backend, dtype=dtype, seed=seed, threads=threads, arrays=arrays)
        model.load_report = report
        return model

    def save_pretrained(
        self, directory: str | Path, *, tokenizer: Any = None, card: str | None = None
    ) -> None:
        """Write a directory that minibert and transformers load; see `save_checkpoint`."""
        arrays = {name: self.xp.to_host(array) for name, array in self.parameters.items()}
        config = self.config.replace(architectures=(type(self).__name__,))
        save_checkpoint(Path(directory), config, arrays, tokenizer=tokenizer, card=card)

    @classmethod
    def shapes(cls, config: BertConfig) -> dict[str, tuple[int, ...]]:
        """Every parameter: Hugging Face's name → shape."""
        sizes = {"H": config.hidden_size, "K": config.num_labels}
        head = {name: tuple(sizes[s] for s in letters) for name, letters in cls.head.items()}
        return encoder_shapes(config) | head

    # ---- Forward, and forward with backward, in Hugging Face's padded convention ----

    def __call__(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ModelOutput:
        """Evaluate (B, S) ids, without dropout; the loss too where labels are given.

        Raises InputError for ids out of range, sequences longer than the position table, labels
        of the wrong shape, …
        """
        batch = pack(input_ids, attention_mask, token_type_ids, labels)
        return self.forward(
            batch,
            length=np.shape(input_ids)[1],
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )

    def loss_and_gradients(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        *,
        dropout: Run | tuple[int, int] | None = None,
    ) -> tuple[ModelOutput, dict[str, Array]]:
        """The output with its loss, and the gradient of every parameter under its HF name.

        `dropout=(seed, step)` turns dropout on, with the masks of that training step.
        """
        batch = pack(input_ids, attention_mask, token_type_ids, labels)
        gradients = self.parameters.zeros_like()
        run = None if dropout is None else Run(*dropout)
        output = self.accumulate_gradients(batch, gradients, run)
        return output, dict(gradients)

    # ---- The same on packed batches, cut into shards ----

    def forward(
        self,
        batch: PackedBatch,
        *,
        length: int | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ModelOutput:
        """Evaluate a packed batch, one shard for each worker; `length` is S of the result."""
        batch, count = self._checked(batch)
        xp = self.xp.plain if output_attentions else self.xp.forward_only
        weights = self.weights
        shards = split(batch, self.workers.threads)
        hidden: list[list[Array]] = [[] for _ in shards]

        def evaluate(i: int) -> ShardResult:
            states = hidden[i] if output_hidden_states else None
            return self._forward_shard(xp, weights, shards[i], count, None, states)

        results = self.workers.map(evaluate, range(len(shards)))
        output = self._output(results)

        def padded(parts: Any) -> Array:
            return unpack(self.xp, self.xp.concatenate(list(parts)), batch, length)

        if self._returns_hidden:
            output.last_hidden_state = padded(r.last_hidden for r in results)
        if output_hidden_states:
            output.hidden_states = tuple(padded(parts) for parts in zip(*hidden, strict=True))
        if output_attentions:
            caches = [result.cache.encoder for result in results]
            output.attentions = _attentions(self.xp, caches, batch, length)
        return output

    def accumulate_gradients(
        self,
        batch: PackedBatch,
        gradients: Parameters,
        run: Run | None,
        shards: int | None = None,
    ) -> ModelOutput:
        """Forward and backward of a packed batch; adds its gradients to `gradients`.

        The batch is cut into `shards` parts (default: one for each worker). More parts take less
        memory and give the same sum: this is gradient accumulation. The parts are added up in
        their order, layer by layer, so the bytes of the result depend on the number of shards
        alone, and not on which thread was first.
        """
        if batch.labels is None:
            raise InputError("training needs labels")
        batch, count = self._checked(batch)
        xp, weights, into = self.xp, self.weights, self._bind(gradients)
        parts = split(batch, shards or self.workers.threads)
        turns = Turns()

        def train(number: int) -> ShardResult:
            with turns.of(number) as mine:
                result = self._forward_shard(xp, weights, parts[number], count, run, None)
                self._backward_shard(xp, result.cache, GradientSum(into, mine))
                return result._replace(cache=None)

        return self._output(self.workers.map(train, range(len(parts))))

    @property
    def weights(self) -> Weights:
        """The parameters as the layers take them; bound again when they move into one buffer."""
        flat = self.parameters.is_flat
        if self._bound is None or self._bound[0] != flat:
            self._bound = flat, self._bind(self.parameters)
        return self._bound[1]

    def _bind(self, parameters: Parameters) -> Weights:
        head = self.Head(*(parameters[name] for name in self.head))
        return Weights(encoder_weights(parameters, self.config.num_hidden_layers), head)

    def _output(self, results: list[ShardResult]) -> ModelOutput:
        """The shards' results joined: rows concatenated, losses added in order."""
        output = ModelOutput()
        for name in results[0].rows:
            setattr(output, name, self.xp.concatenate([r.rows[name] for r in results]))
        if results[0].loss is not None:
            output.loss = results[0].loss
            for result in results[1:]:
                output.loss = output.loss + result.loss
        return output

    def _checked(self, batch: PackedBatch) -> tuple[PackedBatch, int]:
        """The batch, its labels as this model takes them, and the number of terms in its loss."""
        c = self.config
        _check_range(batch.input_ids, c.vocab_size, "input_ids", "vocab_size")
        _check_range(batch.token_type_ids, c.type_vocab_size, "token_type_ids", "type_vocab_size")
        longest = int(batch.position_ids.max()) + 1
        if longest > c.max_position_embeddings:
            raise InputError(
                f"a sequence of {longest} tokens is longer than the position table "
                f"(max_position_embeddings = {c.max_position_embeddings}); truncate it"
            )
        return self._checked_labels(batch) if batch.labels is not None else (batch, 0)

    # ---- What a model class defines ----

    _returns_hidden = False

    def _checked_labels(self, batch: PackedBatch) -> tuple[PackedBatch, int]:
        raise InputError(f"{type(self).__name__} has no loss, and takes no labels")

    def _forward_shard(
        self,
        xp: Backend,
        w: Weights,
        shard: PackedBatch,
        count: int,
        run: Run | None,
        hidden_states: list[Array] | None,
    ) -> ShardResult:
        """One shard's forward. `count` terms make up the loss of the whole batch."""
        raise NotImplementedError  # abstract: each model defines it

    def _backward_shard(self, xp: Backend, cache: Any, gradients: GradientSum) -> None:
        """Adds the gradients of the shard's part of the loss, piece by piece, last layer first."""
        raise NotImplementedError  # abstract: each model with a loss defines it


def _check_range(ids: Any, size: int, name: str, limit: str) -> None:
    """On a GPU an id out of range would silently read another row."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise InputError(
            f"{name} holds {low if low < 0 else high}, but {limit} = {size} allows 0 … {size - 1}: "
            "do tokenizer and model belong together?"
        )


def _attentions(
    xp: Backend, caches: list[EncoderCache], batch: PackedBatch, length: int | None
) -> tuple[Array, ...]:
    """Attention probabilities of every layer, (B, N, S, S), zero at padding."""
    length = int(batch.position_ids.max()) + 1 if length is None else length
    result = []
    for layer in zip(*(cache.layers for cache in caches), strict=True):
        runs = [run.y for shard in layer for run in shard.attention.attend.probs]
        sequences = [probs for run in runs for probs in run]  # (N, n, n) each
        padded = xp.zeros((len(sequences), len(sequences[0]), length, length), runs[0].dtype)
        for b, probs in enumerate(sequences):
            columns = xp.to_device(batch.position_ids[batch.offsets[b] : batch.offsets[b + 1]])
            padded[b][:, columns[:, None], columns] = probs
        result.append(padded)
    return tuple(result)
