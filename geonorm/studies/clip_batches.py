"""Batches of clips without end for the generative examples, and a picture of clips."""

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import torch
from torch import Tensor

from geonorm.files import written_whole
from geonorm.studies.clips import drawn_clips

BUILT_IN = 512  # clips of moving shapes


def clip_batches(
    videos: Path | None, *, batch_size: int, frames: int, size: int, seed: int = 0
) -> Iterator[Tensor]:
    """Return batches of random clips, one after another without end.

    Args:
        videos: a folder of films, at any depth; built-in clips of moving shapes if None.
        batch_size: clips of a batch.
        frames: of a clip.
        size: height and width in pixels.
        seed: of the clips drawn.

    Shape:
        float32 (batch_size, 3, frames, size, size) in [-1, 1]

    Raises:
        ValueError: a number below 1, no such folder, or one without films.
    """
    numbers = {"batch_size": batch_size, "frames": frames, "size": size}
    if low := {name: value for name, value in numbers.items() if value < 1}:
        raise ValueError(f"expected numbers of 1 or more; got {low}")
    if videos is None:
        return _drawn(batch_size, frames, size, seed)
    return _filmed(videos, batch_size, frames, size, seed)


def _drawn(batch_size: int, frames: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield built-in clips at random exposures."""
    clips, _ = drawn_clips(BUILT_IN, frames, size, seed)
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[Tensor]:
        while True:
            rows = torch.randint(len(clips), (batch_size,), generator=generator)
            gains = 0.25 ** torch.rand(batch_size, 1, 1, 1, 1, generator=generator)
            yield clips[rows] * gains * 2 - 1

    return batches()


def _filmed(
    folder: Path, batch_size: int, frames: int, size: int, seed: int
) -> Iterator[Tensor]:
    """Yield clips that begin anywhere in the films of a folder."""
    from geonorm.datasets.clips import ClipDataset
    from geonorm.datasets.video_lists import VideoSet
    from geonorm.studies.recordings import Recordings

    paths = Recordings.of(folder).videos
    if not paths:
        raise ValueError(f"expected films in {folder}; found scans alone")
    # Of an entry an epoch has one clip: few films are entered often enough for a whole batch.
    entries = [(path, 0) for path in paths] * ceil(batch_size / len(paths))
    films = ClipDataset(VideoSet(entries, ["film"]), length=frames, sampling="random",
                        size=(size, size), seed=seed)  # fmt: skip
    generator = torch.Generator().manual_seed(seed)

    def batches() -> Iterator[Tensor]:
        epoch = 0
        while True:
            films.set_epoch(epoch := epoch + 1)  # a film begins elsewhere in each
            rows = torch.randperm(len(films), generator=generator)[:batch_size]
            clips = torch.stack([films[int(row)].video for row in rows])
            yield clips.transpose(1, 2).float() / 127.5 - 1

    return batches()


def write_clips(clips: Tensor, path: Path) -> None:
    """Write clips as a picture, each a line of its frames.

    Args:
        clips: (B, 3, T, H, W) in [-1, 1].
        path: of a PNG; its folder is made.
    """
    from torchvision.utils import save_image

    frames = clips.detach().cpu().clamp(-1, 1).add(1).div(2).transpose(1, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside:
        save_image(frames.flatten(0, 1), aside, nrow=clips.shape[2], format="png")
