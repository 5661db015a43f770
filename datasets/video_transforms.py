"""From decoded frames to a network's input, the same crop, flip and colours in every frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from geonorm.datasets.appearance_shift import AppearanceShift
from geonorm.datasets.clip_corruptions import ClipCorruption

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


class ClipTransform:
    """Crop, flip, change colours, normalize, by torchvision.transforms.v2 on the whole clip.

    All that is random is drawn from the key that the dataset passes, (seed, epoch, index), and
    torch's own generator is left as it was.

    Args:
        crop: (height, width) or side of the crop, pixels; frames smaller than it raise.
        train: random crop, flip and colours; else the centre crop alone.
        scale: range of the share of the picture that a random crop covers, resized to ``crop``;
            None crops without resizing.
        flip: probability of mirroring left and right. 0 by default: mirroring turns a motion to
            the left into one to the right, which is another class in many datasets.
        jitter: strength of the change of brightness, contrast and saturation, and a quarter of it
            for hue; 0 for none.
        rand_augment: magnitude, 0 to 30, of the two changes that RandAugment (Cubuk et al., 2020)
            draws for a training clip, the same in every frame; 0 for none.
        shift: a change of appearance or a corruption laid on every clip before anything else,
            test or training.
        mean: of the channels, in [0, 1].
        std: likewise.

    Shape:
        uint8 (T, C, H, W) to float32 (C, T, crop, crop).

    Raises:
        ValueError: a probability, strength or range outside its bounds; a frame below the crop.

    >>> transform = ClipTransform(16, train=True)
    >>> transform(torch.zeros(8, 3, 20, 24, dtype=torch.uint8), (0, 0, 0)).shape
    torch.Size([3, 8, 16, 16])
    """

    def __init__(
        self,
        crop: int | tuple[int, int],
        *,
        train: bool,
        scale: tuple[float, float] | None = None,
        flip: float = 0.0,
        jitter: float = 0.0,
        rand_augment: int = 0,
        shift: AppearanceShift | ClipCorruption | None = None,
        mean: Sequence[float] = KINETICS_MEAN,
        std: Sequence[float] = KINETICS_STD,
    ) -> None:
        self.crop = (crop, crop) if isinstance(crop, int) else tuple(crop)
        _check(self.crop, scale, flip, jitter)
        if rand_augment not in range(31):
            raise ValueError(f"rand_augment must be a magnitude from 0 to 30; got {rand_augment}")
        self.shift = shift
        steps: list[torch.nn.Module] = []
        if not train:
            steps.append(v2.CenterCrop(self.crop))
        elif scale is None:
            steps.append(v2.RandomCrop(self.crop))
        else:
            steps.append(v2.RandomResizedCrop(self.crop, scale=scale, antialias=True))
        if train and flip:
            steps.append(v2.RandomHorizontalFlip(flip))
        if train and jitter:
            steps.append(v2.ColorJitter(jitter, jitter, jitter, jitter / 4))
        if train and rand_augment:
            steps.append(v2.RandAugment(num_ops=2, magnitude=rand_augment))
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
        self.steps = v2.Compose(steps)

    def __call__(self, video: Tensor, key: tuple[int, int, int]) -> Tensor:
        """Transform one clip with the randomness of its key."""
        if video.ndim != 4 or video.dtype != torch.uint8:
            raise TypeError(
                f"expected a uint8 clip (T, C, H, W); got {video.dtype} {tuple(video.shape)}"
            )
        if video.shape[-2] < self.crop[0] or video.shape[-1] < self.crop[1]:
            raise ValueError(
                f"frames must be at least as large as the crop {self.crop}; got "
                f"{tuple(video.shape[-2:])}. Give the dataset a larger size, or a smaller crop"
            )
        if self.shift is not None:
            video = self.shift(video, np.random.default_rng((*key, 1)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
            video = self.steps(video)
        return video.transpose(0, 1).contiguous()


def _check(
    crop: tuple[int, ...], scale: tuple[float, float] | None, flip: float, jitter: float
) -> None:
    """Refuse what torchvision would take in another sense or refuse later."""
    if len(crop) != 2 or min(crop) < 1:
        raise ValueError(f"crop must be a side or (height, width) in pixels; got {crop}")
    if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale must be shares 0 < smallest <= largest <= 1; got {scale}")
    if not 0 <= flip <= 1:
        raise ValueError(f"flip must be a probability in [0, 1]; got {flip}")
    if not 0 <= jitter <= 1:
        raise ValueError(f"jitter must be in [0, 1]; got {jitter}")
