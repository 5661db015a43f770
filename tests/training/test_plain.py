"""Scans and clips drawn without Open3D or PyAV: where their classes are, and how clips move."""

import numpy as np
import pytest
import torch

from geonorm.training.invariance.plain import MOTIONS, clips, street


@pytest.mark.parametrize("seed", range(12))
def test_the_classes_of_a_street_lie_where_they_must(seed):
    scan = street(seed, points=1003)
    assert np.bincount(scan.labels).tolist() == [253, 250, 250, 250]
    ground, wall, pole, car = (scan.points[scan.labels == label] for label in range(4))
    near = 0.12  # six deviations of the noise
    assert np.abs(ground[:, 2] + 1.8).max() < near
    assert (np.abs(np.abs(wall[:, 1]).mean() - 8)) < 1 + near
    assert np.ptp(np.abs(wall[:, 1])) < 2 * near
    assert set(np.sign(wall[:, 1])) == {-1, 1}
    for things, extent in ((pole, (0.15, 0.15, 4.8)), (car, (4.0, 1.7, 1.5))):
        low, high = np.array([-18, -6, -1.8]), np.array([18, 5, -1.8]) + extent
        assert (things > low - near).all()
        assert (things < high + near).all()
        assert np.ptp(things[:, 2]) > 0.9 * extent[2]
        assert np.ptp(things[:, 0]) > 10  # several of them
    assert np.abs(car[:, 1]).max() < np.abs(wall[:, 1]).min()
    assert 0 <= scan.intensity.min() < scan.intensity.max() <= 1


def test_clips_drift_in_the_direction_of_their_class():
    assert MOTIONS == ((0, 3), (0, -3), (3, 0), (-3, 0))  # right, left, down, up
    videos, labels = clips(3, count=40, frames=4, size=16)
    assert videos.shape == (40, 3, 4, 16, 16)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    for video, label in zip(videos, labels.tolist(), strict=True):
        down, right = MOTIONS[label]
        for t in range(1, 4):
            assert torch.equal(video[:, t], video[:, 0].roll((down * t, right * t), (1, 2)))
    assert not torch.equal(videos[0, :, 0], videos[1, :, 0])
    blocks = videos[0, :, 0].unfold(1, 4, 4).unfold(2, 4, 4)
    assert (blocks == blocks[..., :1, :1]).all()
    assert len(blocks[..., 0, 0].unique()) == 3 * 4 * 4
