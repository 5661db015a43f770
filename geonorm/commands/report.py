"""Write a page about one run or several side by side, from what their folders hold.

  geonorm report runs/train_seg/001
  geonorm report runs/train_seg/001 runs/train_seg/002 --out both.html

A run is a folder of train-seg or train-action, whether it ended or was killed, or one of
evaluate-shift. The page has curves, scores by class, confusions, the worst and the best scans or
clips, options and versions; it is one file and needs no network. Each training, test and evaluation
writes its own as report.html when it ends.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def parser() -> "ArgumentParser":
    """Return the parser of the command line."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(prog="geonorm report", description=__doc__)
    made.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    made.add_argument("--out", metavar="FILE", type=Path, default=Path("report.html"),
                      help="the page to write (report.html)")
    return made  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Run the command and return what went wrong."""
    options = parser().parse_args(arguments)
    from geonorm.looking.report import write_report

    try:
        write_report(options.runs, options.out)
    except ValueError as error:
        return f"geonorm report: {error}"
    print(f"{options.out} ({options.out.stat().st_size / 2**20:.1f} MiB): open it in any browser")
    return None
