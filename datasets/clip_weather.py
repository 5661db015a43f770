"""Rain and fog over a clip, as Mini Kinetics-C draws them, for frames of any size.

Films are float (T, H, W, 3) in [0, 1]. The benchmark's frames have 224² pixels; in others, what
is drawn is as large in proportion.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

_SIDE = 224
_DROP = 220 / 255


def less_contrast(film: np.ndarray, factor: float) -> np.ndarray:
    """Return frames whose values are nearer by a factor to each frame's mean of each channel."""
    means = film.mean((1, 2), keepdims=True)
    nearer: np.ndarray = (film - means) * factor + means
    return nearer


def rain(film: np.ndarray, severity: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Return frames behind streaks that are drawn anew in each.

    At 224² pixels one streak in 770 (from level 4 on 500, 400) pixels, 10, 30, 60, 60 or 80 rows
    long and one column wide; then 0.8, 0.8, 0.7, 0.6 or 0.5 of the contrast. A streak leans to the
    left by one column from its top to its foot: the benchmark draws a slant from -10 to 9, uses
    it to place the streaks, and draws them with this one.
    """
    frames, height, width = film.shape[:3]
    length = max(round((10, 30, 60, 60, 80)[severity - 1] * height / _SIDE), 1)
    # As much of a frame is covered as of the benchmark's: shorter streaks are more.
    area = (770, 770, 770, 500, 400)[severity - 1] * height / _SIDE
    count = max(round(height * width / area), 1)
    masks = np.zeros((frames, height, width, 1), np.float32)
    steps = np.arange(length + 1)
    for mask in masks:
        tops = rng.integers(0, max(height - length, 1), count)
        columns = rng.integers(0, width, count)
        rows = (tops[:, None] + steps).clip(0, height - 1)
        lean = np.floor(0.5 - steps / length).astype(int)
        mask[rows, (columns[:, None] + lean).clip(0, width - 1)] = _DROP
    lit = film + masks * (1 - film) * (1 - film.mean((1, 2, 3), keepdims=True))
    wet = _blurred(lit) * masks + film * (1 - masks)
    return less_contrast(wet, (0.8, 0.8, 0.7, 0.6, 0.5)[severity - 1]).clip(0, 1)


def fog(film: np.ndarray, severity: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Return frames behind one plasma that stands still, the sum scaled into the frame's range.

    With the strength c = 1.5, 2, 2.5, 2.5, 3 and the plasma p, (x + c p) m / (m + c), where m is
    the largest value of the frame.
    """
    strength, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    seen = plasma(256, decay, rng)[:_SIDE, :_SIDE]
    if film.shape[1:3] != seen.shape:
        layer = torch.from_numpy(seen)[None, None]
        seen = interpolate(layer, film.shape[1:3], mode="bilinear", antialias=True)[0, 0].numpy()
    most = film.max((1, 2, 3), keepdims=True)
    behind: np.ndarray = (film + strength * seen[..., None]) * most / (most + strength)
    return behind


def plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random height map in [0, 1] by the diamond-square rule, its edges joined.

    From corners a step apart, first the middle of each square becomes the mean of its four corners
    plus noise, then the middle of each edge the mean of the four heights around it plus noise; then
    the step is halved and the noise falls by the square of ``decay`` (Fournier, Fussell and
    Carpenter, 1982; the square is ImageNet-C's).

    Args:
        side: of the map, a power of two.
        decay: the larger, the smoother.
        rng: draws the noise, uniform.

    Shape:
        (side, side), float64
    """
    heights = np.zeros((side, side))
    step, noise = side, 1.0
    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        middles = (pairs + np.roll(pairs, -1, 1)) / 4
        middles += rng.uniform(-noise, noise, middles.shape)
        heights[half::step, half::step] = middles
        across = corners + np.roll(corners, -1, 1) + middles + np.roll(middles, 1, 0)
        heights[::step, half::step] = across / 4 + rng.uniform(-noise, noise, across.shape)
        down = corners + np.roll(corners, -1, 0) + middles + np.roll(middles, 1, 1)
        heights[half::step, ::step] = down / 4 + rng.uniform(-noise, noise, down.shape)
        step, noise = half, noise / decay**2
    heights -= heights.min()
    scaled: np.ndarray = heights / heights.max()
    return scaled


def _blurred(film: np.ndarray) -> np.ndarray:
    """Return the mean of each pixel and its eight neighbours, mirrored at the edges."""
    padded = np.pad(film, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    blurred: np.ndarray = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
    return blurred
