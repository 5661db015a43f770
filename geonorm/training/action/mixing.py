"""Mixtures of the clips of a batch: mixup and CutMix, by torchvision."""

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class ClipMixing:
    """Mix each clip of a batch with the one before it, and their labels in the same parts.

    mixup (Zhang et al., 2018) takes the weighted mean of two clips; CutMix (Yun et al., 2019) puts
    a rectangle of one into the other, the same in every frame. With both, each batch gets one of
    them, as often as the other. The part is drawn from a Beta distribution, once for a batch.

    Args:
        num_classes: of the labels.
        mixup: both parameters of mixup's Beta distribution; 0 for no mixup.
        cutmix: likewise of CutMix's.

    Shape:
        (B, C, T, H, W) float and labels (B,), to (B, C, T, H, W) and labels (B, K) that sum to 1.

    Raises:
        ValueError: a parameter below 0, or both 0.
    """

    def __init__(self, num_classes: int, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        check_mixing(mixup, cutmix)
        if not mixup and not cutmix:
            raise ValueError("mixup or cutmix must be above 0 to mix anything; got 0 for both")
        self.kinds: list[v2.MixUp | v2.CutMix] = []
        if mixup:
            self.kinds.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
        if cutmix:
            self.kinds.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))

    def __call__(
        self, video: Tensor, label: Tensor, key: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed clips and labels.

        Args:
            video: the clips.
            label: their classes.
            key: what is drawn is a function of it; torch's own generator is left as it was.
        """
        state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(state >> 1))  # and not the GPU's
            kind = self.kinds[int(torch.randint(len(self.kinds), ()))]
            mixed, labels = kind(tv_tensors.Video(video), label)
        return mixed.as_subclass(Tensor), labels


def check_mixing(mixup: float, cutmix: float) -> None:
    """Refuse what is no parameter of a Beta distribution, nor 0 for none."""
    for name, value in (("mixup", mixup), ("cutmix", cutmix)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a Beta distribution's parameter, from 0; got {value}")
