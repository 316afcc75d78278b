"""Word vectors from counts: which pieces stand near which, in as few numbers as a model has.

Sources: Levy & Goldberg, "Neural Word Embedding as Implicit Matrix Factorization" (NIPS 2014);
Levy, Goldberg & Dagan, TACL 2015 (shifts, smoothing, √s); Halko, Martinsson & Tropp, SIAM Review
2011 (the randomised SVD, algorithms 4.4 and 5.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.data.token_store import TokenStore
from minibert.io.progress import tracked

WINDOW = 8  # pieces to either side; the nearest counts 1, the farthest 1/8
CONTEXTS = 4096  # the most frequent pieces, whose neighbourhood is counted
SMOOTHING = 0.75  # contexts are taken as often as their frequency to this power
CHUNK = 1 << 20  # pieces looked at together
OVERSAMPLING, ITERATIONS = 32, 4

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def word_vectors(
    store: TokenStore, documents: Ints, vocab_size: int, size: int, seed: int, quiet: bool = True
) -> Floats:
    """(V, size) a unit vector for each piece; zero for those of which nothing is known.

    With #(w, c) the (weighted) number of times that context c stands near w,

        M_wc = max(0, log(#(w, c) Σ#/(#(w) #(c)))),    M ≈ U diag(s) Vᵀ,    E = U diag(√s),

    the positive pointwise mutual information and its best approximation of rank `size`. Memory is
    V × 4096 × 4 bytes, however large the corpus is.
    """
    M = positive_information(cooccurrences(store, documents, vocab_size, quiet))
    U, s = truncated_svd(M, size, seed)
    known = M.any(axis=1)  # of the others rounding has made something
    E = U[known] * np.sqrt(s)
    vectors = np.zeros((vocab_size, size), np.float32)
    vectors[known, : E.shape[1]] = E / np.linalg.norm(E, axis=1, keepdims=True)
    return vectors


def cooccurrences(
    store: TokenStore, documents: Ints, vocab_size: int, quiet: bool = True
) -> Floats:
    """(V, C) how often each of the C most frequent pieces stands near a piece, in one document."""
    frequency = np.zeros(vocab_size, np.int64)
    for ids, document in _chunks(store, documents, 0):
        frequency += np.bincount(ids[document >= 0], minlength=vocab_size)
    frequent = np.argsort(-frequency, kind="stable")[:CONTEXTS]
    column = np.full(vocab_size, -1)
    column[frequent] = np.arange(len(frequent))
    counts = np.zeros((vocab_size, len(frequent)), np.float32)
    chunks = tracked(
        _chunks(store, documents, WINDOW), len(store.ids), "counting",
        size=lambda chunk: min(CHUNK, len(chunk.ids)), unit=" tokens", disable=quiet,
    )  # fmt: skip
    for ids, document in chunks:
        for distance in range(1, min(WINDOW + 1, len(ids))):
            left = slice(0, min(CHUNK, len(ids) - distance))
            right = slice(distance, left.stop + distance)
            near = (document[left] == document[right]) & (document[left] >= 0)
            a, b = ids[left][near], ids[right][near]
            weight = np.float32((WINDOW + 1 - distance) / WINDOW)
            _count(counts, a, column[b], weight)
            _count(counts, b, column[a], weight)
    return counts


class Chunk(NamedTuple):
    ids: Ints
    document: Ints  # the number of each piece's document; −1 if it is not chosen


def _chunks(store: TokenStore, documents: Ints, beyond: int) -> Iterator[Chunk]:
    """The pieces of the store, `CHUNK` at a time, and `beyond` of those that follow."""
    number = np.full(store.num_documents, -1)
    number[documents] = documents
    starts = store.sentences[store.documents]  # of documents, in pieces
    for at in range(0, len(store.ids), CHUNK):
        ids = store.ids[at : at + CHUNK + beyond].astype(np.int64)
        places = np.arange(at, at + len(ids))
        yield Chunk(ids, number[np.searchsorted(starts, places, "right") - 1])


def _count(counts: Floats, rows: Ints, columns: Ints, weight: Any) -> None:
    known = columns >= 0
    places = rows[known] * counts.shape[1] + columns[known]
    np.add.at(counts.reshape(-1), places, weight)


def positive_information(counts: Floats) -> Floats:
    """max(0, log(#(w, c) Σ#/(#(w) #(c)))), in the memory of the counts."""
    words, contexts = counts.sum(1), counts.sum(0) ** np.float32(SMOOTHING)
    counts *= contexts.sum()
    counts /= np.where(words > 0, words, 1)[:, None]
    counts /= np.where(contexts > 0, contexts, 1)
    np.maximum(counts, 1, out=counts)  # log 1 = 0
    np.log(counts, out=counts)
    return counts


def truncated_svd(M: Floats, rank: int, seed: int) -> tuple[Floats, Floats]:
    """U (m, r), s (r,) of the best approximation U diag(s) Vᵀ of M (m, n), r ≤ rank.

    The columns of Q (m, k) span nearly all that M does to random directions, after a few powers of
    M Mᵀ; the SVD of QᵀM (k, n), which is small, is then that of M.
    """
    k = min(rank + OVERSAMPLING, *M.shape)
    draws = np.random.default_rng(seed).standard_normal((M.shape[1], k), np.float32)
    Q = np.linalg.qr(M @ draws)[0]
    for _ in range(ITERATIONS):
        Q = np.linalg.qr(M.T @ Q)[0]
        Q = np.linalg.qr(M @ Q)[0]
    u, s, _ = np.linalg.svd(Q.T @ M, full_matrices=False)
    return (Q @ u)[:, :rank], s[:rank]
