"""The rows that verify_invariance.py measures, their verdicts, and how they are shown."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

MOVES = 1e-2  # a control that changes by less than this shows nothing


# How the figure shows a norm that must stay, a control, and what is looked at beside them.
MARKS = {
    "others": (".", "0.75", "other norms"),
    "control": ("x", "tab:red", "controls, which must move"),
    "stays": ("o", "tab:blue", "ours, which must stay"),
}


def change(before: Tensor, after: Tensor) -> float:
    """Return ‖after − before‖ / ‖before‖ in float64."""
    before, after = before.detach().double(), after.detach().double()
    return float((after - before).norm() / before.norm())


@dataclass
class Row:
    """Change of each norm's output under one change of the input.

    Args:
        level: what is looked at: an op, a layer, a network, a pipeline.
        pattern: what is done to the input.
        changes: relative change of the output under each norm, by the norm's name; None where the
            norm cannot take this input.
        stays: the names of the norms that must not move by more than `tolerance`.
        moves: the names of the controls, which must move by more than MOVES.
        tolerance: largest relative change of a norm that must stay.
    """

    level: str
    pattern: str
    changes: dict[str, float | None]
    stays: tuple[str, ...]
    tolerance: float
    moves: tuple[str, ...] = ()
    breaches: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.breaches = []
        for name in self.stays:
            value = self.changes[name]
            if value is None or not value <= self.tolerance:
                self.breaches.append(f"{name} must stay within {self.tolerance:g}, moved {value}")
        for name in self.moves:
            value = self.changes[name]
            if value is None or math.isnan(value) or value <= MOVES:
                self.breaches.append(f"control {name} must move by > {MOVES:g}, moved {value}")

    def cell(self, name: str) -> str:
        """Return one change as text: * must stay, ! is a control that must move."""
        if name not in self.changes:
            return ""
        value = self.changes[name]
        mark = "*" if name in self.stays else "!" if name in self.moves else " "
        return ("n/a" if value is None else f"{value:.1e}") + mark


def uncontrolled(rows: list[Row]) -> list[str]:
    """Return the levels on which no row names a control: there nothing could fail."""
    levels = {row.level for row in rows}
    return sorted(levels - {row.level for row in rows if row.moves})


def as_text(rows: list[Row]) -> str:
    """Return the table for a terminal."""
    columns = list(dict.fromkeys(name for row in rows for name in row.changes))
    lines = [["level", "input change", *columns, ""]]
    for row in rows:
        verdict = "ok" if not row.breaches else "BREACH"
        lines.append([row.level, row.pattern, *map(row.cell, columns), verdict])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines]  # fmt: skip
    legend = "relative change of the output; * must stay, ! control that must move"
    return "\n".join([*text, legend])


def as_json(rows: list[Row]) -> str:
    """Return the rows as JSON."""
    return json.dumps([asdict(row) for row in rows], indent=2)


def draw(rows: list[Row], path: Path) -> None:
    """Draw each row's changes on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    floor = 1e-9
    kinds: dict[str, list[tuple[float, int]]] = {name: [] for name in MARKS}
    for place, row in enumerate(rows):
        for name, value in row.changes.items():
            kind = "stays" if name in row.stays else "control" if name in row.moves else "others"
            if value is not None:
                kinds[kind].append((max(value, floor), place))
    figure, axes = plt.subplots(figsize=(9, 0.24 * len(rows) + 1.6), layout="constrained")
    for kind, (marker, color, label) in MARKS.items():
        axes.plot(*zip(*kinds[kind], strict=True), marker, color=color, label=label, markersize=6,
                  clip_on=False)  # fmt: skip
    axes.axvline(MOVES, color="0.6", linestyle=":", linewidth=1)
    axes.set(xscale="log", xlim=(floor, 10), ylim=(len(rows) - 0.5, -0.5),
             xlabel="relative change of the output (dotted: a control must lie to the right)")
    axes.set_yticks(range(len(rows)), [f"{row.level}: {row.pattern}" for row in rows], fontsize=7)
    axes.grid(axis="y", color="0.92")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def seeded(seed: int) -> torch.Generator:
    """Return a generator of its own, so that no row depends on those before it."""
    return torch.Generator().manual_seed(seed)
