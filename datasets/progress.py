"""Work on many files: in threads, and with a line now and then that says how far it is."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

SECONDS = 10.0  # between two lines; what takes less says nothing


def progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yield the items, saying on standard error how many of them are done and how long it takes.

    Args:
        items: one by one as they are done.
        total: how many there will be.
        what: is done to what, such as "probing videos".

    Example:
        >>> sum(progress([1, 2, 3], 3, "adding numbers"))
        6
    """
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        now = time.monotonic()
        if now - said >= SECONDS:
            said = now
            left = timedelta(seconds=round((now - start) * (total - done) / done))
            print(f"{what}: {done:,} of {total:,}, {left} left", file=sys.stderr, flush=True)
        yield item


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], what: str, threads: int | None = None
) -> list[Result]:
    """Return the function's result for each item, in order; for work that waits for disks.

    Args:
        function: called from several threads at once.
        items: its arguments.
        what: is done to what, for `progress`.
        threads: how many; by default four for each core, and 32 at most.

    Example:
        >>> in_threads(len, ["ab", "c"], "measuring words")
        [2, 1]
    """
    threads = threads or min(32, 4 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(threads) as pool:
        return list(progress(pool.map(function, items), len(items), what))
