"""Figures of the README from the CSV, by nothing but its rows."""

import csv
import re
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STYLES = {
    "ours": ("tab:blue", "o"),
    "ours, fused ReLU": ("tab:cyan", "o"),
    "ours, rows sorted": ("tab:blue", "1"),
    "ours, one instance": ("tab:blue", "2"),
    "our reference": ("tab:gray", "v"),
    "torch.compile": ("tab:olive", "v"),
    "MinkowskiInstanceNorm": ("tab:red", "s"),
    "InstanceNorm3d": ("tab:red", "s"),
    "GroupNorm(C, C)": ("tab:orange", "D"),
    "torch on its maps": ("tab:red", "s"),
    "its matrix product": ("black", "|"),
    "ours, bfloat16": ("tab:cyan", "o"),
    "BatchNorm1d + ReLU": ("tab:green", "^"),
    "BatchNorm3d + ReLU": ("tab:green", "^"),
    "clone()": ("black", "|"),
}
DRAWN = ("sparse", "video", "conv", "train")
Rows = list[dict[str, str]]


def draw(path: Path, folder: Path) -> list[Path]:
    """Draw a figure per suite, dtype and device from their newest rows; return the files.

    Raises:
        ValueError: the CSV does not exist or holds no row that can be drawn.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path} to draw; run a suite of tools/bench.py first")
    rows = read_newest(path)
    groups: dict[tuple[str, str, str], Rows] = defaultdict(list)
    for row in rows:
        if row["suite"] in DRAWN and row["work"] != "forward":
            groups[row["suite"], row["dtype"], row["device"]].append(row)
    if not groups:
        raise ValueError(f"{path} holds no row of the suites {', '.join(DRAWN)}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for (suite, dtype, device), chosen in groups.items():
        name = re.sub(r"\W+", "_", f"bench_{suite}_{dtype}_{device}").strip("_").lower()
        file = folder / f"{name}.png"
        written.append(_figure(f"{suite}, {dtype}", device, chosen, file))
    return written


def read_newest(path: Path) -> Rows:
    """Return the newest rows of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return newest([*csv.DictReader(file)])


def newest(rows: Rows) -> Rows:
    """Return the last row of each contender at each shape and device."""
    keys = ("suite", "shape", "layout", "dtype", "work", "contender", "device")
    return [*{tuple(row[key] for key in keys): row for row in rows}.values()]


def _figure(title: str, device: str, rows: Rows, path: Path) -> Path:
    """Draw each contender's median over the baseline's, a line per shape."""
    labels = [*dict.fromkeys(_label(row) for row in rows)]
    figure, axes = plt.subplots(figsize=(10, 1.6 + 0.2 * len(labels)), layout="constrained")
    for name in dict.fromkeys(row["contender"] for row in rows):
        if name == rows[0]["baseline"]:
            continue
        color, marker = STYLES.get(name, ("tab:purple", "x"))
        mine = [row for row in rows if row["contender"] == name]
        axes.scatter(
            [float(row["to_baseline"]) for row in mine],
            [labels.index(_label(row)) for row in mine],
            color=color, marker=marker, s=24, label=name, zorder=3,
        )  # fmt: skip
    axes.axvline(1, color="tab:green", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.grid(axis="both", alpha=0.3)
    axes.set_xlabel(f"median time / {rows[0]['baseline']} (left is faster)")
    axes.set_title(f"{title}, {rows[0]['work']}: {device}; * unresolved", fontsize=9)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    figure.legend(fontsize=7, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _label(row: dict[str, str]) -> str:
    mark = "" if row["resolved"] == "yes" else " *"
    return f"{row['shape']}, {row['layout']}{mark}"
