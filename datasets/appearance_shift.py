"""Changes of appearance that leave motion alone, in five strengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import gaussian_blur

Kind = Literal["brightness", "contrast", "cast", "gamma", "noise", "blur", "background"]


class AppearanceShift:
    """One kind of change, the same in every frame of a clip (noise alone is drawn per frame).

    On values x in [0, 1] and with s = severity / 5: brightness x ± 0.45 s; contrast
    (x − mean) · (1 − 0.85 s) + mean; cast x · g, g per channel in [1 − 0.7 s, 1]; gamma
    x ** (1 + 2 s) or its inverse; noise x + 0.3 s · normal; blur by a Gaussian of 0.04 s of the
    shorter side; background x · (1 − 0.7 s) + 0.7 s · a random coloured texture that stands still,
    behind the foreground where that is known. Results are clipped to [0, 1].

    Args:
        kind: one of the names above.
        severity: 1 to 5.

    Shape:
        uint8 (T, C, H, W) to uint8 (T, C, H, W).

    Raises:
        ValueError: an unknown kind or severity.

    >>> shift = AppearanceShift("gamma", severity=2)
    >>> shift(torch.zeros(8, 3, 16, 16, dtype=torch.uint8), np.random.default_rng(0)).shape
    torch.Size([8, 3, 16, 16])
    """

    def __init__(self, kind: Kind, severity: int = 3) -> None:
        if kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}; got {kind!r}")
        if severity not in range(1, 6):
            raise ValueError(f"severity must be 1, 2, 3, 4 or 5; got {severity}")
        self.kind, self.severity = kind, severity

    def __repr__(self) -> str:
        return f"AppearanceShift({self.kind!r}, severity={self.severity})"

    def __call__(
        self, video: Tensor, rng: np.random.Generator, foreground: Tensor | None = None
    ) -> Tensor:
        """Return the changed clip; ``foreground`` (T, 1, H, W) in [0, 1] is kept from background.

        Raises:
            TypeError: the clip is not uint8.
        """
        if video.dtype != torch.uint8:
            raise TypeError(f"expected a uint8 clip (T, C, H, W); got {video.dtype}. Shift first")
        values = video.float() / 255
        strength = self.severity / 5
        if self.kind == "background":
            values = _background(values, strength, rng, foreground)
        else:
            values = _CHANGES[self.kind](values, strength, rng)
        return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def _brightness(values: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return values + 0.45 * strength * float(rng.choice((-1, 1)))


def _contrast(values: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    mean = values.mean()
    return (values - mean) * (1 - 0.85 * strength) + mean


def _cast(values: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    gains = rng.uniform(1 - 0.7 * strength, 1.0, values.shape[1])
    gains[rng.integers(len(gains))] = 1 - 0.7 * strength
    return values * torch.from_numpy(gains).float().view(1, -1, 1, 1)


def _gamma(values: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return values ** ((1 + 2 * strength) ** int(rng.choice((-1, 1))))


def _noise(values: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    normal = rng.standard_normal(values.shape, dtype=np.float32)
    return values + 0.3 * strength * torch.from_numpy(normal)


def _blur(values: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    sigma = 0.04 * strength * min(values.shape[-2:])
    width = 2 * max(round(2 * sigma), 1) + 1
    blurred: Tensor = gaussian_blur(values, [width, width], [sigma, sigma])
    return blurred


def _background(
    values: Tensor, strength: float, rng: np.random.Generator, foreground: Tensor | None
) -> Tensor:
    """Mix in a texture of random colours that stands still."""
    cells = rng.random((1, values.shape[1], 6, 6), dtype=np.float32)
    texture = interpolate(
        torch.from_numpy(cells), size=values.shape[-2:], mode="bicubic", align_corners=False
    )
    behind = 1.0 if foreground is None else 1 - foreground
    share = 0.7 * strength * behind
    return values * (1 - share) + texture * share


_CHANGES: dict[str, Callable[[Tensor, float, np.random.Generator], Tensor]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "cast": _cast,
    "gamma": _gamma,
    "noise": _noise,
    "blur": _blur,
}
