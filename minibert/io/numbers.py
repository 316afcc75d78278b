"""Numbers as people read them."""

from __future__ import annotations


def four_places(value: float) -> str:
    """0.8512; from a million on 1.014e+304, where a diverged run's perplexity has 305 digits."""
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.4g}"


def counted(number: int, noun: str) -> str:
    """1 thread, 2 threads, 12,000 threads."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
