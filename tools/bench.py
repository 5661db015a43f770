#!/usr/bin/env python
"""Time geonorm's norms and convolutions beside torch's, MinkowskiEngine's and the machine's limits.

  python tools/bench.py                         every suite; some minutes each
  python tools/bench.py --suite sparse --only 100,000   the shapes whose name has that text
  python tools/bench.py --plot docs/figures     draw the CSV, write its tables

All contenders of a shape run in turn, round after round, so that what else the machine does hits
them alike; the baseline runs twice under two names (A/A), and a shape where these two differ by
more than 5% is marked unresolved. The allocator is pinned: glibc would return every large tensor
to the system, and page faults would be measured. Rows are appended to a CSV with device, versions
and commit; losing shapes too.
"""

import sys
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]


def bench(
    suite: Literal[
        "all", "sparse", "video", "conv", "passes", "train", "memory", "pipeline", "accuracy"
    ] = "all",
    scans: Path | None = None,
    video: Path | None = None,
    only: str = "",
    dtypes: list[Literal["float32", "bfloat16"]] | None = None,
    seconds: float = 4.0,
    threads: int | None = None,
    csv: Path = ROOT / "docs" / "benchmarks.csv",
    plot: Path | None = None,
) -> int:
    """Run suites, print a table for each shape and append its rows to the CSV; or draw the CSV.

    Args:
        suite: "sparse" (rows of MinkUNet34C and of other sizes), "video" (r3d_18), "passes" (where
            a norm's time goes), "conv" (convolutions of MinkUNet34C, and whole steps with them),
            "train" (whole steps of MinkUNet18 and r3d_18, and where their time goes), "memory"
            (steps that compute norms again), "pipeline" (files to labels and logits), "accuracy"
            (against float64), or "all" of these.
        scans: a SemanticKITTI .bin file for the shapes of MinkUNet; a built-in scan by default.
        video: a film for the suite "pipeline"; a built-in one by default.
        only: leave out shapes whose name does not contain this text.
        dtypes: of the features; both by default.
        seconds: time for each table; more gives sharper percentiles.
        threads: of torch; its default otherwise.
        csv: where rows are appended.
        plot: measure nothing, draw the CSV into this folder and write its tables beside it.
    """
    from benchmarks.environment import pin_allocator

    pin_allocator()
    if plot is not None:
        from benchmarks.plot import draw
        from benchmarks.tables import write

        for path in (*draw(csv, plot), write(csv, csv.with_suffix(".md"))):
            print(f"wrote {path}")
        return 0
    from benchmarks.run import run_suites

    every = ("accuracy", "sparse", "video", "conv", "passes", "train", "memory", "pipeline")
    names = every if suite == "all" else (suite,)
    run_suites(names, scans, video, only, dtypes or ["float32", "bfloat16"], seconds, threads, csv)
    return 0


if __name__ == "__main__":
    from jsonargparse import auto_cli

    sys.exit(auto_cli(bench, description=__doc__))
