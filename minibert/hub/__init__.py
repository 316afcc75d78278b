"""A name → a verified local directory: models and the default data."""

from __future__ import annotations

from minibert.hub.default_data import movie_reviews
from minibert.hub.names import DEFAULT_MODEL, resolve_model

__all__ = ["DEFAULT_MODEL", "movie_reviews", "resolve_model"]
