"""What the networks of the study of gan learn to make: clips, and images of scans' intensities."""

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from geonorm.studies.clips import drawn_clips

if TYPE_CHECKING:
    from geonorm.datasets.scan import Scan
    from geonorm.datasets.synthetic.lidar import LidarSensor

Kind = Literal["clips", "scans"]
# (C, T, H, W) of one recording.
SHAPES: dict[Kind, tuple[int, int, int, int]] = {"clips": (3, 4, 12, 12), "scans": (1, 1, 16, 16)}
DARKEST = 0.25
SECTORS = 8  # images that a scan makes, side by side


def recordings(kind: Kind, count: int, seed: int) -> Tensor:
    """Return recordings of a kind in [-1, 1], (count, *SHAPES[kind])."""
    return some_clips(count, seed) if kind == "clips" else some_scans(count, seed)


@lru_cache(maxsize=4)
def some_clips(count: int, seed: int) -> Tensor:
    """Return clips of moving shapes at exposures from `DARKEST` to 1 in [-1, 1]."""
    clips, _ = drawn_clips(count, *SHAPES["clips"][1:3], seed)
    gains = DARKEST ** torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return clips * gains.view(-1, 1, 1, 1, 1) * 2 - 1


@lru_cache(maxsize=4)
def some_scans(count: int, seed: int) -> Tensor:
    """Return images of the intensities of built-in streets in [-1, 1].

    A row is a range of elevations, a column one of directions, a pixel the mean intensity of the
    points in both, or -1 where there is none. Gain and offset of the sensor drift from scan to
    scan; a scan makes `SECTORS` images.
    """
    from geonorm.datasets.synthetic.streets import SyntheticStreets

    streets = SyntheticStreets(-(-count // SECTORS), seed)
    images = torch.cat([sectors(streets[i], streets.sensor) for i in range(len(streets))])
    return images[:count, None, None] * 2 - 1


def sectors(scan: "Scan", sensor: "LidarSensor") -> Tensor:
    """Return a scan as images of its intensities, the highest row on top, 0 where no point is.

    Shape:
        (SECTORS, H, W) in [0, 1]
    """
    rows, width = SHAPES["scans"][2:]
    columns = width * SECTORS
    x, y, z = scan.points.T
    up = np.degrees(np.arctan2(z, np.hypot(x, y)))
    level = (sensor.fov_up - up) / (sensor.fov_up - sensor.fov_down)
    row = (level * rows).astype(int).clip(0, rows - 1)
    column = (np.arctan2(y, x) / (2 * np.pi) * columns).round().astype(int) % columns
    cell = row * columns + column
    total = np.bincount(cell, scan.feature("intensity")[:, 0], rows * columns)
    found = np.bincount(cell, minlength=rows * columns)
    image = torch.from_numpy(total / found.clip(1)).float()
    return image.view(rows, SECTORS, width).transpose(0, 1)
