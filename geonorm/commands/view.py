"""Show scans or videos, with labels and predictions, in one page for any browser.

  geonorm view a.bin b.ply
  geonorm view a.bin --labels a.label --predictions predictions
  geonorm view a.mp4 --predictions predictions

The page holds all it shows and needs no network. Several files, and several folders of predictions,
stand side by side. Scans are coloured by class, prediction, error, intensity, height or instance;
videos show the scores of their classes over time. Both show what the network looked at, where
predict wrote it (--attribution, --statistics).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geonorm.names import choices
from geonorm.training.noise import silence

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def parser() -> "ArgumentParser":
    """Return the parser of the command line."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(prog="geonorm view", description=__doc__)
    made.add_argument("files", nargs="+", type=Path, help="scans, or videos")
    made.add_argument("--predictions", nargs="+", type=Path, metavar="FOLDER", default=[],
                      help="folders that geonorm predict wrote for the same files")
    made.add_argument("--out", metavar="FILE", type=Path, default=Path("view.html"),
                      help="the page to write (view.html)")
    scans = made.add_argument_group("of scans")
    scans.add_argument("--labels", nargs="+", type=Path, metavar="FILE", default=[],
                       help="a .label or .npy file for each scan")
    scans.add_argument("--color", type=str | None, default=None,
                       help="what colours the points first, such as height")
    scans.add_argument("--intensity_max", type=float, default=1.0,
                       help="intensity in the files that counts as 1, such as 255 (1)")
    scans.add_argument("--window", type=bool, default=False,
                       help="show a scan in a window of Open3D instead (false)")
    return made  # fmt: skip


def of_scans(options: Any) -> tuple[list[str], dict[str, Any]] | None:
    """Return the scripts and the content of the page of scans; show a window where asked."""
    from geonorm.looking.scans import panels
    from geonorm.looking.window import show

    found = panels(options.files, options.labels, options.predictions, options.intensity_max)
    names = dict.fromkeys(column.name for panel in found for column in panel.columns)
    if options.color not in (None, *names):
        raise ValueError(f"no colour {options.color!r}; {choices(options.color, names)}")
    if not options.window:
        content = {"panels": [panel.content() for panel in found], "color": options.color}
        return ["common.js", "scans.js"], content
    if len(found) > 1:
        raise ValueError(f"--window shows one scan; got {len(found)}. Leave it out to see them all")
    show(found[0], options.color)
    return None


def of_videos(options: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the scripts and the content of the page of videos."""
    from geonorm.looking.clips import clips

    for name in ("labels", "color", "window"):
        if getattr(options, name):
            raise ValueError(f"--{name} is of scans, and the files are videos; leave it out")
    return ["common.js", "clips.js"], {"clips": clips(options.files, options.predictions)}


def view(options: Any) -> None:
    """Write the page, or show the window."""
    from geonorm.datasets.scan_io import SUFFIXES
    from geonorm.looking.page import viewer, write

    scans = [file for file in options.files if file.suffix.lower() in SUFFIXES]
    if scans and len(scans) < len(options.files):
        other = next(file for file in options.files if file not in scans)
        raise ValueError(f"expected scans or videos, not both; got {scans[0]} and {other}")
    made = of_scans(options) if scans else of_videos(options)
    if made is None:
        return
    title = ", ".join(file.name for file in options.files)
    page = viewer(title, *made)
    write(page, options.out)
    print(f"{options.out} ({len(page.encode()) / 2**20:.1f} MiB): open it in any browser")


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Run the command and return what went wrong."""
    silence()
    try:
        view(parser().parse_args(arguments))
    except ValueError as error:
        return f"geonorm view: {error}"
    return None
