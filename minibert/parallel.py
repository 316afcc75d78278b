"""Threads over shards: the only file that knows there is more than one core.

NumPy releases the interpreter's lock inside its products and element-wise loops, so plain threads
scale. Each worker runs BLAS on one thread: two workers with one BLAS thread each beat one worker
with two, because the element-wise work between the products is then parallel as well.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

SHARERS = 4  # threads that share one product: more spend their time on waking up


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


def blas_cores() -> set[str]:
    """The cores whose kernels the loaded BLAS libraries run, as OpenBLAS calls them."""
    libraries = _blas().select(user_api="blas").info()
    return {library.get("architecture", "") for library in libraries}


_here = threading.local()  # .workers: those whose `together` this thread is in


def share(work: Callable[[int, int], object]) -> None:
    """work(0, n), …, work(n − 1, n), at once, if this thread is in `Workers.together`; else alone.

    Every part is done, or has failed, when this returns.
    """
    workers: Workers | None = getattr(_here, "workers", None)
    parts = 1 if workers is None else min(workers.threads, SHARERS)
    if workers is None or parts == 1:
        work(0, 1)
        return
    run, submit = contextvars.Context.run, workers._pool.submit
    others = [
        submit(run, contextvars.copy_context(), work, part, parts) for part in range(1, parts)
    ]
    try:
        work(0, parts)
    finally:
        wait(others)
    for other in others:
        other.result()


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

    def together(self, function: Callable[[], Result]) -> Result:
        """`function()` here, with BLAS on one thread; for what it `share`s the others are there."""
        with self.blas_threads(1):
            _here.workers = self
            try:
                return function()
            finally:
                del _here.workers

    def had_better_share(self, items: int) -> bool:
        """Whether `map` over so many items would not employ more threads than can `share` one."""
        return min(self.threads, items) <= SHARERS

    def blas_threads(self, threads: int) -> AbstractContextManager[Any]:
        """BLAS on `threads` threads inside the `with` block, for the whole process."""
        limit: AbstractContextManager[Any] = _blas().limit(limits=threads, user_api="blas")
        return limit


class Turns:
    """Lets shards add up what they computed in a fixed order, piece by piece.

    Shards run on several threads and each produces the same pieces (gradients of the head, of the
    last layer, …). A shard adds its piece p when all earlier shards have added theirs, so the
    sum is the same to the last bit however the threads race, in one buffer instead of one for each
    thread. It cannot block for ever: `Workers.map` begins shards in their order.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shards_done: Counter[int] = Counter()  # piece → shards that have added it
        self._failed = False

    @contextmanager
    def of(self, shard: int) -> Iterator[Turn]:
        """The turn of one shard; if it fails in the block, those that wait for it fail too."""
        try:
            yield Turn(self, shard)
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise

    @contextmanager
    def _piece(self, piece: int, shard: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._failed or self._shards_done[piece] == shard)
            if self._shards_done[piece] != shard:  # an earlier shard failed: its error comes first
                raise RuntimeError("another shard of this batch failed")
        yield
        with self._changed:
            self._shards_done[piece] += 1
            self._changed.notify_all()


class Turn:
    """One shard's place among the others; see `Turns`."""

    def __init__(self, turns: Turns, shard: int) -> None:
        self._turns, self._shard, self._pieces = turns, shard, 0

    @contextmanager
    def next_piece(self) -> Iterator[None]:
        """Waits until the earlier shards have done this piece; the block does it."""
        with self._turns._piece(self._pieces, self._shard):
            yield
        self._pieces += 1
