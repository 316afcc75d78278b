"""Workers: the results of a loop, in its order, on several threads with BLAS held to one each."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minibert.parallel
from minibert.parallel import Turns, Workers, available_cores, share


@given(st.integers(1, 4), st.lists(st.integers(), max_size=9))
def test_map_is_a_loop(threads: int, items: list[int]) -> None:
    assert Workers(threads).map(lambda n: n * n, items) == [n * n for n in items]


def test_results_come_in_the_order_of_the_items_whatever_ends_first() -> None:
    def slow_first(n: int) -> int:
        time.sleep(0.02 if n == 0 else 0)
        return n

    assert Workers(3).map(slow_first, iter(range(6))) == list(range(6))


def test_items_really_run_at_once() -> None:
    meet = threading.Barrier(2, timeout=10)
    assert sorted(Workers(2).map(lambda _: meet.wait(), range(2))) == [0, 1]


@pytest.mark.parametrize(("threads", "items"), [(1, 3), (4, 1)])
def test_one_thread_or_one_item_runs_where_it_is(threads: int, items: int) -> None:
    here = threading.get_ident()
    assert Workers(threads).map(lambda _: threading.get_ident(), range(items)) == [here] * items


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    def fail(n: int) -> int:
        if n == 2:
            raise ArithmeticError("at two")
        return n

    workers = Workers(2)
    with pytest.raises(ArithmeticError, match="at two"):
        workers.map(fail, range(4))
    assert workers.map(abs, [-1, -2]) == [1, 2]  # and they go on working


def blas_threads() -> list[int]:
    blas = minibert.parallel._blas().select(user_api="blas")
    return [library["num_threads"] for library in blas.info()]


@pytest.mark.parametrize(
    ("threads", "items", "inside"),
    [(2, 2, 1), (1, 2, 1), (2, 1, 2)],
    ids=["one each", "one in all", "a single item has them all"],
)
def test_blas_has_its_share_inside_and_what_it_had_after(
    threads: int, items: int, inside: int
) -> None:
    with minibert.parallel._blas().limit(limits=3, user_api="blas"):
        before = blas_threads()
        counts = Workers(threads).map(lambda _: blas_threads(), range(items))
        assert counts == [[inside] * len(before)] * items
        assert blas_threads() == before


def test_error_handling_of_the_caller_reaches_the_threads() -> None:
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        Workers(2).map(lambda n: np.float32(1e38) * np.float32(n), [1, 10])


@pytest.mark.parametrize("threads", [0, -1])
def test_at_least_one_thread(threads: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {threads}"):
        Workers(threads)


@pytest.mark.parametrize(("value", "cores"), [("3", 3), ("1", 1)])
def test_the_user_may_set_the_number(
    value: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert available_cores() == Workers().threads == cores


@pytest.mark.parametrize("value", ["", "0", "2,2", "many", "-1"])
def test_anything_else_there_means_the_cores_of_this_process(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert available_cores() == 3


def test_turns_keep_the_order_of_the_shards_whichever_is_first() -> None:
    turns, order = Turns(), []

    def work(shard: int) -> None:
        with turns.of(shard) as turn:
            time.sleep(0.002 * (3 - shard % 4))  # the later the shard, the sooner it is ready
            for piece in "abc":
                with turn.next_piece():
                    order.append((piece, shard))

    Workers(4).map(work, range(7))
    for piece in "abc":
        assert [shard for p, shard in order if p == piece] == list(range(7))


def test_a_shard_that_fails_stops_those_that_wait_for_it() -> None:
    turns = Turns()

    def work(shard: int) -> None:
        with turns.of(shard) as turn:
            if shard == 0:
                time.sleep(0.01)
                raise MemoryError("no room")
            with turn.next_piece():
                raise AssertionError("it was not the turn of shard 1")

    with pytest.raises(MemoryError, match="no room"):
        Workers(2).map(work, range(2))


@pytest.mark.parametrize(("threads", "parts"), [(1, 1), (2, 2), (3, 3), (9, 4)])
def test_what_is_shared_runs_at_once_with_blas_on_one_thread_each(threads: int, parts: int) -> None:
    meet, seen = threading.Barrier(parts, timeout=10), []

    def work(part: int, of: int) -> None:
        meet.wait()
        seen.append((part, of, set(blas_threads())))

    Workers(threads).together(lambda: share(work))
    assert sorted(part for part, *_ in seen) == list(range(parts))
    assert all((of, blas) == (parts, {1}) for _, of, blas in seen)


@pytest.mark.parametrize(
    ("threads", "items", "better"), [(2, 99, True), (4, 5, True), (16, 4, True), (16, 5, False)]
)
def test_sharing_is_for_few_threads_or_few_items(threads: int, items: int, better: bool) -> None:
    assert Workers(threads).had_better_share(items) is better


def test_elsewhere_the_whole_is_one_part() -> None:
    workers, seen = Workers(2), []
    workers.together(lambda: None)
    share(lambda *part: seen.append(part))
    workers.map(lambda _: share(lambda *part: seen.append(part)), range(2))
    assert seen == [(0, 1)] * 3


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_a_part_comes_when_all_are_done(failing: int) -> None:
    done = []

    def work(part: int, _: int) -> None:
        if part == failing:
            raise ArithmeticError("in a part")
        time.sleep(0.02)
        done.append(part)

    with pytest.raises(ArithmeticError, match="in a part"):
        Workers(2).together(lambda: share(work))
    assert done == [1 - failing]


def test_error_handling_of_the_caller_reaches_the_parts() -> None:
    def overflow(part: int, _: int) -> None:
        np.float32(1e38) * np.float32(1 + 9 * part)

    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        Workers(2).together(lambda: share(overflow))
