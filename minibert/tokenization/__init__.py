"""Text → ids: WordPiece with BERT's special tokens, from and to Hugging Face's files."""

from __future__ import annotations

from minibert.tokenization.encoding import AlignedEncoding, Encoding, Pieces
from minibert.tokenization.tokenizer import BertTokenizer

__all__ = ["AlignedEncoding", "BertTokenizer", "Encoding", "Pieces"]
