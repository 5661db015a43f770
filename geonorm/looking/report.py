"""The report of one or several runs: a page with all that their folders tell."""

import itertools
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from geonorm.looking import page, plots
from geonorm.looking.runs import Judgement, Run, Shift, read_folder
from geonorm.looking.tables import pictures, table

ROOM = 4 * 2**20  # bytes for all pictures; plotly.js takes 4.6 MiB
SHOWN = 5  # scans or videos listed of the worst, and of the best
MOST_CLASSES = 60  # of an interactive confusion matrix; beyond, it is several MiB of text
_CONFIG = {"displayModeBar": False, "responsive": True}
# The order of curves: by the beginning of their names, then by name.
_FIRST = ("train/loss", "val/loss", "val/", "test/", "throughput/")
_PER_CLASS = "/iou/"  # in the names of numbers that the table of classes tells


def write_report(folders: Sequence[Path], path: Path) -> None:
    """Write the report of runs and of evaluations under shift, complete or not at all.

    Args:
        folders: of `geonorm train-seg`, `train-action` and `evaluate-shift`.
        path: the page.

    Raises:
        ValueError: no folder, or one that is none of these.
        ModuleNotFoundError: plotly is not installed.
    """
    from plotly.offline import get_plotlyjs

    if not folders:
        raise ValueError("expected the folders of runs, such as runs/train_seg/001; got none")
    found = [read_folder(folder) for folder in dict.fromkeys(folders)]
    title = ", ".join(each.name for each in found)
    body = f"<script>{get_plotlyjs()}</script>\n{_Body(found, title).html()}"
    page.write(page.report(title, body), path)


class _Body:
    """The sections of the page, and the figures that its script draws into them."""

    def __init__(self, found: Sequence[Run | Shift], title: str) -> None:
        self.runs = [each for each in found if isinstance(each, Run)]
        self.shifts = [each for each in found if isinstance(each, Shift)]
        self.title = title
        self.figures: list[plots.Figure] = []

    def html(self) -> str:
        """Return the body of the page."""
        sections: dict[str, Callable[[], str]] = {
            "Results": self._results, "Shift": self._shift, "Curves": self._curves,
            "Classes": self._classes, "Confusions": self._confusions,
            "Worst and best": self._extremes, "Files left out": self._left_out,
            "Configuration": self._configuration, "Versions": self._versions,
        }  # fmt: skip
        made = {name: content for name, make in sections.items() if (content := make())}
        links = "".join(f'<a href="#{_anchor(name)}">{name}</a>' for name in made)
        parts = [f'<h2 id="{_anchor(name)}">{name}</h2>\n{made[name]}' for name in made]
        draw = (
            f"const figures = {page.as_script(self.figures)};\n"
            "figures.forEach(({data, layout}, i) =>"
            f" Plotly.newPlot(`figure${{i}}`, data, layout, {page.as_script(_CONFIG)}));\n"
            "document.documentElement.dataset.ready = performance.now().toFixed(0);"
        )
        return (
            f"<h1>{escape(self.title)}</h1>\n<nav>{links}</nav>\n" + "\n".join(parts)
            + f"\n<script>{draw}</script>"
        )  # fmt: skip

    def _figure(self, figure: plots.Figure) -> str:
        layout = {"margin": {"l": 60, "r": 20, "t": 40, "b": 50}, **figure["layout"]}
        self.figures.append({"data": figure["data"], "layout": layout})
        return f'<div id="figure{len(self.figures) - 1}" class="plot"></div>'

    def _judged(self) -> list[tuple[str, Judgement]]:
        """Return every validation and test with a name that tells its run."""
        return [
            (stage if len(self.runs) == 1 else f"{run.name}, {stage}", judged)
            for run in self.runs for stage, judged in run.judged.items()
        ]  # fmt: skip

    def _results(self) -> str:
        rows: dict[str, list[Any]] = {}
        for number, run in enumerate(self.runs):
            for name, value in _summary(run).items():
                rows.setdefault(name, [None] * len(self.runs))[number] = value
        if not self.runs:
            return ""
        notes = [
            f'<p class="note">{escape(run.name)} has no val.json and no test.json: it was stopped '
            "before it was judged. The curves show how far it came.</p>"
            for run in self.runs if not run.judged
        ]  # fmt: skip
        head = ["", *(run.name for run in self.runs)]
        told = ([name, *values] for name, values in rows.items() if {*values} != {None})
        return table(head, told) + "".join(notes)

    def _curves(self) -> str:
        names = sorted({name for run in self.runs for name in run.metrics}, key=_rank)
        parts = [
            self._figure(plots.curves(name, {
                run.name: run.metrics.get(name, np.empty((0, 2))) for run in self.runs
            }))
            for name in names if _PER_CLASS not in name
        ]  # fmt: skip
        return f'<div class="pair">{"".join(parts)}</div>' if parts else ""

    def _classes(self) -> str:
        parts = []
        for of_scans in (True, False):
            judged = [(name, each) for name, each in self._judged()
                      if each.matrix is not None and each.of_scans == of_scans]  # fmt: skip
            for classes, same in itertools.groupby(judged, key=lambda each: each[1].classes):
                parts.append(_class_table(classes, [*same], of_scans))
        return "".join(parts)

    def _confusions(self) -> str:
        parts = [
            self._figure(plots.confusion(name, judged.matrix, judged.classes))
            if len(judged.classes) <= MOST_CLASSES
            else f'<p class="note">{escape(name)}: {len(judged.classes)} classes are too many to '
                 "draw here; the run's folder has the picture and the counts.</p>"
            for name, judged in self._judged() if judged.matrix is not None
        ]  # fmt: skip
        return f'<div class="pair">{"".join(parts)}</div>' if parts else ""

    def _extremes(self) -> str:
        parts, drawn = [], sum(len(judged.pictures) for _, judged in self._judged())
        for name, judged in self._judged():
            if not judged.items and not judged.pictures:
                continue
            parts.append(f"<h3>{escape(name)}</h3>")
            if judged.items:
                parts.append(_extreme_tables(judged))
            if judged.pictures:
                room = ROOM * len(judged.pictures) // drawn
                parts.append(pictures([*_titled(judged)], room))
        return "".join(parts)

    def _left_out(self) -> str:
        rows = [(run.name, *file.values()) for run in self.runs for file in run.left_out]
        return table(["run", "file", "what", "times"], rows) if rows else ""

    def _shift(self) -> str:
        parts = []
        for each in self.shifts:
            told = each.scores
            parts.append(
                f"<h3>{escape(each.name)}: {told['samples']} of {told['of']} {told['unit']}s</h3>"
            )
            rows = [
                (network, group, *(_interval(found["mean"][kind]) for kind in
                                   ("score", "retained", "error")))
                for network, scores in told["networks"].items()
                for group, found in scores["groups"].items()
            ]  # fmt: skip
            parts.append(table(["network", "group", "mean score", "mRR", "mCE"], rows))
            parts += [
                self._figure(plots.shift(network, scores, told["score"]))
                for network, scores in told["networks"].items()
            ]
            parts += [
                f'<p class="note">left out: {escape(name)}: {escape(reason)}</p>'
                for name, reason in told["left_out"].items()
            ]
        return "".join(parts)

    def _configuration(self) -> str:
        names = {name: None for run in self.runs for name in run.config}
        rows = [(name, *(_option(run.config.get(name)) for run in self.runs)) for name in names]
        head = ["option", *(run.name for run in self.runs)]
        differing = [row for row in rows if len({*row[1:]}) > 1]
        alike = [row for row in rows if len({*row[1:]}) == 1]
        parts = [table(head, differing)] if differing else []
        if alike:
            what = "all options" if len(self.runs) == 1 else "options that are the same in all"
            same = table(["option", "value"], (row[:2] for row in alike))
            parts.append(f"<details><summary>{len(alike)} {what}</summary>{same}</details>")
        return "".join(parts)

    def _versions(self) -> str:
        told = {
            f"{run.name}, {stage}": versions
            for run in self.runs for stage, versions in run.versions.items()
        } | {
            shift.name: {"geonorm": shift.scores["geonorm"]}
            for shift in self.shifts if "geonorm" in shift.scores
        }  # fmt: skip
        names = {name: None for versions in told.values() for name in versions}
        rows = [(name, *(each.get(name) for each in told.values())) for name in names]
        return table(["", *told], rows) if rows else ""


def _rank(name: str) -> tuple[int, str]:
    places = (place for place, start in enumerate(_FIRST) if name.startswith(start))
    return next(places, len(_FIRST)), name


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _summary(run: Run) -> dict[str, Any]:
    """Return the numbers that stand for a run."""
    found: dict[str, Any] = {}
    for name, value in run.config.items():
        if name.startswith(("model.name", "model.norm", "model.input_norm")):
            found[name] = _option(value)
    for stage, judged in run.judged.items():
        found |= {
            f"{stage} {name}": value for name, value in judged.scores.items()
            if not isinstance(value, dict)
        }  # fmt: skip
    if "train/loss" in run.metrics:
        found["steps, as logged"] = int(run.metrics["train/loss"][-1, 0]) + 1
        found["last train/loss"] = float(run.metrics["train/loss"][-1, 1])
    for name, pairs in run.metrics.items():
        if name.startswith("throughput/"):
            found[f"{name}, median"] = float(np.median(pairs[:, 1]))
    found["files left out"] = len(run.left_out)
    return found


def _class_table(
    classes: Sequence[str], judged: Sequence[tuple[str, Judgement]], of_scans: bool
) -> str:
    """Return IoU (of scans), recall and precision of each class, of several runs the first."""
    measures: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}
    for name, each in judged:
        if each.matrix is None:
            continue
        hits, true, predicted = each.matrix.diagonal(), each.matrix.sum(1), each.matrix.sum(0)
        found = {"IoU": _shares(hits, true + predicted - hits, true)} if of_scans else {}
        found |= {"recall": _shares(hits, true, true), "precision": _shares(hits, predicted, true)}
        if len(judged) > 1:
            kind = next(iter(found))
            found = {f"{name}: {kind}": found[kind]}
        measures |= found
        counts[f"{'points' if of_scans else 'videos'}, {name}"] = true
    columns = measures | counts
    rows = [[name, *(column[number].item() for column in columns.values())]
            for number, name in enumerate(classes)]  # fmt: skip
    return table(["class", *columns], rows)


def _shares(parts: np.ndarray, totals: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return parts of totals, NaN for classes that are not there or never predicted."""
    known = (totals > 0) & (true > 0)
    shares: np.ndarray = np.divide(parts, totals, out=np.full(len(parts), np.nan), where=known)
    return shares


def _score(item: dict[str, str], judged: Judgement) -> float:
    return float(item["miou" if judged.of_scans else "score"])


def _extreme_tables(judged: Judgement) -> str:
    ranked = sorted(
        (item for item in judged.items if np.isfinite(_score(item, judged))),
        key=lambda item: _score(item, judged),
    )
    count = min(SHOWN, (len(ranked) + 1) // 2)
    parts = []
    for title, items in (("worst", ranked[:count]), ("best", ranked[::-1][:count])):
        rows = [
            [_number(value) for name, value in item.items() if name != "picture"] for item in items
        ]
        head = [name for name in (items[0] if items else {}) if name != "picture"]
        parts.append(f"<div><h3>the {title} of {len(ranked)}</h3>{table(head, rows)}</div>")
    return f'<div class="pair">{"".join(parts)}</div>' if ranked else ""


def _titled(judged: Judgement) -> list[tuple[str, Path]]:
    """Return title and file of the pictures, of scans the worst first."""
    scores = {item["scan"]: float(item["miou"]) for item in judged.items if "scan" in item}
    ranked = sorted(judged.pictures, key=lambda name: (scores.get(name, -1.0), name))
    return [
        (f"{name}: mIoU {scores[name]:.3f}" if name in scores else name, judged.pictures[name])
        for name in ranked
    ]


def _number(text: str) -> Any:
    """Return a number where a text is one."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text


def _interval(told: Sequence[float | None] | None) -> str:
    """Return a score in percent with its interval."""
    value, low, high = told or (None, None, None)
    if value is None:
        return "-"
    shown = f"{100 * value:.2f}"
    return shown if low is None or high is None else f"{shown} [{100 * low:.2f}, {100 * high:.2f}]"


def _option(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else str(value)
