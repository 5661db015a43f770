"""Contenders timed in turn, with percentiles, an A/A check and the peak of their memory."""

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

MIN_ROUNDS = 5
SHORT = 5.0  # milliseconds that are not worth sitting out
MOST_SAT_OUT = 8  # a slow contender runs in every eighth round at least
AGAIN = " again"  # the baseline's second name
RESOLVED = (0.95, 1.05)


@dataclass
class Contender:
    """One way to do the work of a shape.

    Attributes:
        name: as it stands in the table.
        run: does the work once.
        units: how many times the work has to read or write a tensor of the input's size.
    """

    name: str
    run: Callable[[], object]
    units: float | None = None


@dataclass
class Table:
    """Result at one shape: milliseconds of every round, and peak bytes."""

    baseline: str
    times: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    def percentile(self, name: str, share: float) -> float:
        """Return the time below which that share of the rounds lies."""
        ordered = sorted(self.times[name])
        return ordered[round(share * (len(ordered) - 1))]

    def ratio(self, name: str) -> float:
        """Return the median time over that of the baseline."""
        return self.percentile(name, 0.5) / self.percentile(self.baseline, 0.5)

    @property
    def resolved(self) -> bool:
        """Return whether the baseline agrees with itself."""
        return RESOLVED[0] <= self.ratio(self.baseline + AGAIN) <= RESOLVED[1]


def forward(module: Callable[[object], object], x: object) -> Callable[[], object]:
    """Return the work of inference."""

    def run() -> object:
        with torch.no_grad():
            return module(x)

    return run


def forward_backward(
    module: Callable[[object], object], x: object, leaves: Iterable[Tensor], upstream: Tensor
) -> Callable[[], object]:
    """Return the work of training: forward, and backward to the input and the parameters."""
    wanted = [*leaves]

    def run() -> object:
        out = module(x)
        out = getattr(out, "F", out)
        return torch.autograd.grad(out, wanted, upstream)

    return run


def measure(contenders: list[Contender], baseline: str, seconds: float) -> Table:
    """Time contenders in turn until the time is spent; the baseline takes part twice.

    Those much slower than the baseline sit rounds out, so that the others get more of them.
    """
    twin = next(c for c in contenders if c.name == baseline)
    entries = [*contenders, Contender(baseline + AGAIN, twin.run, twin.units)]
    table = Table(baseline, {entry.name: [] for entry in entries})
    clock = _cuda_clock() if torch.cuda.is_available() else _cpu_clock
    first = {}
    for entry in entries:  # the first call allocates and compiles
        entry.run()
        table.peaks[entry.name] = peak_bytes(entry.run)
        first[entry.name] = clock(entry.run)
    turn = {name: _turn(spent, first[baseline]) for name, spent in first.items()}
    shuffler, start, rounds = random.Random(0), time.perf_counter(), 0
    least = MIN_ROUNDS * max(turn.values())
    while rounds < least or time.perf_counter() - start < seconds:
        shuffler.shuffle(entries)  # what one leaves in the cache must not always meet the same next
        for entry in entries:
            if rounds % turn[entry.name] == 0:
                table.times[entry.name].append(clock(entry.run))
        rounds += 1
    return table


def _turn(spent: float, baseline: float) -> int:
    """Return in which rounds, every how many, a contender of that many milliseconds runs."""
    return 1 if spent < SHORT else min(MOST_SAT_OUT, max(1, int(spent / baseline / 2)))


def _cpu_clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def _cuda_clock() -> Callable[[Callable[[], object]], float]:
    """Return a clock by CUDA events that first empties the L2 cache."""
    size = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    filler = torch.empty(4 * size, dtype=torch.uint8, device="cuda")

    def clock(run: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        filler.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return clock


def peak_bytes(run: Callable[[], object]) -> int:
    """Return how far the work's memory rises above what was allocated before it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak
