"""Text → ids: WordPiece with BERT's special tokens, from and to Hugging Face's files."""

from __future__ import annotations

from minibert.tokenization.tokenizer import BertTokenizer, Encoding

__all__ = ["BertTokenizer", "Encoding"]
