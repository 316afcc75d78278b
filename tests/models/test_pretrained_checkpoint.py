"""A real pre-training checkpoint: rxnfp, a 12-layer BERT over chemical reactions.

Its config.json has no model_type, its decoder's bias is stored once. (Schwaller et al., "Mapping
the space of chemical reactions using attention-based neural networks", 2021; MIT.)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import given_folder

from minibert import BertForPreTraining, BertTokenizer

# Atoms in brackets, two-letter halogens, two-digit ring bonds; else one character.
TOKEN = re.compile(r"\[[^\]]+\]|Br|Cl|%\d\d|>>|.")
REACTIONS = [
    "Nc1cccc2cnccc12.O=C(O)c1cc([N+](=O)[O-])c(Sc2c(Cl)cncc2Cl)s1"
    ">>O=C(Nc1cccc2cnccc12)c1cc([N+](=O)[O-])c(Sc2c(Cl)cncc2Cl)s1",
    "CC(=O)Cl.NCc1ccccc1>>CC(=O)NCc1ccccc1",
    "CCO.CC(=O)O>>CC(=O)OCC",
    "OB(O)c1ccccc1.Brc1ccncc1>>c1ccc(-c2ccncc2)cc1",
]


@pytest.fixture
def checkpoint() -> Path:
    return given_folder() / "models" / "rxnfp-bert"


def masked_one_at_a_time(tokenizer: BertTokenizer, reaction: str) -> tuple[Any, Any]:
    """(n, n + 2) ids, row i with token i masked, and the n ids that were masked."""
    tokens = TOKEN.findall(reaction)
    row = tokenizer.convert_tokens_to_ids(["[CLS]", *tokens, "[SEP]"])
    assert tokenizer.unk_token_id not in row
    ids = np.tile(row, (len(tokens), 1))
    places = np.arange(len(tokens))
    truth = ids[places, places + 1].copy()
    ids[places, places + 1] = tokenizer.mask_token_id
    return ids, truth


def test_it_recovers_190_of_202_masked_tokens(checkpoint: Path) -> None:
    model = BertForPreTraining.from_pretrained(checkpoint, backend="numpy")
    report = model.load_report
    assert report is not None
    assert not report.missing
    assert not report.unexpected
    tokenizer = BertTokenizer.from_pretrained(checkpoint)
    right = total = 0
    for reaction in REACTIONS:
        ids, truth = masked_one_at_a_time(tokenizer, reaction)
        places = np.arange(len(truth))
        guesses = model(ids).prediction_logits[places, places + 1].argmax(axis=-1)
        right += int((guesses == truth).sum())
        total += len(truth)
    assert (right, total) == (190, 202)


@pytest.mark.crosscheck
def test_its_logits_are_those_of_transformers(checkpoint: Path) -> None:
    """In float64 to 1e-11. In float32 its error is not above twice that of PyTorch.

    The logits go up to 19, where PyTorch's own two attention kernels differ by 1.2e-5.
    """
    torch = pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")

    def theirs(dtype: str) -> Any:
        config = transformers.BertConfig.from_pretrained(checkpoint)
        model = transformers.BertForPreTraining.from_pretrained(
            checkpoint, config=config, dtype=getattr(torch, dtype), local_files_only=True
        ).eval()
        return lambda ids: model(torch.tensor(ids))

    def ours(dtype: str) -> Any:
        return BertForPreTraining.from_pretrained(checkpoint, backend="numpy", dtype=dtype)

    tokenizer = BertTokenizer.from_pretrained(checkpoint)
    models = [ours("float64"), theirs("float64"), ours("float32"), theirs("float32")]
    for reaction in REACTIONS:
        ids, _ = masked_one_at_a_time(tokenizer, reaction)
        with torch.no_grad():
            outputs = [model(ids) for model in models]
        for name in ("prediction_logits", "seq_relationship_logits"):
            truth, reference, got, want = (np.asarray(getattr(out, name)) for out in outputs)
            np.testing.assert_allclose(truth, reference, rtol=0, atol=1e-11)
            error, their_error = (np.abs(array - truth).max() for array in (got, want))
            assert error <= max(2 * their_error, 5e-6), name
