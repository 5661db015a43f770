"""Draw the figures of the norms as SVG files that are the same on every machine."""

import io

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from documentation.dependence import Panel

WIDTH = 7.7  # inches
GAP, OTHER, DEPENDENT, CHOSEN = range(4)  # what a cell of a picture can be
COLOURS = ("#ffffff", "#e3e8ef", "#2b6cb0", "#f59e0b")
LEGEND = {CHOSEN: "an output element", DEPENDENT: "input it depends on, itself included",
          OTHER: "input it does not depend on"}  # fmt: skip
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "geonorm", "font.family": "DejaVu Sans"}
"""Text stays text, and the names inside the file depend on what it shows alone."""


def draw(title: str, panels: list[Panel]) -> str:
    """Return a figure of panels as SVG.

    Args:
        title: of the file, for readers that show one.
        panels: in the order of reading.
    """
    with mpl.rc_context(SETTINGS):
        written = io.StringIO()
        metadata = {"Title": title, "Creator": None, "Date": None}
        layout(panels).savefig(written, format="svg", metadata=metadata)
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())


def layout(panels: list[Panel]) -> Figure:
    """Return a figure with two panels beside each other, and a legend below."""
    lines = (len(panels) + 1) // 2
    figure = Figure((WIDTH, 0.7 + 2.05 * lines), layout="constrained")
    axes = figure.subplots(lines, 2, squeeze=False)
    for one in axes.flat[len(panels):]:
        one.remove()
    for one, panel in zip(axes.flat, panels, strict=False):
        _show(one, panel)
    handles = [Patch(color=COLOURS[kind], label=words) for kind, words in LEGEND.items()]
    notes = dict.fromkeys(panel.axes for panel in panels if panel.axes)
    figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=8, frameon=False,
                  title="\n".join(notes), title_fontsize=8, alignment="left")  # fmt: skip
    return figure


def picture(panel: Panel) -> Tensor:
    """Return the kinds of a panel's cells as they lie on the page, a gap of one between blocks.

    Shape:
        (N, C) for rows; (B · (rows + 1) − 1, C · (columns + 1) − 1) for a dense tensor, a block for
        each instance (downwards) and channel (across)
    """
    kinds = torch.where(panel.cells, DEPENDENT, OTHER)
    if panel.chosen is not None:
        kinds[panel.chosen] = CHOSEN
    if kinds.ndim == 2:
        return kinds
    apart = torch.nn.functional.pad(kinds, (0, 1, 0, 1), value=GAP)
    return apart.movedim(1, 2).flatten(2).flatten(0, 1)[:-1, :-1]


def _show(axes: Axes, panel: Panel) -> None:
    """Draw one panel, its channels named above and its instances on the left."""
    dense = panel.cells.ndim == 4
    height, width = (8, 8) if dense else (13, 34)  # pixels of a cell, the last of each are white
    pixels = picture(panel).repeat_interleave(height, 0).repeat_interleave(width, 1)
    pixels[height - 1 :: height], pixels[:, width - 1 :: width] = GAP, GAP
    axes.imshow(pixels.numpy(), ListedColormap(COLOURS), vmin=GAP, vmax=CHOSEN,
                interpolation="none")  # fmt: skip
    rows, columns = panel.cells.shape[2:] if dense else (1, 1)
    down, across = height * (rows + dense), width * (columns + dense)
    axes.set_title(panel.title, fontsize=8.5, fontweight="bold")
    axes.set_yticks(
        [height * rows / 2 + down * number for number in range(len(panel.labels))],
        [label.replace(", ", "\n") if dense else label for label in panel.labels],
    )
    channels = range(panel.cells.shape[1])
    axes.set_xticks(
        [width * columns / 2 + across * number for number in channels],
        [f"channel {number}" if dense else f"ch. {number}" for number in channels],
    )
    axes.tick_params(length=0, labelsize=7.5, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
