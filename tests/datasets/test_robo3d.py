"""SemanticKITTI-C and nuScenes-C in the layout that Robo3D's generators write."""

import numpy as np
import pytest

from geonorm.datasets import NuScenesC, SemanticKITTIC
from geonorm.datasets.robo3d import LEVELS
from geonorm.datasets.scan_corruptions import ROBO3D
from helpers import nuscenes_trees

# Raw ids of a car, a road, a pole, what moved, and no class, with an instance in the high bits.
RAW = np.array([10, 40, 80, 21, 22, 23, 0, 252 + (7 << 16)], dtype="<u4")
TRAIN = [0, 8, 17, 255, 255, 255, 255, 0]


def kitti_c(root, corruption="fog", level="heavy", frames=(1, 0)):
    """Write scans whose intensities lie outside [0, 1], as crosstalk and fog make them."""
    folder = root / corruption / level
    for name in ("velodyne", "labels"):
        (folder / name).mkdir(parents=True)
    for frame in frames:
        rows = np.random.default_rng(frame).normal(0, 9, (8, 4)).astype("<f4")
        rows[:, 3] = [-2.5, 0, 1, 3.5, 0.25, frame, 0.5, 0.75]
        rows.tofile(folder / "velodyne" / f"{frame:06d}.bin")
        RAW.tofile(folder / "labels" / f"{frame:06d}.label")
    return root


def test_semantickitti_c_is_read_as_it_is_stored(tmp_path):
    kitti_c(tmp_path)
    kitti_c(tmp_path, "snow", "light", frames=(4,))
    data = SemanticKITTIC(tmp_path, "fog", "heavy")
    assert [scan.name for scan in (data[0], data[1])] == ["fog/heavy/000000", "fog/heavy/000001"]
    assert (len(data), len(data.classes), data.submission) == (2, 19, None)
    scan = data[1]
    np.testing.assert_array_equal(scan.labels, TRAIN)
    np.testing.assert_array_equal(scan.intensity, np.float32([-2.5, 0, 1, 3.5, 0.25, 1, 0.5, 0.75]))
    assert SemanticKITTIC(tmp_path, "snow", "light")[0].name == "snow/light/000004"


def test_points_that_are_not_finite_go(tmp_path):
    kitti_c(tmp_path, frames=(0,))
    file = tmp_path / "fog/heavy/velodyne/000000.bin"
    rows = np.fromfile(file, "<f4").reshape(-1, 4)
    rows[1, 3], rows[2, 0] = np.nan, np.inf
    rows.tofile(file)
    scan = SemanticKITTIC(tmp_path, "fog", "heavy")[0]
    left = [0, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(np.flatnonzero(scan.kept), left)
    np.testing.assert_array_equal(scan.intensity, rows[left, 3])
    np.testing.assert_array_equal(scan.points, rows[left, :3])
    np.testing.assert_array_equal(scan.labels, np.array(TRAIN)[left])
    assert scan.dropped == 2


def nuscenes_c(tmp_path, corruption="crosstalk", level="light"):
    """Write nuScenes, and two scans of it with their last point moved, under a corruption."""
    nuscenes_trees.write(tmp_path / "nuscenes", "v1.0-trainval", ["0003", "0001"])
    folder = tmp_path / "c" / corruption / level
    (folder / "samples/LIDAR_TOP").mkdir(parents=True)
    (folder / "lidarseg/v1.0-trainval").mkdir(parents=True)
    for token in ("0003d0", "0003d1"):
        rows = nuscenes_trees.rows(token)[:20]
        rows[19, 3] = 600
        rows.tofile(folder / f"samples/LIDAR_TOP/{token}.pcd.bin")
        labels = np.arange(20, dtype="u1")
        labels[17:] = 41, 42, 43
        labels.tofile(folder / f"lidarseg/v1.0-trainval/{token}_lidarseg.bin")
    return tmp_path / "c", tmp_path / "nuscenes"


def test_nuscenes_c_is_read_through_the_tables_of_nuscenes(tmp_path):
    root, tables = nuscenes_c(tmp_path)
    data = NuScenesC(root, "crosstalk", "light", tables)
    assert [data[index].name for index in range(len(data))] == ["0003d0", "0003d1"]
    assert len(data.classes) == 16
    scan = data[1]
    rows = nuscenes_trees.rows("0003d1")[:20]
    np.testing.assert_array_equal(scan.points, rows[:, :3])
    np.testing.assert_array_equal(scan.intensity[:19], rows[:19, 3] / np.float32(255))
    assert scan.intensity[19] == np.float32(600 / 255)
    ids = np.arange(17)
    expected = np.full(20, 255)
    for raw, train in {9: 0, 14: 1, 15: 2, 16: 2, 2: 6, 3: 6, 4: 6, 6: 6, 12: 7}.items():
        expected[:17][ids == raw] = train
    np.testing.assert_array_equal(scan.labels, expected)


def test_what_is_missing_is_named(tmp_path):
    kitti_c(tmp_path)
    with pytest.raises(ValueError, match=r"no SemanticKITTI-C under .*tried .*/fog/light/velodyne"):
        SemanticKITTIC(tmp_path, "fog", "light")
    with pytest.raises(ValueError, match=r"no corruption 'fogs'; .*Did you mean 'fog'"):
        SemanticKITTIC(tmp_path, "fogs", "heavy")
    with pytest.raises(ValueError, match="level must be one of light, moderate, heavy; got 3"):
        SemanticKITTIC(tmp_path, "fog", 3)
    (tmp_path / "fog/heavy/labels/000001.label").unlink()
    with pytest.raises(ValueError, match="SemanticKITTI-C is incomplete: 1 of 2 files are missing"):
        SemanticKITTIC(tmp_path, "fog", "heavy")
    (tmp_path / "fog/light/velodyne").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no scans in .*velodyne"):
        SemanticKITTIC(tmp_path, "fog", "light")
    root, tables = nuscenes_c(tmp_path)
    with pytest.raises(ValueError, match=r"no nuScenes-C under .*/fog/heavy/samples/LIDAR_TOP"):
        NuScenesC(root, "fog", "heavy", tables)
    with pytest.raises(ValueError, match="split must have labels, such as 'val'; got 'test'"):
        NuScenesC(root, "crosstalk", "light", tables, split="test")
    with pytest.raises(ValueError, match="nuScenes-C is incomplete: 4 of 4 files are missing"):
        NuScenesC(root, "crosstalk", "light", tables, split="train")
    assert LEVELS == ("light", "moderate", "heavy")
    assert len(ROBO3D) == 8


def test_an_id_of_another_data_set_is_refused(tmp_path):
    kitti_c(tmp_path, frames=(0,))
    raw = RAW.copy()
    raw[0] = 41  # of nuScenes-C
    raw.tofile(tmp_path / "fog/heavy/labels/000000.label")
    with pytest.raises(ValueError, match=r"holds class id 41 \(1 points\), which SemanticKITTI-C"):
        SemanticKITTIC(tmp_path, "fog", "heavy")[0]
