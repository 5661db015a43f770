#!/usr/bin/env python
"""Draw each corruption of clips at its heaviest level, on a built-in action or a film.

    python tools/draw_corruptions.py [FILM] [--out docs/figures/shift_clips.png]
"""

import argparse
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from geonorm.datasets import ClipCorruption
from geonorm.datasets.clip_corruptions import Corruption
from geonorm.datasets.synthetic.action_drawing import draw_action
from geonorm.datasets.video_io import read_frames
from geonorm.training.figures import plt

OUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "shift_clips.png"
SHOWN = 15  # the frame, late enough for damage to have spread


def sheet(film: np.ndarray, path: Path) -> None:
    """Draw frame SHOWN of a film (T, H, W, 3), clean and through every corruption at level 5."""
    clip = torch.from_numpy(film).permute(0, 3, 1, 2)
    figure, axes = plt.subplots(3, 7, figsize=(12.6, 6), layout="constrained")
    for place, name in zip(axes.flat, ("clean", *get_args(Corruption)), strict=True):
        if name != "clean":
            out = ClipCorruption(name, 5)(clip, np.random.default_rng(0))
            film = out.permute(0, 2, 3, 1).numpy()
        place.imshow(film[SHOWN])
        place.set_title(name, fontsize=10)
        place.axis("off")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main(words: list[str] | None = None) -> None:
    """Draw the sheet and name it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("film", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(words)
    if given.film is None:
        film = draw_action("turn clockwise", np.random.default_rng(5), 24, 224)[0]
    else:
        film = read_frames(given.film, range(24), size=(224, 224)).video
    sheet(film, given.out)
    print(given.out)


if __name__ == "__main__":
    main()
