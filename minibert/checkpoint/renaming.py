"""Parameter names: from those in the wild to ours, and back.

Ours are transformers' of today, always with the `bert.` prefix. Names in the wild differ in two
ways, `RENAMES` and `PREFIXES`; read from right to left, the tables turn ours into the old ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from minibert.errors import CheckpointError

# (theirs, ours) at the end of a name: Google's TensorFlow names, kept by google-bert/bert-*.
RENAMES = (
    (".LayerNorm.gamma", ".LayerNorm.weight"),
    (".LayerNorm.beta", ".LayerNorm.bias"),
)
# (theirs, ours) at the start of a name, in files saved from the encoder alone. They apply only to
# files that hold `PROBE`: elsewhere a `pooler.` would be somebody's own layer.
PREFIXES = (
    ("embeddings.", "bert.embeddings."),
    ("encoder.", "bert.encoder."),
    ("pooler.", "bert.pooler."),
)
PROBE = "embeddings.word_embeddings.weight"

# No parameters: the position ids 0 … S-1, which old versions of transformers stored.
BUFFERS = ("bert.embeddings.position_ids",)
# A second name of one array: (the copy, the parameter that minibert keeps).
TIED = (
    ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
    ("cls.predictions.decoder.bias", "cls.predictions.bias"),
)
ENCODER = ("bert.embeddings.", "bert.encoder.")


def our_name(name: str, *, bare: bool, reverse: bool = False) -> str:
    """A file's name as ours; `reverse`: ours as theirs. bare: the file has no `bert.` prefix."""
    turn = -1 if reverse else 1
    for old, new in (pair[::turn] for pair in RENAMES):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    for old, new in (pair[::turn] for pair in PREFIXES if bare):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def our_names(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """{our name: the file's name}; CheckpointError when two of the file's are one of ours."""
    names = list(names)
    bare = PROBE in names
    ours: dict[str, str] = {}
    for old in names:
        new = our_name(old, bare=bare)
        if new in ours:
            raise CheckpointError(
                f"{directory}: {ours[new]} and {old} are both {new}: the file mixes two models; "
                "save it again from one"
            )
        ours[new] = old
    return ours
