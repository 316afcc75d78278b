"""Model directories in Hugging Face's layout, in and out; nothing is ever unpickled."""

from __future__ import annotations

from minibert.checkpoint.directory import LoadReport, load_checkpoint, save_checkpoint

__all__ = ["LoadReport", "load_checkpoint", "save_checkpoint"]
