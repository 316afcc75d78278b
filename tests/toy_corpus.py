"""A corpus from which a tiny model learns both tasks in seconds.

Each document says one word again and again: a masked word is the one beside it, and a segment of
another document shows.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from minibert import BertConfig, BertTokenizer
from minibert.data.corpus import Corpus
from minibert.data.masking import Masking
from minibert.data.pretraining import Phase, PretrainingData
from minibert.data.segments import FullSequences, SentencePairs
from minibert.data.token_store import TokenStore
from minibert.data.tokenizing import tokenised
from minibert.models import BertForPreTraining

WORDS = ["sun", "moon", "star", "tree", "bird", "fish", "stone", "river"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS, "##s", "##let"]


def tokenizer() -> BertTokenizer:
    return BertTokenizer.from_vocab(VOCABULARY)


def write(folder: Path, documents: int = 16, sentences: int = 20, seed: int = 0) -> Path:
    """A folder of documents, a file each, of sentences with 2 to 6 words."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(documents):
        word = WORDS[i % len(WORDS)]
        forms = [*([word] * 6), word + "s", word + "let"]
        lines = [" ".join(rng.choices(forms, k=rng.randint(2, 6))) for _ in range(sentences)]
        text = [f"{line.capitalize()}." for line in lines]
        (folder / f"{i:03}.txt").write_text("\n".join(text), encoding="utf-8")
    return folder


def make_store(folder: Path, **sizes: int) -> TokenStore:
    corpus = Corpus([write(folder / "corpus", **sizes)], sentences="lines")
    return tokenised(corpus, tokenizer(), folder / "store")


def data(
    store: TokenStore, length: int = 24, next_sentence: bool = True, **masking: Any
) -> PretrainingData:
    documents = np.arange(store.num_documents)
    kind = SentencePairs if next_sentence else FullSequences
    rule = kind(store, documents, length)
    return PretrainingData(Masking.by(tokenizer(), **masking), (Phase(rule),))


def config(**changes: Any) -> BertConfig:
    sizes: dict[str, Any] = {
        **{"vocab_size": len(VOCABULARY), "hidden_size": 24, "num_hidden_layers": 2},
        **{"num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 64},
        **{"initializer_range": 0.1},
    }
    return BertConfig(**sizes | changes)


def model(seed: int = 1, dtype: str = "float32", **changes: Any) -> BertForPreTraining:
    return BertForPreTraining(config(**changes), backend="numpy", dtype=dtype, seed=seed, threads=1)
