"""Where the time goes: the passes of a norm beside the copy speed, the operators of a step."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Contender, forward
from benchmarks.sparse import sparse_tensor
from benchmarks.workload import DEVICE, Workload, copy
from geonorm import SparseInstanceNorm

BASELINE = "BatchNorm1d forward"
# rows, channels, instances
SIZES = ((64, 32, 1), (20_000, 32, 4), (20_000, 256, 8), (100_000, 96, 4), (500_000, 32, 4))


def workloads() -> Iterator[Workload]:
    """Yield a table of passes for each size, interleaved rows; the first is all overhead."""
    for rows, channels, instances in SIZES:
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
        batch = (torch.arange(rows) * instances // rows)[order]
        yield Workload(
            "passes", f"rows {rows:,}x{channels}, B={instances}", "interleaved", "float32", "pass",
            BASELINE, rows * channels * 4,
            lambda b=batch, c=channels: _passes(b, c),
        )  # fmt: skip


def _passes(batch: torch.Tensor, channels: int) -> list[Contender]:
    generator = torch.Generator().manual_seed(1)
    features, grad = (
        torch.randn(len(batch), channels, generator=generator).to(DEVICE) for _ in range(2)
    )
    index, instances = batch.to(DEVICE), int(batch.max()) + 1
    norm, other = SparseInstanceNorm(channels, device=DEVICE), nn.BatchNorm1d(channels).to(DEVICE)
    weight, bias = (p.detach() for p in norm.parameters())
    ops, x = torch.ops.geonorm, sparse_tensor(batch, features)
    parameters = (None, weight, bias, channels)
    _, *stats = ops.segment_norm(features, index, instances, *parameters, 1e-5, "none", 0.0)

    return [
        copy(features),
        Contender("statistics", forward(
            lambda rows: ops.segment_stats(rows, index, instances, None, channels), features
        ), 1.0),
        Contender("forward, operator", forward(
            lambda rows: ops.segment_norm(rows, index, instances, *parameters, 1e-5, "none", 0.0),
            features,
        ), 3.0),
        Contender("forward, module", forward(norm, x), 3.0),
        Contender(BASELINE, forward(other, features), 3.0),
        Contender("backward, operator", forward(
            lambda rows: ops.segment_norm_backward(
                grad, rows, index, *stats, *parameters, "none", 0.0), features
        ), 5.0),
    ]  # fmt: skip


def show_step(name: str, step: Contender, lines: int = 8) -> None:
    """Print the operators that a training step spends its own time in."""
    step.run()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step.run()
    events = [e for e in recorded.key_averages() if e.self_cpu_time_total > 0]
    total = sum(event.self_cpu_time_total for event in events)
    print(f"\n{name}, {step.name}: {total / 1e3:.0f} ms")
    for event in sorted(events, key=lambda e: -e.self_cpu_time_total)[:lines]:
        share = event.self_cpu_time_total / total
        print(f"  {share:6.1%} {event.count:5} times {event.key}")
