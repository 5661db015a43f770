"""Interactive figures of a report, as plotly.js takes them: traces and a layout."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Figure = dict[str, Any]
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
_BLUES = [[0, "#f4f8fc"], [0.5, "#6aaed6"], [1, "#08306b"]]
_ROW, _ROOM = 24, 190  # pixels: of a row of a matrix, and around it


def curves(name: str, runs: Mapping[str, np.ndarray]) -> Figure:
    """Return one logged number of several runs over the steps of their trainings.

    Args:
        name: of the number.
        runs: step and value, (L, 2), by the name of the run.
    """
    traces = [
        {
            "x": pairs[:, 0].tolist(), "y": pairs[:, 1].tolist(), "name": run,
            "mode": "lines+markers" if len(pairs) < 60 else "lines", "type": "scatter",
            "line": {"color": COLORS[number % len(COLORS)], "width": 1.6},
        }
        for number, (run, pairs) in enumerate(runs.items()) if len(pairs)
    ]  # fmt: skip
    layout = {
        "title": _title(name), "height": 320,
        "xaxis": {"title": {"text": "step"}}, "showlegend": len(traces) > 1,
        "legend": {"orientation": "h", "y": -0.3},
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _title(text: str) -> Figure:
    return {"text": text, "font": {"size": 14}, "x": 0.01}


def confusion(title: str, matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Return a confusion matrix as the part of each true class that was predicted as each class.

    Args:
        title: heading.
        matrix: counts; rows are true and columns predicted classes, (K, K).
        classes: their names.
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    side = _ROW * len(classes) + _ROOM
    return {
        "data": [{
            "type": "heatmap", "x": list(classes), "y": list(classes), "z": shares.tolist(),
            "customdata": matrix.tolist(), "zmin": 0, "zmax": 1, "colorscale": _BLUES,
            "showscale": False,
            "hovertemplate": "%{y} as %{x}: %{z:.1%}, %{customdata:,}<extra></extra>",
            **({"texttemplate": "%{z:.0%}"} if len(classes) <= 24 else {}),
        }],
        "layout": {
            "title": _title(title), "height": side, "width": side + 60,
            "xaxis": {"title": {"text": "predicted"}, "tickangle": -50, "automargin": True},
            "yaxis": {"title": {"text": "true"}, "autorange": "reversed", "automargin": True},
        },
    }  # fmt: skip


def shift(network: str, told: Mapping[str, Any], score: str) -> Figure:
    """Return scores by corruption and level, coloured by their part of the clean score.

    Args:
        network: its name.
        told: what `scores.json` of an evaluation tells of it.
        score: what the score is called.
    """
    each = {
        name: corruption["levels"]
        for group in told["groups"].values() for name, corruption in group["corruptions"].items()
    }  # fmt: skip
    levels = sorted({int(level) for found in each.values() for level in found})
    clean = told["clean"][0]
    values = [
        [found.get(str(level), [None])[0] for level in levels] for found in each.values()
    ]
    parts = [[None if value is None or not clean else value / clean for value in row]
             for row in values]  # fmt: skip
    words = [["" if value is None else f"{value:.1%}" for value in row] for row in values]
    return {
        "data": [{
            "type": "heatmap", "x": [f"level {level}" for level in levels], "y": list(each),
            "z": parts, "text": words, "zmin": 0, "zmax": 1, "colorscale": "Viridis",
            "texttemplate": "%{text}", "colorbar": {"title": {"text": "of clean"}},
            "hovertemplate": f"%{{y}}, %{{x}}: {score} %{{text}}, %{{z:.0%}} of the clean score"
                             "<extra></extra>",
        }],
        "layout": {
            "title": _title(f"{network}: clean {score} {clean or 0:.1%}"),
            "height": _ROW * len(each) + 130,
            "yaxis": {"autorange": "reversed", "automargin": True},
        },
    }  # fmt: skip
