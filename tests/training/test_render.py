"""Pictures of points: whatever their extent, all that the camera sees is drawn."""

import numpy as np
import pytest

pytest.importorskip("open3d")

from geonorm.training.segmentation.render import SIZE, render
from helpers.rendering import skip_without_rendering

WHITE, RED = (255, 255, 255), (255, 0, 0)


def ground(ahead):
    """Return points on the ground in a range of x, drawn twice: white, and red."""
    x, y = np.meshgrid(np.linspace(*ahead, 60), np.linspace(-29, 29, 60))
    points = np.stack([x, y, np.full_like(x, -2)], -1).reshape(-1, 3).astype(np.float32)
    return points, np.stack([np.full((len(points), 3), colour, np.uint8)
                             for colour in (WHITE, RED)])  # fmt: skip


def drawn_scenes(*ranges):
    """Return the pictures of the ground in several ranges, or skip where Open3D cannot render."""
    skip_without_rendering()
    return render([ground(ahead) for ahead in ranges])


def test_points_are_drawn_wherever_the_middle_of_the_scan_lies():
    ranges = [(-28, 29), (-20, 26), (-10, 30), (0, 30), (5, 20)]
    pictures = drawn_scenes(*ranges)
    for ahead, (white, red) in zip(ranges, pictures, strict=True):
        assert white.shape == (SIZE[1], SIZE[0], 3)
        drawn = white.min(-1) > 200
        assert drawn.mean() > 0.01, ahead
        assert np.array_equal(red[..., 0] > 200, drawn)
        assert not red[..., 1:].any()


def test_points_further_ahead_are_drawn_higher():
    near, far = (white.min(-1).nonzero()[0].mean()
                 for white, _ in drawn_scenes((0, 5), (20, 25)))  # fmt: skip
    assert far < near - 100
