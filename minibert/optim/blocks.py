"""A flat buffer in blocks that stay in the cache, spread over threads.

On the CPU an update is limited by memory: worked block by block, all its passes find the block in
the cache, and each number crosses the memory bus once. On a GPU a block is the whole buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from minibert.backend import Array
from minibert.parallel import Workers

Item = TypeVar("Item")
Result = TypeVar("Result")

BLOCK = 1 << 17  # elements; smaller ones fit L2 better, but pass the interpreter's lock more often


def on_host(array: Array) -> bool:
    """The array API's word for host memory; a GPU array's device is an object."""
    return bool(array.device == "cpu")


def blocks(start: int, stop: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, stop)) for at in range(start, stop, size)]


def spread(
    workers: Workers, items: Sequence[Item], function: Callable[[Item, int], Result]
) -> list[Result]:
    """`[function(item, worker)]` in the order of the items; a worker takes one span of them.

    One job a worker, not one an item: there are thousands of blocks, and a job costs 15 µs.
    """
    count = min(workers.threads, len(items))
    bounds = [worker * len(items) // max(count, 1) for worker in range(count + 1)]

    def run(worker: int) -> list[Result]:
        span = items[bounds[worker] : bounds[worker + 1]]
        return [function(item, worker) for item in span]

    return [result for span in workers.map(run, range(count)) for result in span]
