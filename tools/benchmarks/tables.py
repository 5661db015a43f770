"""Tables of the documentation from the CSV, by nothing but its rows."""

from collections import defaultdict
from pathlib import Path

from benchmarks.plot import Rows, read_newest
from geonorm.tables import as_markdown

HEAD = """# Benchmarks

Written from [benchmarks.csv](benchmarks.csv) by `tools/bench.py --plot`; what they mean is in
[performance.md](performance.md). Times are medians in milliseconds; a ratio below 1 is faster than
batch norm in the same run. «/ copy» is the time over that of `clone()`; by the bytes that have to
move it is 1.5 at best forward and 4 forward and backward, unless a cache holds a part of them. Rows
with * are unresolved: in them batch norm, measured twice, differs from itself by more than 5%. The
machine measured last comes first; another one keeps its rows of an earlier commit.
"""
# heading of a column -> the contender whose time stands over that of ours, by suite
OTHERS = {
    "sparse": {"MinkowskiEngine's": "MinkowskiInstanceNorm",
               "batch norm each": "F.batch_norm per instance",
               "rows sorted": "ours, rows sorted", "one instance": "ours, one instance",
               "reference": "our reference"},
    "video": {"InstanceNorm3d": "InstanceNorm3d", "GroupNorm(C, C)": "GroupNorm(C, C)",
              "reference": "our reference"},
}  # fmt: skip


def write(path: Path, to: Path) -> Path:
    """Write the tables of every suite from the newest rows of the CSV; return the file."""
    rows = read_newest(path)
    dates = {row["device"]: row["date"] for row in sorted(rows, key=lambda row: row["date"])}
    rows.sort(key=lambda row: dates[row["device"]], reverse=True)
    groups: dict[tuple[str, ...], Rows] = defaultdict(list)
    for row in rows:
        groups[row["suite"], row["device"], row["dtype"], row["work"]].append(row)
    sections = {"sparse": _norms, "video": _norms, "conv": _convolutions, "passes": _each,
                "train": _each, "memory": _peaks, "pipeline": _peaks}
    text = HEAD
    for (suite, device, dtype, work), chosen in groups.items():
        if suite in sections:
            state = f"torch {chosen[-1]['torch']}, commit {chosen[-1]['commit']}"
            threads = f", {chosen[-1]['threads']} threads" if chosen[-1]["threads"] else ""
            text += f"\n## {suite}, {dtype}, {work}, {device}\n\n{state}{threads}.\n\n"
            text += sections[suite](chosen)
    for device in dict.fromkeys(row["device"] for row in rows if row["suite"] == "accuracy"):
        chosen = [r for r in rows if r["suite"] == "accuracy" and r["device"] == device]
        text += f"\n## Relative error to float64, {device}\n\n{_errors(chosen)}"
    to.write_text(text, encoding="utf-8")
    return to


def _table(head: list[str], lines: list[list[str]]) -> str:
    return as_markdown([head, *lines]) + "\n"


def _by_shape(rows: Rows) -> dict[tuple[str, str], dict[str, dict[str, str]]]:
    shapes: dict[tuple[str, str], dict[str, dict[str, str]]] = defaultdict(dict)
    for row in rows:
        shapes[row["shape"], row["layout"]][row["contender"]] = row
    return shapes


def _norms(rows: Rows) -> str:
    others, baseline = OTHERS[rows[0]["suite"]], rows[0]["baseline"]
    lines = []
    for (shape, layout), each in _by_shape(rows).items():
        time = {name: float(row["p50_ms"]) for name, row in each.items()}
        ours, base, copied = time["ours"], time[baseline], time["clone()"]
        fused = time["ours, fused ReLU"] / time[f"{baseline} + ReLU"]
        mark = "" if each["ours"]["resolved"] == "yes" else " *"
        lines.append([
            shape + mark, layout, f"{base:.3g}", f"{ours:.3g}",
            f"{float(each['ours']['to_baseline']):.2f}",
            f"{ours / copied:.1f}", f"{fused:.2f}",
            *(f"{time[name] / ours:.3g}" if name in time else "" for name in others.values()),
        ])  # fmt: skip
    return _table(
        ["shape", "order", baseline, "ours", "ours / it", "/ copy", "with ReLU",
         *(f"{name} / ours" for name in others)], lines,
    )  # fmt: skip


def _convolutions(rows: Rows) -> str:
    """Return a line for each convolution, one for all of an input, and one for each step."""
    lines, inputs = [], defaultdict(list)
    for (shape, layout), each in _by_shape(rows).items():
        time = {name: float(row["p50_ms"]) for name, row in each.items()}
        mark = "" if each["ours"]["resolved"] == "yes" else " *"
        lines.append([shape + mark, layout, *_convolution(time, each)])
        if layout.endswith("of them"):
            count = int(layout.split()[0])
            inputs[shape.partition(",")[0]].append({k: count * ms for k, ms in time.items()})
    for source, times in inputs.items():
        common = set(times[0]).intersection(*times)
        total = {name: sum(time[name] for time in times) for name in common}
        lines.append([f"{source}, all of them", "the sum", *_convolution(total, {})])
    return _table(
        ["what", "count", "MinkowskiEngine", "ours", "/ it", "torch / it", "GFLOP/s",
         "of its matrix product", "memory / it", "ours in bfloat16 / ours"], lines,
    )  # fmt: skip


def _convolution(time: dict[str, float], each: dict[str, dict[str, str]]) -> list[str]:
    """Return the cells of one convolution; those that are not known are empty."""
    base, ours = time["MinkowskiEngine"], time["ours"]

    def ratio(one: float | None, other: float | None) -> str:
        return "" if one is None or other is None else f"{one / other:.2f}"

    mine, theirs = each.get("ours"), each.get("MinkowskiEngine")
    peaks = None if mine is None else float(mine["peak_bytes"]) / float(theirs["peak_bytes"])
    return [
        f"{base:.4g}", f"{ours:.4g}", ratio(ours, base),
        ratio(time.get("torch on its maps"), base), (mine or {}).get("gflop_per_s") or "",
        ratio(time.get("its matrix product"), ours), "" if peaks is None else f"{peaks:.2f}",
        ratio(time.get("ours, bfloat16"), ours),
    ]


def _each(rows: Rows) -> str:
    lines = [
        [f"{r['shape']}{'' if r['resolved'] == 'yes' else ' *'}", r["layout"], r["contender"],
         r["p50_ms"], r["to_baseline"], r["of_copy"]]
        for r in rows
    ]  # fmt: skip
    return _table(
        ["shape", "order", "what", "ms", f"/ {rows[0]['baseline']}", "bytes per time, of copy's"],
        lines,
    )


def _peaks(rows: Rows) -> str:
    lines = [
        [f"{r['shape']}{'' if r['resolved'] == 'yes' else ' *'}", r["contender"], r["p50_ms"],
         r["to_baseline"], f"{float(r['peak_bytes']) / 2**20:,.0f}"]
        for r in rows
    ]  # fmt: skip
    return _table(["shape", "what", "ms", f"/ {rows[0]['baseline']}", "peak MiB"], lines)


def _errors(rows: Rows) -> str:
    names = [*dict.fromkeys(row["contender"] for row in rows)]
    found: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for row in rows:
        found[row["dtype"], row["shape"], row["work"]][row["contender"]] = row["error"]
    lines = [[*key, *(each.get(name, "") for name in names)] for key, each in found.items()]
    return _table(["dtype", "", "work", *names], lines)
