"""Progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


def bar(
    total: int | None, description: str, *, unit: str, initial: int = 0, disable: bool = False
) -> Any:
    """A tqdm bar on stderr; silent where stderr is not a terminal. `total` None: not known."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        unit_scale=total is None,
        dynamic_ncols=True,
        leave=False,
        disable=disable or not sys.stderr.isatty(),
    )


def tracked(
    items: Iterable[Item],
    total: int | None,
    description: str,
    *,
    size: Callable[[Item], int],
    unit: str,
    disable: bool = False,
) -> Iterator[Item]:
    """The items, with a bar that advances by `size(item)` after each."""
    with bar(total, description, unit=unit, disable=disable) as progress:
        for item in items:
            yield item
            progress.update(size(item))


def say(text: str) -> None:
    """One line on stdout, above a bar that may be running."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
