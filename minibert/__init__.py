"""minibert: a BERT in pure NumPy and CuPy whose every gradient is written out, and proved.

    from minibert import BertForSequenceClassification, BertTokenizer

Start reading in `minibert/layers/`: one file a layer, each backward under its forward.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BertConfig": "minibert.config",
    "BertForMaskedLM": "minibert.models",
    "BertForMultipleChoice": "minibert.models",
    "BertForNextSentencePrediction": "minibert.models",
    "BertForPreTraining": "minibert.models",
    "BertForQuestionAnswering": "minibert.models",
    "BertForSentenceEmbedding": "minibert.models",
    "BertForSequenceClassification": "minibert.models",
    "BertForTokenClassification": "minibert.models",
    "BertModel": "minibert.models",
    "BertTokenizer": "minibert.tokenization",
    "InputError": "minibert.errors",
    "pipeline": "minibert.pipelines",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  (strings all)


def __getattr__(name: str) -> Any:
    """Import on first use: `import minibert` costs nothing that is not needed."""
    if name not in _HOMES:
        raise AttributeError(f"module 'minibert' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
