"""What all models share: loading and saving, packing, shards and workers.

A model class says what its head is: the shapes of its parameters, which labels it takes, and its
forward and backward for one shard of a batch. Everything else is here, once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from minibert.backend import Array, Backend, get_backend
from minibert.checkpoint import LoadReport, load_checkpoint, save_checkpoint
from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.models.encoder import (
    EncoderCache,
    encoder_backward,
    encoder_forward,
    encoder_shapes,
    encoder_weights,
    tokens,
)
from minibert.models.initialization import initialize
from minibert.models.shards import GradientSum, HeadResult, ModelOutput, Run, ShardResult, Weights
from minibert.packing import IntArray, PackedBatch, pack, split, unpack
from minibert.parallel import Turns, Workers
from minibert.parameters import Layout, Parameters

DTYPES = ("float32", "float64")


class BertPreTrainedModel:
    """The base of all models: see the module's first lines."""

    architecture: ClassVar[str] = ""
    """Hugging Face's name of the class, where it is not ours."""

    Head: ClassVar[type]
    """A NamedTuple of the head's arrays."""

    head: ClassVar[dict[str, str]]
    """For each field of `Head`: parameter name → its shape in the letters of `sizes`."""

    gradient_checkpointing: bool = False
    """Keep only each layer's input in training, and compute the rest again in the backward."""

    loss_scale: Array | None = None
    """() what the loss is multiplied by before its gradient is taken; None: 1."""

    def __init__(
        self,
        config: BertConfig,
        *,
        backend: str | Backend = "auto",
        dtype: str = "float32",
        precision: str = "fp32",
        seed: int = 0,
        threads: int | None = None,
        arrays: dict[str, Any] | None = None,
        initialization: str = "huggingface",
    ) -> None:
        """A model with random weights, or with these host `arrays`.

        `initialization`: weights are drawn as "huggingface" or as "google" does, see `initialize`;
        `backend`: "numpy", "cupy" or "auto"; `dtype`: "float32" or "float64"; `precision`: of
        float32's products on a GPU, "fp32", "tf32", "bf16" or "fp16" (parameters, statistics and
        sums stay in float32); `threads`: workers on the CPU (default: all cores).
        """
        if dtype not in DTYPES:
            raise InputError(f"dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
        if dtype != "float32" and precision != "fp32":
            raise InputError(f"precision {precision!r} is float32's: leave out dtype {dtype}")
        self.config = config
        self.xp = get_backend(backend, precision=precision)
        self.workers = Workers(threads if self.xp.name == "numpy" else 1)
        self.load_report: LoadReport | None = None
        layout = Layout(self.shapes(config))
        arrays = dict(arrays or {})
        for name, shape in layout.shapes.items():
            if name not in arrays:
                arrays[name] = initialize(name, shape, config, seed, initialization)
            arrays[name] = self.xp.to_device(arrays[name], dtype)
        self.parameters = Parameters(self.xp, layout, arrays)

    # ---- In and out of directories ----

    @classmethod
    def from_pretrained(
        cls,
        name_or_directory: str | Path,
        *,
        config: BertConfig | None = None,
        backend: str | Backend = "auto",
        dtype: str = "float32",
        precision: str = "fp32",
        seed: int = 0,
        threads: int | None = None,
        ignore_mismatched_sizes: bool = False,
        **config_changes: Any,
    ) -> Self:
        """A model from a local directory or a hub name; its `load_report` says what was found.

        Parameters that the checkpoint lacks (a new head) are drawn with `seed`. `config` stands for
        the directory's own; further keyword arguments change it: num_labels, id2label,
        problem_type, hidden_dropout_prob, …  On the CPU, float32 weights stay memory-mapped until
        training.
        """
        from minibert.hub import resolve_model

        directory = resolve_model(str(name_or_directory))
        config = (config or BertConfig.from_pretrained(directory)).replace(**config_changes)
        arrays, report = load_checkpoint(
            directory, cls.shapes(config), ignore_mismatched_sizes=ignore_mismatched_sizes
        )
        model = cls(
            config, backend=backend, dtype=dtype, precision=precision, seed=seed, threads=threads,
            arrays=arrays,
        )  # fmt: skip
        model.load_report = report
        return model

    def save_pretrained(
        self, directory: str | Path, *, tokenizer: Any = None, card: str | None = None
    ) -> None:
        """Write a directory that minibert and transformers load; see `save_checkpoint`."""
        arrays = {name: self.xp.to_host(array) for name, array in self.parameters.items()}
        config = self.config.replace(architectures=(self.architecture or type(self).__name__,))
        save_checkpoint(
            Path(directory), config, arrays,
            tokenizer=tokenizer, card=card, extras=self._write_extras,
        )  # fmt: skip

    def _write_extras(self, stage: Path) -> None:
        """Further files of the directory, for models that have some."""

    @classmethod
    def shapes(cls, config: BertConfig) -> dict[str, tuple[int, ...]]:
        """Every parameter: Hugging Face's name → shape."""
        sizes = {"H": config.hidden_size, "K": config.num_labels, "V": config.vocab_size}
        sizes |= {"1": 1, "2": 2}
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
        **other_labels: Any,
    ) -> ModelOutput:
        """Evaluate (B, S) ids, without dropout; the loss too where labels are given.

        The class says which labels there are. Raises InputError for ids out of range, sequences
        longer than the position table, labels of the wrong shape, …
        """
        batch = self.pack(input_ids, attention_mask, token_type_ids, labels, **other_labels)
        return self.forward(
            replace(batch, every_token=bool(self.token_outputs)),
            length=np.shape(input_ids)[-1],
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
        **other_labels: Any,
    ) -> tuple[ModelOutput, dict[str, Array]]:
        """The output with its loss, and the gradient of every parameter under its HF name.

        `dropout=(seed, step)` turns dropout on, with the masks of that training step.
        """
        batch = self.pack(input_ids, attention_mask, token_type_ids, labels, **other_labels)
        gradients = self.parameters.zeros_like()
        run = None if dropout is None else Run(*dropout)
        output = self.accumulate_gradients(batch, gradients, run, length=np.shape(input_ids)[-1])
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
        batch, count = self.checked(batch)
        xp = self.xp.plain if output_attentions else self.xp.forward_only
        together = None
        if self.workers.had_better_share(batch.num_examples):
            together = xp.together(batch.num_tokens, self.parameters.dtype)
        xp, weights = together or xp, self.weights
        shards = [batch] if together else split(batch, self.workers.threads)
        hidden: list[list[Array]] = [[] for _ in shards]

        def evaluate(i: int) -> ShardResult:
            states = hidden[i] if output_hidden_states else None
            return self.forward_shard(xp, weights, shards[i], count, None, states)

        if together:
            results = [self.workers.together(lambda: evaluate(0))]
        else:
            results = self.workers.map(evaluate, range(len(shards)))
        length = batch.length if length is None else length
        output = self._output(results, batch, length)
        output.loss = self.batch_loss(xp, [r.head for r in results], batch, count)[0]

        def padded(parts: Any) -> Array:
            return unpack(self.xp, self.xp.concatenate(list(parts)), batch, length)

        if self._returns_hidden:
            output.last_hidden_state = padded(r.last_hidden for r in results)
        if output_hidden_states:
            output.hidden_states = tuple(padded(parts) for parts in zip(*hidden, strict=True))
        if output_attentions:
            caches = [result.encoder for result in results if result.encoder is not None]
            output.attentions = _attentions(self.xp, caches, batch, length)
        return output

    def send_ahead(self, batch: PackedBatch) -> PackedBatch:
        """The next step's batch, checked, and on its way to the device while that computes."""
        batch, _ = self.checked(batch)
        self.xp.send_ahead(self._copied_whole(batch))
        return batch

    def _copied_whole(self, batch: PackedBatch) -> list[NDArray[Any]]:
        """The arrays of a checked batch that its shards copy to the device as they are.

        (Places of sequences and of the rows that go on are made for each shard, by its layers.)
        """
        arrays = batch.input_ids, batch.position_ids, batch.token_type_ids, batch.labels
        return [array for array in arrays if array is not None]

    def accumulate_gradients(
        self,
        batch: PackedBatch,
        gradients: Parameters,
        run: Run | None,
        shards: int | None = None,
        *,
        length: int | None = None,
    ) -> ModelOutput:
        """Forward and backward of a packed batch; adds its gradients to `gradients`.

        The batch is cut into `shards` parts (default: one for each worker). More parts take less
        memory and give the same sum: this is gradient accumulation. The parts are added up in
        their order, layer by layer, so the bytes of the result depend on the number of shards
        alone, and not on which thread was first. Results with a row for each token are padded
        and returned only if `length` says how long.
        """
        if not self.has_targets(batch):
            raise InputError("training needs labels")
        batch, count = self.checked(batch)
        weights, into = self.weights, self._bind(gradients)
        parts = split(batch, shards or self.workers.threads)
        results, loss = self._train_shards(weights, into, batch, parts, count, run)
        output = self._output(results, batch, length)
        output.loss = loss
        return output

    def _train_shards(
        self,
        weights: Weights,
        into: Weights,
        batch: PackedBatch,
        parts: list[PackedBatch],
        count: Any,
        run: Run | None,
    ) -> tuple[list[ShardResult], Array]:
        """Each shard forward and at once backward: one shard's caches a worker are kept."""
        turns = Turns()

        def train(number: int) -> ShardResult:
            with turns.of(number) as mine:
                result = self.forward_shard(
                    self.xp, weights, parts[number], count, run,
                    checkpointing=self.gradient_checkpointing,
                )  # fmt: skip
                dy = self._upstream()
                self.backward_shard(self.xp, dy, result, GradientSum(self.xp, into, mine))
                return ShardResult(result.head._replace(cache=None), result.last_hidden, None)

        results = self.workers.map(train, range(len(parts)))
        return results, self.batch_loss(self.xp, [r.head for r in results], batch, count)[0]

    def _upstream(self) -> Array:
        """The gradient, (), with which the backward begins."""
        return (
            self.xp.ones((), self.parameters.dtype) if self.loss_scale is None else self.loss_scale
        )

    @property
    def weights(self) -> Weights:
        """The parameters as the layers take them."""
        return self._bind(self.parameters)

    def _bind(self, parameters: Parameters) -> Weights:
        """Parameters or gradients as the layers take them; kept until they move."""
        bound: Weights | None = parameters.bound.get(type(self))
        if bound is None:
            encoder = encoder_weights(parameters, self.config.num_hidden_layers)
            bound = Weights(encoder, self.bind_head(parameters))
            parameters.bound[type(self)] = bound
        return bound

    @classmethod
    def bind_head(cls, parameters: Parameters) -> Any:
        """The head's parameters, or their gradients, as `Head`."""
        return cls.Head(*(parameters[name] for name in cls.head))

    def _output(
        self, results: list[ShardResult], batch: PackedBatch, length: int | None
    ) -> ModelOutput:
        """The shards' results joined."""
        output = ModelOutput()
        for name in results[0].head.rows:
            joined = self.xp.concatenate([r.head.rows[name] for r in results])
            setattr(output, name, joined)
        for name in results[0].head.token_rows if length is not None else ():
            joined = self.xp.concatenate([r.head.token_rows[name] for r in results])
            setattr(output, name, unpack(self.xp, joined, batch, length))
        return output

    def checked(self, batch: PackedBatch) -> tuple[PackedBatch, Any]:
        """The batch, its labels as this model takes them, and the number of terms in its loss."""
        if batch.terms is not None:  # by `send_ahead`
            return batch, batch.terms
        c = self.config
        _check_range(batch.input_ids, c.vocab_size, "input_ids", "vocab_size")
        _check_range(batch.token_type_ids, c.type_vocab_size, "token_type_ids", "type_vocab_size")
        if batch.length > c.max_position_embeddings:
            raise InputError(
                f"a sequence of {batch.length} tokens is longer than the position table "
                f"(max_position_embeddings = {c.max_position_embeddings}); truncate it"
            )
        if not self.has_targets(batch):
            return batch, 0
        batch, terms = self._checked_labels(batch)
        return replace(batch, terms=terms), terms

    # ---- Encoder and head, for one shard ----

    def forward_shard(
        self,
        xp: Backend,
        w: Weights,
        shard: PackedBatch,
        count: Any,
        run: Run | None,
        hidden_states: list[Array] | None = None,
        checkpointing: bool = False,
    ) -> ShardResult:
        """One shard's forward. `count` terms make up the loss of the whole batch."""
        key = None if run is None else run.key(shard.first_token)
        everything = shard.every_token or hidden_states is not None
        rows = None if everything else self.rows_read(shard)
        x, encoder = encoder_forward(
            xp, w.encoder, tokens(xp, shard), self.config, key, hidden_states,
            checkpointing, None if rows is None else tuple(rows.tolist()),
        )  # fmt: skip
        read = shard if rows is None else shard.only(rows)
        return ShardResult(self._head_forward(xp, w, x, read, count, run), x, encoder)

    def backward_shard(
        self, xp: Backend, dy: Array, result: ShardResult, gradients: GradientSum
    ) -> None:
        """Adds the gradients of the shard's part of the loss, piece by piece, last layer first."""
        dx = self._head_backward(xp, dy, result.head.cache, gradients)
        assert result.encoder is not None
        encoder_backward(
            xp, dx, result.encoder, gradients.weights.encoder, gradients.add, gradients.dword
        )

    # ---- What a model class defines ----

    token_outputs: ClassVar[tuple[str, ...]] = ()
    """The outputs with a row for each token."""

    _returns_hidden = False

    def rows_read(self, shard: PackedBatch) -> IntArray | None:
        """(R,) the rows of the last hidden state that the head reads; None: all of them.

        The last layer computes no others, and the head's `shard` has no other tokens.
        """
        return None

    def pack(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        **other_labels: Any,
    ) -> PackedBatch:
        """Padded arrays → a packed batch; here `labels` have a row for each sequence."""
        self._refuse(other_labels)
        return pack(input_ids, attention_mask, token_type_ids, labels)

    def _refuse(self, labels: dict[str, Any]) -> None:
        if labels:
            raise TypeError(f"{type(self).__name__} takes no argument {next(iter(labels))!r}")

    def has_targets(self, batch: Any) -> bool:
        """Whether a batch (or Features) has all that a loss needs."""
        return batch.labels is not None

    def _checked_labels(self, batch: PackedBatch) -> tuple[PackedBatch, Any]:
        raise InputError(f"{type(self).__name__} has no loss, and takes no labels")

    def batch_loss(
        self, xp: Backend, heads: list[HeadResult], batch: PackedBatch, count: Any
    ) -> tuple[Array | None, Any]:
        """The loss of a whole batch, and its cache if it has one of its own.

        Here the shards' losses, added in order; a loss that is no such sum overrides this.
        """
        loss = heads[0].loss
        for head in heads[1:]:
            loss = loss + head.loss if loss is not None else None
        return loss, None

    def _head_forward(
        self,
        xp: Backend,
        w: Weights,
        x: Array,
        shard: PackedBatch,
        count: Any,
        run: Run | None,
    ) -> HeadResult:
        """x (T, H), the encoder's result → logits and, where there are labels, the loss.

        T are the shard's tokens, or those that `rows_read` named.
        """
        raise NotImplementedError  # abstract: each model defines it

    def _head_backward(self, xp: Backend, dy: Array, cache: Any, gradients: GradientSum) -> Array:
        """Adds the head's gradients; → dx (T, H).

        dy is the gradient of the head's loss, (), or, where the loss is one of the whole batch
        (`batch_loss`), of the head's rows.
        """
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
    length = batch.length if length is None else length
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
