"""A table on the screen and rows in the CSV for each shape."""

import csv
from pathlib import Path

from benchmarks.environment import device_columns
from benchmarks.measure import AGAIN, Contender, Table

COPY = "clone()"
COLUMNS = (
    "suite", "shape", "layout", "dtype", "work", "contender", "p20_ms", "p50_ms", "p80_ms",
    "rounds", "to_baseline", "baseline", "aa", "resolved", "peak_bytes", "input_bytes", "gb_per_s",
    "of_copy", "error", "date", "device", "threads", "python", "torch", "minkowski", "geonorm",
    "commit", "gflop_per_s",
)  # fmt: skip


def rows_of(
    shape: dict[str, str], contenders: list[Contender], table: Table, input_bytes: int,
    flops: int | None = None,
) -> list[dict[str, object]]:
    """Return a CSV row for each contender.

    gb_per_s counts the bytes that the contender's passes have to move; of_copy is that rate over
    the one of a plain copy in the same rounds. gflop_per_s counts the work's operations, `flops`.
    """

    def rate(contender: Contender) -> float | None:
        if contender.units is None:
            return None
        return contender.units * input_bytes / table.percentile(contender.name, 0.5) / 1e6

    copy = next((rate(c) for c in contenders if c.name == COPY), None)
    rows = []
    for contender in contenders:
        speed = rate(contender)
        rows.append({
            **shape,
            "contender": contender.name,
            **{f"p{share}_ms": f"{table.percentile(contender.name, share / 100):.4g}"
               for share in (20, 50, 80)},
            "rounds": len(table.times[contender.name]),
            "to_baseline": f"{table.ratio(contender.name):.3f}",
            "baseline": table.baseline,
            "aa": f"{table.ratio(table.baseline + AGAIN):.3f}",
            "resolved": "yes" if table.resolved else "no",
            "peak_bytes": table.peaks[contender.name],
            "input_bytes": input_bytes,
            "gb_per_s": "" if speed is None else f"{speed:.1f}",
            "of_copy": "" if speed is None or copy is None else f"{speed / copy:.2f}",
            "gflop_per_s": "" if flops is None else
                           f"{flops / table.percentile(contender.name, 0.5) / 1e6:.1f}",
        })  # fmt: skip
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """Print the table of one shape."""
    first = rows[0]
    state = "" if first["resolved"] == "yes" else "  UNRESOLVED"
    print(f"\n{first['suite']}  {first['shape']}  {first['layout']}  {first['dtype']}  "
          f"{first['work']}   A/A {first['aa']}{state}")  # fmt: skip
    print(f"  {'':32}{'p20':>9}{'p50':>9}{'p80':>9} ms {'/baseline':>10}{'GB/s':>8}"
          f"{'of copy':>9}{'GFLOP/s':>9}{'peak/input':>12}")  # fmt: skip
    for row in rows:
        peak = int(row["peak_bytes"]) / max(1, int(row["input_bytes"]))
        print(f"  {row['contender']:32}{row['p20_ms']:>9}{row['p50_ms']:>9}{row['p80_ms']:>9}    "
              f"{row['to_baseline']:>10}{row['gb_per_s']:>8}{row['of_copy']:>9}"
              f"{row['gflop_per_s']:>9}{peak:>12.2f}",
              flush=True)  # fmt: skip


def append(rows: list[dict[str, object]], path: Path) -> None:
    """Append rows to the CSV, with what they depend on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows({**row, **device_columns()} for row in rows)
