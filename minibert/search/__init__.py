"""Semantic search: passages of text or code, found by what they mean."""

from __future__ import annotations

from minibert.search.index import Hit, SearchIndex
from minibert.search.passages import Cut, Passage

__all__ = ["Cut", "Hit", "Passage", "SearchIndex"]
