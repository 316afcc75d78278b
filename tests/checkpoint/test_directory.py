from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minibert.checkpoint.directory import load_checkpoint, save_checkpoint
from minibert.checkpoint.renaming import our_name
from minibert.checkpoint.safetensors_io import write_safetensors
from minibert.config import BertConfig
from minibert.errors import CheckpointError, InputError

Tensors = dict[str, NDArray[Any]]
H, F, V, P, LAYERS = 6, 10, 11, 8, 11  # 11 layers: two digits in a name


def encoder_shapes(layers: int = LAYERS) -> dict[str, tuple[int, ...]]:
    linears = {
        "attention.self.query": (H, H),
        "attention.self.key": (H, H),
        "attention.self.value": (H, H),
        "attention.output.dense": (H, H),
        "intermediate.dense": (F, H),
        "output.dense": (H, F),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (V, H),
        "bert.embeddings.position_embeddings.weight": (P, H),
        "bert.embeddings.token_type_embeddings.weight": (2, H),
    }
    norms = ["bert.embeddings.LayerNorm"]
    for layer in (f"bert.encoder.layer.{n}." for n in range(layers)):
        for name, (rows, columns) in linears.items():
            shapes |= {f"{layer}{name}.weight": (rows, columns), f"{layer}{name}.bias": (rows,)}
        norms += [f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"]
    for norm in norms:
        shapes |= {f"{norm}.weight": (H,), f"{norm}.bias": (H,)}
    return shapes | {"bert.pooler.dense.weight": (H, H), "bert.pooler.dense.bias": (H,)}


CLASSIFIER = {"classifier.weight": (3, H), "classifier.bias": (3,)}
MLM = {"cls.predictions.bias": (V,), "cls.predictions.transform.dense.weight": (H, H)}


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    rng = np.random.default_rng(2)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(directory: Path, tensors: Tensors) -> Path:
    write_safetensors(directory / "model.safetensors", tensors)
    return directory


def test_a_current_file_loads_whole(tmp_path: Path) -> None:
    shapes = encoder_shapes() | CLASSIFIER
    tensors = random_tensors(shapes)
    loaded, report = load_checkpoint(write(tmp_path, tensors), shapes)
    assert loaded.keys() == shapes.keys() == set(report.loaded)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor)
        assert not loaded[name].flags.writeable
    assert report.missing == report.unexpected == report.ignored == []
    assert str(report) == f"loaded {len(shapes)} tensors"


@pytest.mark.parametrize("bare", [False, True])
def test_old_names_are_renamed(tmp_path: Path, bare: bool) -> None:
    tensors = random_tensors(encoder_shapes())
    old = {our_name(name, bare=bare, reverse=True): value for name, value in tensors.items()}
    assert "embeddings.LayerNorm.gamma" in old or not bare
    assert {our_name(name, bare=bare) for name in old} == tensors.keys()
    loaded, report = load_checkpoint(write(tmp_path, old), encoder_shapes())
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor)
    renamed = dict(report.renamed)
    theirs = our_name("bert.encoder.layer.10.output.LayerNorm.bias", bare=bare, reverse=True)
    assert theirs.endswith(".LayerNorm.beta")
    assert renamed[theirs] == "bert.encoder.layer.10.output.LayerNorm.bias"
    real = 2 * (1 + 2 * LAYERS)  # gamma and beta
    assert len(renamed) == (len(tensors) if bare else real)
    without = "names without the bert. prefix, " if bare else ""
    assert str(report) == f"loaded {len(tensors)} tensors ({without}{real} of them renamed)"


def test_gamma_is_renamed_at_the_end_only() -> None:
    assert our_name("x.gamma.weight", bare=False) == "x.gamma.weight"
    assert our_name("pooler.dense.weight", bare=False) == "pooler.dense.weight"
    assert our_name("cls.predictions.bias", bare=True) == "cls.predictions.bias"


def test_position_ids_are_ignored_never_cast(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    tensors = random_tensors(encoder_shapes())
    tensors["bert.embeddings.position_ids"] = np.arange(P)[None]
    save_file(tensors, tmp_path / "model.safetensors")
    _, report = load_checkpoint(tmp_path, encoder_shapes())
    assert report.ignored == ["bert.embeddings.position_ids"]
    assert report.unexpected == []


def test_new_heads_are_missing_and_other_heads_unexpected(tmp_path: Path) -> None:
    shapes = encoder_shapes()
    pooler = [name for name in shapes if "pooler" in name]
    stored = {name: shape for name, shape in shapes.items() if name not in pooler}
    write(tmp_path, random_tensors(stored | {"qa_outputs.weight": (2, H)}))
    loaded, report = load_checkpoint(tmp_path, shapes | CLASSIFIER)
    assert report.missing == [*pooler, *CLASSIFIER]
    assert report.unexpected == ["qa_outputs.weight"]
    assert "classifier.weight" not in loaded
    assert "the head is new and untrained, the file has none: bert.pooler.dense.weight" in str(
        report
    )


@pytest.mark.parametrize(
    "lost", ["bert.encoder.layer.10.output.dense.bias", "bert.embeddings.word_embeddings.weight"]
)
def test_a_missing_encoder_tensor_is_an_error(tmp_path: Path, lost: str) -> None:
    tensors = random_tensors(encoder_shapes())
    misspelt = lost.replace("output", "outputs").replace("word_", "words_")
    tensors[misspelt] = tensors.pop(lost)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(write(tmp_path, tensors), encoder_shapes())
    assert f"lack {lost}" in str(error.value)
    assert f"nearest name in the file is {misspelt}." in str(error.value)


def test_a_misshapen_encoder_tensor_is_an_error_always(tmp_path: Path) -> None:
    shapes = encoder_shapes()
    write(tmp_path, random_tensors(shapes))
    shapes["bert.encoder.layer.3.output.dense.weight"] = (F, H)
    with pytest.raises(CheckpointError, match=r"layer\.3\.output.*got shape \(6, 10\).*\(10, 6\)"):
        load_checkpoint(tmp_path, shapes, ignore_mismatched_sizes=True)


def test_a_misshapen_head_is_an_error_unless_ignored(tmp_path: Path) -> None:
    write(tmp_path, random_tensors(encoder_shapes() | CLASSIFIER))
    wanted = encoder_shapes() | {"classifier.weight": (5, H), "classifier.bias": (5,)}
    with pytest.raises(CheckpointError, match="or train a new head in its place"):
        load_checkpoint(tmp_path, wanted)
    loaded, report = load_checkpoint(tmp_path, wanted, ignore_mismatched_sizes=True)
    assert report.shape_mismatch == [
        ("classifier.weight", (3, H), (5, H)),
        ("classifier.bias", (3,), (5,)),
    ]
    assert "classifier.weight" not in loaded
    assert "classifier.weight is (3, 6) in the file, (5, 6) in the model" in str(report)


def test_too_few_layers_in_the_config_stand_out(tmp_path: Path) -> None:
    write(tmp_path, random_tensors(encoder_shapes()))
    _, report = load_checkpoint(tmp_path, encoder_shapes(layers=9))
    assert report.unused_layers == [9, 10]
    assert "WARNING: the file's encoder layers 9, 10 are NOT USED" in str(report)


def test_a_tied_decoder_may_be_absent_equal_or_the_only_name(tmp_path: Path) -> None:
    shapes = encoder_shapes() | MLM
    tensors = random_tensors(shapes)
    _, report = load_checkpoint(write(tmp_path, tensors), shapes)
    assert report.missing == []
    decoder = {
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": tensors["cls.predictions.bias"],
    }
    _, report = load_checkpoint(write(tmp_path, tensors | decoder), shapes)
    assert report.ignored == list(decoder)
    renamed = {name: value for name, value in tensors.items() if name != "cls.predictions.bias"}
    loaded, report = load_checkpoint(write(tmp_path, renamed | decoder), shapes)
    np.testing.assert_array_equal(loaded["cls.predictions.bias"], tensors["cls.predictions.bias"])
    assert report.renamed == [("cls.predictions.decoder.bias", "cls.predictions.bias")]


def test_an_untied_decoder_is_refused_only_where_it_matters(tmp_path: Path) -> None:
    tensors = random_tensors(encoder_shapes() | MLM)
    other = tensors["bert.embeddings.word_embeddings.weight"] + 1
    write(tmp_path, tensors | {"cls.predictions.decoder.weight": other})
    with pytest.raises(CheckpointError, match=r"decoder\.weight differs from bert\.embeddings"):
        load_checkpoint(tmp_path, encoder_shapes() | MLM)
    _, report = load_checkpoint(tmp_path, encoder_shapes())
    assert report.ignored == ["cls.predictions.decoder.weight"]


def test_two_names_of_one_parameter_are_refused(tmp_path: Path) -> None:
    tensors = random_tensors(encoder_shapes())
    tensors["bert.embeddings.LayerNorm.gamma"] = tensors["bert.embeddings.LayerNorm.weight"]
    with pytest.raises(CheckpointError, match="mixes two models"):
        load_checkpoint(write(tmp_path, tensors), encoder_shapes())


def test_an_integer_weight_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    tensors = random_tensors(encoder_shapes(1))
    tensors["bert.pooler.dense.bias"] = np.zeros(H, np.int64)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="got dtype I64, wanted floating point"):
        load_checkpoint(tmp_path, encoder_shapes(1))


def write_shards(directory: Path, tensors: Tensors, **changes: Any) -> None:
    shards = {"model-1.safetensors": list(tensors)[::2], "model-2.safetensors": list(tensors)[1::2]}
    for shard, names in shards.items():
        write_safetensors(directory / shard, {name: tensors[name] for name in names})
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map | changes}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def test_shards_load_as_one(tmp_path: Path) -> None:
    tensors = random_tensors(encoder_shapes())
    write_shards(tmp_path, tensors)
    loaded, _ = load_checkpoint(tmp_path, encoder_shapes())
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": 3}, "got 3 as the file of x"),
        ({"x": "../model-1.safetensors"}, "beside the index"),
        ({"x": "/etc/passwd"}, "beside the index"),
        ({"x": "c:model.safetensors"}, "beside the index"),
        ({"x": "..\\model.safetensors"}, "beside the index"),
        ({"x": "a\0.safetensors"}, "beside the index"),
        ({"x": "model-3.safetensors"}, r"model-3\.safetensors: No such file"),
        ({"x": "model-1.safetensors"}, "should be in model-1.safetensors, which does not hold it"),
    ],
)
def test_a_malformed_index_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_shards(tmp_path, random_tensors(encoder_shapes(1)), **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, encoder_shapes(1))


def test_an_index_without_a_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": []}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="wanted a weight_map"):
        load_checkpoint(tmp_path, {})


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(CheckpointError, match="weights_only=True"):
        load_checkpoint(tmp_path, {})


def test_no_weights_and_no_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it holds neither"):
        load_checkpoint(tmp_path, {})
    with pytest.raises(CheckpointError, match=r"no-such.*there is none"):
        load_checkpoint(tmp_path / "no-such", {})


def test_saving_and_loading_changes_no_bit(tmp_path: Path) -> None:
    shapes = encoder_shapes(1) | CLASSIFIER
    tensors = {name: value.astype(np.float64) for name, value in random_tensors(shapes).items()}
    tensors["bert.pooler.dense.weight"] = tensors["bert.pooler.dense.weight"].T  # not contiguous
    config = BertConfig.from_dict({"torch_dtype": "float16", "architectures": ["BertModel"]})
    save_checkpoint(tmp_path / "new", config, tensors, card="# a card\n")
    loaded, _ = load_checkpoint(tmp_path / "new", shapes)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == np.float64
        np.testing.assert_array_equal(loaded[name], tensor)
    saved = json.loads((tmp_path / "new" / "config.json").read_text(encoding="utf-8"))
    assert (saved["dtype"], saved["architectures"]) == ("float64", ["BertModel"])
    assert "torch_dtype" not in saved
    assert (tmp_path / "new" / "README.md").read_text(encoding="utf-8") == "# a card\n"


def test_a_failed_save_leaves_the_previous_model_whole(tmp_path: Path) -> None:
    tensors = random_tensors(encoder_shapes(1))
    save_checkpoint(tmp_path, BertConfig(), tensors)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class FullDisk:
        def save_pretrained(self, directory: Path) -> None:
            (directory / "vocab.txt").write_text("half", encoding="utf-8")
            raise OSError(28, "No space left on device")

    broken: Any = FullDisk()
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, BertConfig(), tensors, tokenizer=broken)
    with pytest.raises(InputError, match="got dtype int64"):
        save_checkpoint(tmp_path, BertConfig(), {"x": np.arange(3)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def tiny_config() -> dict[str, Any]:
    return {
        "vocab_size": V,
        "hidden_size": H,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": F,
        "max_position_embeddings": P,
        "id2label": {0: "a", 1: "b", 2: "c"},
    }


@pytest.mark.crosscheck
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transformers_loads_what_we_save(
    tmp_path: Path, tiny_config: dict[str, Any], dtype: type[np.generic]
) -> None:
    pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    from transformers import BertForSequenceClassification

    shapes = encoder_shapes() | CLASSIFIER
    tensors = {name: value.astype(dtype) for name, value in random_tensors(shapes).items()}
    save_checkpoint(tmp_path, BertConfig.from_dict(tiny_config), tensors)
    load: Any = BertForSequenceClassification.from_pretrained
    model, info = load(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    state = model.state_dict()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(state[name].numpy(), tensor, strict=True)


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    "kind", ["BertModel", "BertForPreTraining", "BertForSequenceClassification"]
)
def test_we_load_what_transformers_saves(
    tmp_path: Path, tiny_config: dict[str, Any], kind: str
) -> None:
    pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    import transformers

    model = getattr(transformers, kind)(transformers.BertConfig(**tiny_config))
    model.save_pretrained(tmp_path, max_shard_size="5KB" if kind == "BertModel" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (kind == "BertModel")
    shapes = encoder_shapes() | (MLM if kind == "BertForPreTraining" else {})
    loaded, report = load_checkpoint(tmp_path, shapes)
    assert report.missing == []
    state = model.state_dict()
    to_theirs: Callable[[str], str] = (
        (lambda name: our_name(name, bare=True, reverse=True)) if kind == "BertModel" else str
    )
    for name in shapes:
        theirs = to_theirs(name).replace(".gamma", ".weight").replace(".beta", ".bias")
        np.testing.assert_array_equal(loaded[name], state[theirs].numpy())
