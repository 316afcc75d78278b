"""Threads over shards: the only file that knows there is more than one core.

NumPy releases the interpreter's lock inside its products and element-wise loops, so plain threads
scale. Each worker runs BLAS on one thread: two workers with one BLAS thread each beat one worker
with two, because the element-wise work between the products is then parallel as well.
"""

from __future__ import annotations

import contextvars
import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores this process may run on; OMP_NUM_THREADS, where set, is the user's own choice."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _blas() -> Any:
    """The BLAS libraries NumPy has loaded. Made once: finding them takes milliseconds."""
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


class Workers:
    """A pool of `threads` threads that runs independent pieces of one job."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads if threads is not None else available_cores()
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")

    @functools.cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix="minibert")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`[function(item) for item in items]`, in parallel, results in the order of the items.

        A single item runs here, with BLAS on all the threads.
        """
        items = list(items)
        if self.threads == 1 or len(items) <= 1:
            with self.blas_threads(self.threads):
                return [function(item) for item in items]
        with self.blas_threads(1):
            # Each item in a copy of the caller's context: np.errstate reaches the threads too.
            contexts = [contextvars.copy_context() for _ in items]
            run = contextvars.Context.run
            return list(self._pool.map(run, contexts, [function] * len(items), items))

    def blas_threads(self, threads: int) -> AbstractContextManager[Any]:
        """BLAS on `threads` threads inside the `with` block, for the whole process."""
        limit: AbstractContextManager[Any] = _blas().limit(limits=threads, user_api="blas")
        return limit
