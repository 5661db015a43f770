"""The suites, one table after another."""

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.environment import device_columns
from benchmarks.measure import measure
from benchmarks.report import append, rows_of, show
from benchmarks.workload import Workload


def run_suites(
    suites: Sequence[str], scan: Path | None, video: Path | None, only: str, dtypes: list[str],
    seconds: float, threads: int | None, csv: Path,
) -> None:
    """Measure, print and append, table by table, so that an interrupted run leaves its rows."""
    if threads is not None:
        torch.set_num_threads(threads)
    print("  ".join(f"{key} {value}" for key, value in device_columns().items() if value))
    unresolved = 0
    for suite in suites:
        if suite == "accuracy":
            from benchmarks import accuracy

            rows = accuracy.accuracy_rows(dtypes)
            accuracy.show(rows)
            append(rows, csv)
            continue
        for workload in _workloads(suite, scan, video, dtypes):
            if only not in f"{workload.shape} {workload.layout} {workload.work}":
                continue
            contenders = workload.make()
            table = measure(contenders, workload.baseline, seconds)
            rows = rows_of(workload.columns, contenders, table, workload.input_bytes,
                           workload.flops)
            show(rows)
            append(rows, csv)
            unresolved += not table.resolved
            if suite == "train":
                from benchmarks.passes import show_step

                for step in contenders:
                    show_step(workload.shape, step)
            del contenders
            gc.collect()
    print(f"\nrows appended to {csv}; {unresolved} tables unresolved (A/A outside 0.95 to 1.05)")


def _workloads(
    suite: str, scan: Path | None, video: Path | None, dtypes: list[str]
) -> Iterator[Workload]:
    # MinkowskiEngine is needed by some suites only.
    if suite == "sparse":
        from benchmarks import sparse

        return sparse.workloads(scan, dtypes)
    if suite == "video":
        from benchmarks import video

        return video.workloads(dtypes)
    if suite == "conv":
        from benchmarks import conv

        return conv.workloads(scan, dtypes)
    if suite == "passes":
        from benchmarks import passes

        return passes.workloads()
    if suite == "memory":
        from benchmarks import memory

        return memory.workloads(scan)
    if suite == "pipeline":
        from benchmarks import pipeline

        return pipeline.workloads(scan, video)
    from benchmarks import train

    return train.workloads(scan)
