"""The clips that studies look at: built-in actions, and the films of the user."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GLIDES = ("move left", "move right", "move up", "move down")


@lru_cache(maxsize=8)
def drawn_clips(
    count: int, frames: int, size: int, seed: int, motions: tuple[str, ...] = GLIDES
) -> tuple[Tensor, Tensor]:
    """Return clips of moving shapes and their classes.

    Args:
        count: clips; classes are equally frequent.
        frames, size: T, and the side of the picture in pixels.
        seed: of everything drawn.
        motions: the classes, of `geonorm.datasets.synthetic.action_drawing.MOTIONS`.

    Shape:
        float32 (count, 3, frames, size, size) in [0, 1]; int64 (count,)
    """
    from geonorm.datasets.synthetic.action_drawing import draw_action

    labels = np.arange(count) % len(motions)
    films = [draw_action(motions[label], np.random.default_rng((seed, number)), frames, size)[0]
             for number, label in enumerate(labels)]  # fmt: skip
    clips = torch.from_numpy(np.stack(films)).permute(0, 4, 1, 2, 3).float() / 255
    return clips, torch.from_numpy(labels)


@lru_cache(maxsize=8)
def film_clips(paths: tuple[Path, ...], frames: int, size: int, count: int = 1) -> Tensor:
    """Return `count` clips of successive frames from each film, spread over its length.

    Shape:
        float32 (len(paths) * count, 3, frames, size, size) in [0, 1]
    """
    from geonorm.datasets.clips import ClipDataset
    from geonorm.datasets.video_lists import VideoSet

    films = ClipDataset(VideoSet([(path, 0) for path in paths], ["film"]), length=frames,
                        sampling="dense", views=count, size=(size, size))  # fmt: skip
    clips = [films[number].video for number in range(len(films))]
    return torch.stack(clips).transpose(1, 2).float() / 255
