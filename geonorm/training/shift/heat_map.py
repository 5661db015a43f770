"""A heat map of scores by corruption and level, a panel for each network."""

from pathlib import Path

import numpy as np

from geonorm.files import written_whole
from geonorm.training.figures import plt, printable
from geonorm.training.shift.comparison import Comparison
from geonorm.training.shift.measures import MEAN, Scores


def draw(comparison: Comparison, path: Path) -> None:
    """Draw the scores in percent, coloured by their part of the clean score.

    Args:
        comparison: of networks whose scores are told by level.
        path: file to write, a PNG.
    """
    names = [name for group in comparison.groups.values() for name in group]
    count = max(
        level or 0 for scores in comparison.networks.values()
        for levels in scores.corrupted.values() for level in levels
    )  # fmt: skip
    panels = len(comparison.networks)
    size = (1.9 + panels * (0.62 * count + 1.5), 0.3 * len(names) + 1.4)
    figure, grid = plt.subplots(
        1, panels, figsize=size, layout="constrained", squeeze=False, sharey=True
    )
    for axes, (network, scores) in zip(grid[0], comparison.networks.items(), strict=True):
        values = _grid(scores, names, count)
        shares = values / scores.clean[0] if scores.clean[0] > 0 else np.full_like(values, np.nan)
        image = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        for row, column in np.argwhere(np.isfinite(values)):
            axes.text(
                column, row, f"{100 * values[row, column]:.1f}", ha="center", va="center",
                fontsize=8, color="white" if shares[row, column] < 0.5 else "black",
            )  # fmt: skip
        axes.set_xticks(range(count), [str(level + 1) for level in range(count)])
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set_xlabel("level")
        axes.set_title(f"{printable(network)}\nclean {100 * scores.clean[0]:.1f}", fontsize=9)
        end = -0.5
        for group in list(comparison.groups.values())[:-1]:
            end += len(group)
            axes.axhline(end, color="black", linewidth=1.2)
    bar = figure.colorbar(image, ax=grid[0].tolist())
    bar.set_label(f"part of the clean {comparison.score}", fontsize=9)
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=120)
    plt.close(figure)


def _grid(scores: Scores, names: list[str], count: int) -> np.ndarray:
    """Return the scores by corruption and level, NaN where there is none."""
    values = np.full((len(names), count), np.nan)
    for row, name in enumerate(names):
        for level, found in scores.corrupted[name].items():
            if level is not MEAN:
                values[row, level - 1] = found[0]
    return values
