"""What of a clip's frames the score of a class came from."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from geonorm.attribution import Attribution, integrated_gradients
from geonorm.files import written_whole

BLUR = 1 / 16  # deviation of the blur as a part of a frame's shorter side
AT_A_TIME = 4  # steps, of clips


class ClipAttributions(NamedTuple):
    """What the places of a video's clips added to the score of a class.

    Attributes:
        values: sum over the colours, float32 (views, T, H, W).
        frames: numbers of their frames in the video, (views, T).
        box: top, left, bottom and right of what the network saw, as shares of the frame.
        target: number of the class.
        gaps: of each view, what the sum lacks of the difference of the scores, as a share.
    """

    values: np.ndarray
    frames: np.ndarray
    box: tuple[float, float, float, float]
    target: int
    gaps: list[float]

    def write(self, stem: Path) -> None:
        """Write `stem`.attribution.npz, with `values`, `frames` and `box`."""
        with written_whole(stem.with_name(f"{stem.name}.attribution.npz")) as aside:
            np.savez_compressed(
                aside, values=self.values, frames=self.frames, box=np.array(self.box)
            )


def blurred(clip: Tensor) -> Tensor:
    """Return a clip (C, T, H, W) whose frames are blurred by a Gaussian, a 16th of a side wide."""
    sigma = BLUR * min(clip.shape[2:])
    width = 2 * max(int(3 * sigma), 1) + 1
    frames: Tensor = gaussian_blur(clip.transpose(0, 1), [width, width], [sigma, sigma])
    return frames.transpose(0, 1).contiguous()


def attribution(network: Callable[[Tensor], Tensor], clip: Tensor, target: int) -> Attribution:
    """Return what each element of a clip added to the score of a class, (C, T, H, W).

    The baseline is the clip with blurred frames (Fong and Vedaldi, 2017), so the values tell where
    detail mattered, and light did not.

    Args:
        network: takes clips (B, C, T, H, W) and returns scores (B, K).
        clip: its input.
        target: number of the class.

    Shape:
        clip: (C, T, H, W)
    """
    return integrated_gradients(
        lambda clips: network(clips)[:, target], clip, blurred(clip), at_a_time=AT_A_TIME
    )


def middle_box(
    size: tuple[int, int], crop: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the box of a centre crop in a frame, as shares of its height and width."""
    top, left = (round((whole - part) / 2) for whole, part in zip(size, crop, strict=True))
    return (top / size[0], left / size[1], (top + crop[0]) / size[0], (left + crop[1]) / size[1])


def of_views(
    network: Callable[[Tensor], Tensor], clips: Tensor, target: int
) -> tuple[np.ndarray, list[float]]:
    """Return the attributions of a video's views, (views, T, H, W), and their gaps."""
    found = [attribution(network, clip, target) for clip in clips]
    values = torch.stack([each.values.sum(dim=0) for each in found])
    return values.cpu().float().numpy(), [each.gap for each in found]
