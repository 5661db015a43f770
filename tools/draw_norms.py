"""Draw what each norm normalizes over into docs/figures/norms/, by running the norms.

    python tools/draw_norms.py [FOLDER]

The drawings are committed, so that the pages have them on a git host too; a test draws them anew
and compares them, character by character, with the committed ones.
"""

import argparse
from pathlib import Path

from documentation.dependence import FIGURES
from documentation.drawing import draw

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures" / "norms"


def figure(name: str) -> str:
    """Return the drawing of one page's norms."""
    return draw(f"What {name.replace('_', ' ')} normalizes over", FIGURES[name]())


def main(words: list[str] | None = None) -> None:
    """Write every drawing and name it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder = parser.parse_args(words).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        (folder / f"{name}.svg").write_text(figure(name), encoding="utf-8")
        print(folder / f"{name}.svg")


if __name__ == "__main__":
    main()
