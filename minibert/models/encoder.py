"""The encoder: embeddings and L layers, composed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from minibert.backend import Array, Backend, Ints
from minibert.config import BertConfig
from minibert.layers.dropout import DropoutKey
from minibert.layers.embeddings import (
    EmbeddingsCache,
    EmbeddingsWeights,
    embeddings_backward,
    embeddings_forward,
)
from minibert.layers.encoder_layer import (
    SITES,
    EncoderLayerCache,
    EncoderLayerSettings,
    EncoderLayerWeights,
    encoder_layer_backward,
    encoder_layer_forward,
)
from minibert.packing import PackedBatch
from minibert.parameters import Parameters

EMBEDDINGS = "bert.embeddings."
LAYER = "bert.encoder.layer.{}."


class EncoderWeights(NamedTuple):
    embeddings: EmbeddingsWeights
    layers: tuple[EncoderLayerWeights, ...]


class Tokens(NamedTuple):
    """A packed batch on the device."""

    input_ids: Ints  # (T,)
    position_ids: Ints  # (T,)
    token_type_ids: Ints  # (T,)
    offsets: Sequence[int]  # (B + 1,) on the host


class LayerInputs(NamedTuple):
    """All that a layer's forward needs, kept in place of its cache."""

    x: Array  # (T, H)
    w: EncoderLayerWeights
    offsets: Sequence[int]
    settings: EncoderLayerSettings
    key: DropoutKey | None
    rows: Sequence[int] | None


class EncoderCache(NamedTuple):
    embeddings: EmbeddingsCache
    layers: list[EncoderLayerCache | LayerInputs]


def encoder_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter of the encoder: Hugging Face's name → shape."""
    H, F = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDINGS + "word_embeddings.weight": (config.vocab_size, H),
        EMBEDDINGS + "position_embeddings.weight": (config.max_position_embeddings, H),
        EMBEDDINGS + "token_type_embeddings.weight": (config.type_vocab_size, H),
        EMBEDDINGS + "LayerNorm.weight": (H,),
        EMBEDDINGS + "LayerNorm.bias": (H,),
    }
    linears = {
        "attention.self.query": (H, H),
        "attention.self.key": (H, H),
        "attention.self.value": (H, H),
        "attention.output.dense": (H, H),
        "intermediate.dense": (F, H),
        "output.dense": (H, F),
    }
    for layer in map(LAYER.format, range(config.num_hidden_layers)):
        for name, shape in linears.items():
            shapes[f"{layer}{name}.weight"] = shape
            shapes[f"{layer}{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{layer}{name}.weight"] = (H,)
            shapes[f"{layer}{name}.bias"] = (H,)
    return shapes


def encoder_weights(parameters: Parameters, num_layers: int) -> EncoderWeights:
    """The parameters (or their gradients) as the layer functions take them."""
    tables = ("word", "position", "token_type")
    embeddings = EmbeddingsWeights(
        *(parameters[f"{EMBEDDINGS}{table}_embeddings.weight"] for table in tables),
        *(parameters[f"{EMBEDDINGS}LayerNorm.{kind}"] for kind in ("weight", "bias")),
    )  # fmt: skip
    layers = (_layer_weights(parameters, LAYER.format(i)) for i in range(num_layers))
    return EncoderWeights(embeddings, tuple(layers))


def _layer_weights(parameters: Parameters, layer: str) -> EncoderLayerWeights:
    def pair(name: str) -> tuple[Array, Array]:
        return parameters[f"{layer}{name}.weight"], parameters[f"{layer}{name}.bias"]

    def fused(kind: str) -> Array:
        names = [f"{layer}attention.self.{part}.{kind}" for part in ("query", "key", "value")]
        return parameters.fused(names)

    return EncoderLayerWeights(
        fused("weight"),
        fused("bias"),
        *pair("attention.output.dense"),
        *pair("attention.output.LayerNorm"),
        *pair("intermediate.dense"),
        *pair("output.dense"),
        *pair("output.LayerNorm"),
    )


def settings(config: BertConfig) -> EncoderLayerSettings:
    """What every layer of this configuration has in common."""
    return EncoderLayerSettings(
        num_heads=config.num_attention_heads,
        activation=config.hidden_act,
        eps=config.layer_norm_eps,
        attention_dropout=config.attention_probs_dropout_prob,
        hidden_dropout=config.hidden_dropout_prob,
    )


def head_site(config: BertConfig) -> int:
    """The first dropout site after the encoder's."""
    return 1 + SITES * config.num_hidden_layers


def tokens(xp: Backend, batch: PackedBatch) -> Tokens:
    """The ids of a batch on the device."""
    to = xp.to_device
    ids, positions, types = to(batch.input_ids), to(batch.position_ids), to(batch.token_type_ids)
    return Tokens(ids, positions, types, batch.offsets)


def encoder_forward(
    xp: Backend,
    w: EncoderWeights,
    t: Tokens,
    config: BertConfig,
    key: DropoutKey | None,
    hidden_states: list[Array] | None = None,
    checkpointing: bool = False,
    rows: Sequence[int] | None = None,
) -> tuple[Array, EncoderCache]:
    """T tokens → the last hidden state (T, H), or only its rows `rows` (R,), (R, H).

    `key` starts at site 0, the embeddings' dropout; layer i has the sites 1 + 3i … 3 + 3i.
    `hidden_states`, where given, receives the embeddings and every layer's result, L + 1 of them.
    `checkpointing` keeps of each layer its input alone: the backward computes the rest again, to
    the same bits, for a third more time and a fraction of the memory (Chen et al., arXiv
    1604.06174).
    """
    x, embeddings = embeddings_forward(
        xp, w.embeddings, t.input_ids, t.position_ids, t.token_type_ids,
        config.pad_token_id, config.layer_norm_eps, config.hidden_dropout_prob, key,
    )  # fmt: skip
    caches: list[EncoderLayerCache | LayerInputs] = []
    for i, layer in enumerate(w.layers):
        if hidden_states is not None:
            hidden_states.append(x)
        site = None if key is None else key.at(1 + SITES * i)
        wanted = rows if i == len(w.layers) - 1 else None
        inputs = LayerInputs(x, layer, t.offsets, settings(config), site, wanted)
        x, cache = encoder_layer_forward(xp, *inputs)
        if xp.keeps_caches:
            caches.append(inputs if checkpointing else cache)
    if hidden_states is not None:
        hidden_states.append(x)
    return x, EncoderCache(embeddings, caches)


def encoder_backward(
    xp: Backend,
    dx: Array,
    cache: EncoderCache,
    targets: EncoderWeights,
    add: Callable[[tuple[Any, ...], tuple[Any, ...]], None],
    dword: Array | None = None,
) -> None:
    """The layers in reverse, then the tables; dx (T, H), or (R, H) of the rows the forward gave.

    `add(target, gradient)` is called for each layer of `targets`, last first, and for the
    embeddings; what it adds, and each layer's cache, is let go at once. `dword` (V, H): the word
    table's gradient from a head whose decoder it is too.
    """
    for target in reversed(targets.layers):
        layer = cache.layers.pop()
        if isinstance(layer, LayerInputs):
            _, layer = encoder_layer_forward(xp, *layer)
        dx, dw = encoder_layer_backward(xp, dx, layer)
        add(target, dw)
    tables: tuple[Any, ...] = targets.embeddings
    gradients: tuple[Any, ...] = embeddings_backward(xp, dx, cache.embeddings)
    if dword is not None:
        tables, gradients = (*tables, targets.embeddings.word), (*gradients, dword)
    add(tables, gradients)
