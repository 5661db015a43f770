"""Scans to voxels and back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geonorm.datasets.scan import Scan
from geonorm.datasets.voxelize import FEATURE_SCALE, collate_scans


def make_scan(points, labels=None, name="scan", intensity=None):
    points = np.asarray(points, dtype=np.float32)
    intensity = np.linspace(0, 1, len(points)) if intensity is None else np.asarray(intensity)
    labels = None if labels is None else np.asarray(labels, dtype=np.int64)
    return Scan(points, intensity.astype(np.float32), labels, name)


def random_scan(seed, num_points=500, labelled=True):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, num_points) if labelled else None
    return make_scan(rng.normal(0, 2, (num_points, 3)), labels, f"scan {seed}")


def test_by_hand():
    points = [[0.1, 0.1, 0.1], [0.4, 0.2, 0.3], [-0.1, 0.0, 0.0], [0.2, 0.2, 0.2]]
    batch = collate_scans([make_scan(points, [2, 1, 255, 2], intensity=[0.2, 0.4, 0.9, 0.0])], 0.5)
    rows = {tuple(row): i for i, row in enumerate(batch.coordinates.tolist())}
    assert set(rows) == {(0, 0, 0, 0), (0, -1, 0, 0)}
    near, beyond = rows[0, 0, 0, 0], rows[0, -1, 0, 0]
    assert batch.inverse.tolist() == [near, near, beyond, near]
    assert batch.labels[near] == 2
    assert batch.labels[beyond] == 255
    mean = np.mean([points[0], points[1], points[3]], axis=0) / FEATURE_SCALE
    np.testing.assert_allclose(batch.features[near], [*mean, 0.2], rtol=1e-5)
    np.testing.assert_allclose(batch.features[beyond, 3], 0.9, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([3, 3, 1], 3), ([1, 3, 255], 1), ([255, 255, 4], 4), ([255, 255, 255], 255)],
    ids=["majority", "tie takes the smaller", "unlabelled points do not vote", "none labelled"],
)
def test_label_of_a_mixed_voxel(labels, expected):
    batch = collate_scans([make_scan(np.full((3, 3), 0.1), labels)], 1.0)
    assert batch.labels.tolist() == [expected]


@pytest.mark.parametrize("voxel_size", [0.05, 0.3, 1.0, 7.0])
def test_every_point_finds_its_voxel(voxel_size):
    scans = [random_scan(0), random_scan(1, 37), random_scan(2, 1)]
    batch = collate_scans(scans, voxel_size)
    cells = (batch.points.double() / voxel_size).floor().int()
    expected = torch.cat([batch.point_batch[:, None].int(), cells], dim=1)
    assert torch.equal(batch.coordinates[batch.inverse], expected)
    assert len(torch.unique(batch.coordinates, dim=0)) == len(batch.coordinates)
    assert batch.coordinates.dtype == torch.int32
    assert batch.point_batch.bincount().tolist() == [500, 37, 1]
    assert batch.names == ["scan 0", "scan 1", "scan 2"]


def test_predictions_come_back_to_the_points_in_their_order():
    scan = random_scan(3)
    batch = collate_scans([scan], 1e-4)  # so small that each point has its own voxel
    assert len(batch.coordinates) == len(scan)
    assert torch.equal(batch.labels[batch.inverse], torch.from_numpy(scan.labels))


def test_scans_of_a_batch_do_not_meet():
    scan = random_scan(4)
    alone, both = collate_scans([scan], 0.5), collate_scans([scan, scan], 0.5)
    assert len(both.coordinates) == 2 * len(alone.coordinates)
    for index in (0, 1):
        rows = both.coordinates[:, 0] == index
        assert torch.equal(both.features[rows], alone.features)
        assert torch.equal(both.labels[rows], alone.labels)


def test_points_outside_the_clip_range_stay_and_move_to_its_edge():
    scan = make_scan([[0.5, 0.5, 0.5], [90, 0.5, 0.5], [-90, -90, -9]], [1, 2, 3])
    batch = collate_scans([scan], 1.0, clip_range=[-10, -10, -4, 10, 10, 2])
    assert batch.coordinates[batch.inverse].tolist() == [
        [0, 0, 0, 0], [0, 10, 0, 0], [0, -10, -10, -4],
    ]  # fmt: skip
    assert torch.equal(batch.points, torch.from_numpy(scan.points))
    placed = [[0.5, 0.5, 0.5], [10, 0.5, 0.5], [-10, -10, -4]]
    features = torch.tensor([[x / 20, y / 20, z / 2] for x, y, z in placed])
    features = torch.cat([features, torch.tensor([[0.0], [0.5], [1.0]])], dim=1)
    torch.testing.assert_close(batch.point_features, features)
    torch.testing.assert_close(batch.features[batch.inverse], features)


def test_points_within_the_clip_range_are_left_as_they_are():
    scan = random_scan(7)
    clipped = collate_scans([scan], 0.5, clip_range=[-60, -50, -40, 30, 20, 15])
    for found, expected in zip(clipped[:8], collate_scans([scan], 0.5)[:8], strict=True):
        assert torch.equal(found, expected)


def test_scan_without_labels():
    batch = collate_scans([random_scan(5, labelled=False), random_scan(6)], 0.5)
    first = batch.point_batch == 0
    assert (batch.point_labels[first] == 255).all()
    assert (batch.labels[batch.coordinates[:, 0] == 0] == 255).all()
    assert (batch.labels[batch.coordinates[:, 0] == 1] != 255).all()


def test_what_leads_back_to_each_scans_file_is_passed_on():
    kept = np.array([True, False, True])
    scans = [
        replace(random_scan(0, 2), kept=kept, offset=(1.0, 2.0, 3.0)),
        replace(random_scan(1, 3), domain=7, offset=(4.0, 5.0, 6.0)),
    ]
    batch = collate_scans(scans, 0.5)
    assert batch.kept[0] is kept
    assert batch.kept[1] is None
    assert batch.offsets == [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)]
    assert batch.domains == [None, 7]


def test_no_scan():
    with pytest.raises(ValueError, match="at least one scan; got none"):
        collate_scans([], 0.1)


def test_empty_scan():
    with pytest.raises(ValueError, match="scan hollow is empty"):
        collate_scans([make_scan(np.zeros((0, 3)), name="hollow")], 0.1)


@pytest.mark.parametrize("voxel_size", [0, -0.1, float("nan")])
def test_voxel_size(voxel_size):
    with pytest.raises(ValueError, match="voxel_size must be a positive number of metres"):
        collate_scans([random_scan(0)], voxel_size)


@pytest.mark.parametrize("clip_range", [
    [0, 1], [0, 0, 0, 1, 1, 1, 2, 2], [1, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0],
])  # fmt: skip
def test_clip_range(clip_range):
    with pytest.raises(ValueError, match="clip_range must be x, y, z lowest then"):
        collate_scans([random_scan(0)], 0.1, clip_range)


def test_point_too_far_for_whole_numbers():
    with pytest.raises(ValueError, match=r"scan far has a point at .*give a clip_range"):
        collate_scans([make_scan([[0, 0, 0], [1e30, 0, 0]], name="far")], 0.1)


def test_the_farthest_voxels_and_the_scan_that_has_one_beyond():
    limit = 2.0**30
    near = make_scan([[limit, 0, 0], [0, -limit, 0]])
    batch = collate_scans([near], 1.0)
    assert batch.coordinates[batch.inverse].tolist() == [[0, 2**30, 0, 0], [0, 0, -(2**30), 0]]
    beyond = make_scan([[0, 0, 0], [0, 0, -limit - 128], [0, 0, 5]], name="beyond")
    said = r"scan beyond has a point at \[0\.0, 0\.0, -1073741952\.0\] m, too far for .* of 1\.0 m"
    with pytest.raises(ValueError, match=said):
        collate_scans([near, beyond], 1.0)
