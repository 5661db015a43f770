"""Waymo, version 2: both returns, labels by pixel, splits, broken downloads, and a run."""

import json

import numpy as np
import pyarrow
import pytest

from geonorm.datasets import Waymo, waymo
from geonorm.datasets.label_map import label_maps
from helpers.segmentation_runs import run_config
from helpers.waymo_trees import (
    NO_TURN,
    ids,
    image_types,
    images,
    keys,
    write_calibration,
    write_labels,
    write_lidar,
    write_poses,
    write_segment,
    write_table,
    write_vehicle,
    write_waymo,
)

NAMES = [
    "car", "truck", "bus", "other-vehicle", "motorcyclist", "bicyclist", "pedestrian", "sign",
    "traffic-light", "pole", "construction-cone", "bicycle", "motorcycle", "building",
    "vegetation", "tree-trunk", "curb", "road", "lane-marker", "other-ground", "walkable",
    "sidewalk",
]  # fmt: skip
# As DGLSS publishes them, from 1.
DGLSS = {1: 1, 12: 2, 13: 3, 2: 4, 3: 5, 4: 5, 7: 6, 18: 7, 19: 7, 20: 7, 17: 8, 22: 8, 21: 9,
         15: 10, 16: 10}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    return write_waymo(tmp_path)


def names(dataset):
    return [dataset[i].name for i in range(len(dataset))]


def test_two_rows_of_three_pixels_by_hand(tmp_path):
    """The beams are told from below, the rows begin above; a class stands behind its instance."""
    # Range, intensity, elongation and whether in a zone without labels.
    first = np.zeros((2, 3, 4))
    first[..., 0] = [[0, 10, -1], [5, 0, 20]]
    first[0, 1, 1], first[1, 0, 1], first[1, 2, 1] = 0.5, 0, 4000
    second = np.zeros((2, 3, 4))
    second[..., 0] = [[0, 0, 0], [0, 10, 0]]
    labels = np.full((2, 2, 3, 2), 9)  # an instance of 9 everywhere
    labels[0, ..., 1] = [[3, 1, 3], [18, 3, 0]]
    labels[1, ..., 1] = [[3, 3, 3], [3, 15, 3]]
    folder = tmp_path / "validation"
    write_lidar(folder, "s", {7: {1: first, 2: second}})
    write_labels(folder, "s", {7: dict(enumerate(labels, 1))})
    extrinsic = NO_TURN.copy()
    extrinsic[:3, 3] = [1, 0, 2]
    write_calibration(folder, "s", extrinsic, np.arcsin([-0.8, 0.6]).tolist())
    poses = np.zeros((2, 3, 6))
    poses[1, 1, 3] = 30  # of both returns of this pixel
    write_poses(folder, "s", {7: poses})
    vehicle = np.array([[0, -1, 0, 2], [1, 0, 0, 3], [0, 0, 1, 4], [0, 0, 0, 1]])
    write_vehicle(folder, "s", {3: NO_TURN, 7: vehicle})
    [scan] = [*Waymo(tmp_path, "val")]
    root = np.sqrt(3) / 2
    world = np.array([[9, 0, 8], [-0.5, 3 * root, -2], [-5, -12 * root, -14], [37, 0, -6]])
    expected = np.stack([world[:, 1] - 3, 2 - world[:, 0], world[:, 2] - 4], axis=1)
    np.testing.assert_allclose(scan.points, expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(scan.intensity, [np.tanh(0.5), 0, 1, 0], rtol=1e-6)
    assert scan.extra["echo"].tolist() == [[1], [1], [1], [2]]
    assert [NAMES[label] for label in scan.labels[[0, 1, 3]]] == ["car", "road", "vegetation"]
    assert scan.labels[2] == 255
    assert scan.name == "s/7"


def test_splits_and_labels(root):
    train, val = Waymo(root), Waymo(root, "val")
    assert names(train) == ["a_0/10", "a_0/20", "b_1/10", "b_1/20"]
    assert names(val) == ["c_2/10", "c_2/20"]
    frames = write_segment(root / "validation", "c_2")
    scan = val[1]
    expected = np.concatenate([ids(20)[1].ravel(), ids(20)[2][::2].ravel()])
    assert (np.array([255, *range(22)])[expected] == scan.labels).all()
    assert len(expected) == 180
    distances = np.concatenate([frames[20][1][..., 0].ravel(), frames[20][2][::2, :, 0].ravel()])
    np.testing.assert_allclose(np.linalg.norm(scan.points, axis=1), distances, rtol=1e-5)
    # Below the sensor but for the highest of the beams, which is the first row.
    np.testing.assert_array_equal(scan.points[:120, 2] > 0, np.arange(120) < 30)
    assert Waymo.classes == tuple(NAMES)
    assert (Waymo.label_maps, val.submission) == (("dglss",), None)
    mapped = Waymo(root, "val", label_map="dglss")
    assert dict(zip(mapped.classes, map(tuple, mapped.colors.tolist()), strict=True)) == {
        **label_maps()["dglss"].classes
    }
    assert mapped[1].labels.tolist() == [DGLSS.get(id_, 256) - 1 for id_ in expected]


def test_a_frame_without_a_second_return(root):
    folder = root / "validation"
    frames = write_segment(folder, "c_2")
    write_lidar(folder, "c_2", {10: frames[10] | {2: None}, 20: frames[20]})
    scan = Waymo(root, "val")[0]
    assert len(scan) == 120
    assert (scan.extra["echo"] == 1).all()
    write_lidar(folder, "c_2", {10: frames[10] | {1: None}, 20: frames[20]})
    scan = Waymo(root, "val")[0]
    assert scan.extra["echo"].tolist() == [[2]] * 60
    assert (np.array([255, *range(22)])[ids(10)[2][::2].ravel()] == scan.labels).all()


def test_beams_without_inclinations_share_the_angle(root):
    write_calibration(root / "validation", "c_2", NO_TURN, None, -0.4, 0.4)
    points = Waymo(root, "val")[0].points[:120]
    found = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    np.testing.assert_allclose(found, np.repeat([0.3, 0.1, -0.1, -0.3], 30), atol=1e-6)


def test_lists_of_frames(root, tmp_path):
    file = tmp_path / "frames.txt"
    file.write_text("d_3,30\r\n\r\nd_3,10\n")
    test = Waymo(root, "test", frames=file)
    assert names(test) == ["d_3/30", "d_3/10"]
    assert test[0].labels is None
    file.write_text("c_2,20\n")
    assert names(Waymo(root, "val", frames=file)) == ["c_2/20"]
    file.write_text("d,3,10\n")  # a name may hold a comma
    refused(root, r"incomplete: 4 of 4 files are missing: .*lidar.d,3.parquet", file, "test")
    file.write_text("c_2,20\n c_2, 10 \n")
    assert names(Waymo(root, "val", frames=file)) == ["c_2/20", "c_2/10"]
    file.write_text("c_2,20\nc_2,40\nc_2,30\n")
    refused(root, r"2 of 3 listed frames have no labels, such as c_2,30; expected", file)
    file.write_text("c_2,20\nc_2,30\n")
    refused(root, r"1 of 2 listed frames have no labels, such as c_2,30; expected.*c_2.parq", file)
    file.write_text("c_2 20\n")
    refused(root, r"frames.txt, line 1: expected SEGMENT,TIME; got 'c_2 20'", file)
    for line in ("c_2,-20", ",20", "c_2,"):
        file.write_text(f"c_2,20\n\n{line}\n")
        refused(root, rf"frames.txt, line 3: expected SEGMENT,TIME; got '{line}'", file)
    file.write_text("\n")
    refused(root, r"frames.txt is empty; expected lines SEGMENT,TIME", file)
    file.unlink()
    refused(root, r"no list of frames .*frames.txt; expected lines SEGMENT,TIME", file)
    refused(root, r"test split needs frames=, a file of lines .*3d_semseg_test_set_frames", None,
            "test")  # fmt: skip


def refused(root, match, frames=None, split="val"):
    with pytest.raises(ValueError, match=match):
        Waymo(root, split, frames)[0]


def test_missing_and_half_downloads(root, tmp_path):
    refused(tmp_path / "nothing", r"no Waymo under .*; tried .*validation. .* looks like Waymo")
    refused(root, r"split must be one of train, val, test; got 'validation'", None, "validation")
    folder = root / "validation"
    (folder / "vehicle_pose/c_2.parquet").unlink()
    (folder / "lidar_pose/c_2.parquet").unlink()
    refused(root, r"Waymo is incomplete: 2 of 5 files are missing: .*lidar_pose.c_2.*vehicle_pose")
    write_segment(folder, "c_2")
    (folder / "lidar/c_2.parquet").unlink()
    refused(root, r"Waymo is incomplete: 1 of 5 files are missing: .*lidar.c_2.parquet")
    write_segment(folder, "c_2")
    write_segment(folder, "e_4", labelled=())
    refused(root, r"incomplete: 1 of 10 files are missing: .*lidar_segmentation.e_4.parquet")
    (tmp_path / "frames.txt").write_text("c_2,20\n")
    assert names(Waymo(root, "val", tmp_path / "frames.txt")) == ["c_2/20"]
    (tmp_path / "frames.txt").write_text("c_2,20\nf_5,20\n")
    refused(root, r"incomplete: 5 of 10 files .*lidar.f_5.parquet", tmp_path / "frames.txt")


def test_version_1_is_named(tmp_path):
    for split in ("training", "validation"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "segment-1_with_camera_labels.tfrecord").touch()
    refused(tmp_path, r"no Waymo .*looks like version 1 of Waymo: take version 2, in Parquet")


def test_broken_files(root):
    folder = root / "validation"
    frames = write_segment(folder, "c_2")
    file = folder / "lidar/c_2.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    refused(root, r"lidar.c_2.parquet cannot be read as Parquet of Waymo's version 2.*again")
    write_vehicle(folder, "c_2", {10: NO_TURN})
    file.write_bytes((folder / "vehicle_pose/c_2.parquet").read_bytes())
    refused(root, r"lidar.c_2.parquet cannot be read .* or lacks one of .LiDARComponent.*No match")
    write_lidar(folder, "c_2", {20: frames[20]})
    refused(root, r"lidar.c_2.parquet must hold one row with key.laser_name = 1 and .* = 10; got 0")
    write_lidar(folder, "c_2", {10: {1: frames[10][1][..., :3], 2: None}})
    refused(root, r"lidar.c_2.*frame 10, return 1: expected .*\(4, 30, 4\); got 360 .*\(4, 30, 3\)")
    cells = images("LiDARComponent", {1: frames[10][1], 2: None})
    cells["[LiDARComponent].range_image_return1.values"].pop()
    write_table(folder, "lidar", "c_2", image_types("LiDARComponent", (1, 2), pyarrow.float32()),
                [keys("c_2", 10, 1) | cells])  # fmt: skip
    refused(root, r"return 1: expected .*\(4, 30, 4\); got 479 values for the shape \(4, 30, 4\)")
    cells["[LiDARComponent].range_image_return1.values"] += [0, 0]
    write_table(folder, "lidar", "c_2", image_types("LiDARComponent", (1, 2), pyarrow.float32()),
                [keys("c_2", 10, 1) | cells])  # fmt: skip
    refused(root, r"return 1: expected .*\(4, 30, 4\); got 481 values for the shape \(4, 30, 4\)")
    write_lidar(folder, "c_2", {10: {1: frames[10][1], 2: frames[10][2][:, :29]}})
    refused(root, r"frame 10, return 2: expected .*\(4, 30, 4\); got 464 .*\(4, 29, 4\)")
    write_lidar(folder, "c_2", {10: {1: None, 2: None}})
    refused(root, r"lidar.c_2.parquet: frame 10 has no image of the top LiDAR")
    write_segment(folder, "c_2")
    write_poses(folder, "c_2", {10: np.zeros((4, 29, 6))})
    refused(root, r"lidar_pose.c_2.*frame 10, return 1: expected .*\(4, 30, 6\).*\(4, 29, 6\)")
    write_poses(folder, "c_2", {10: None})
    refused(root, r"lidar_pose.c_2.parquet: frame 10 has no image of the top LiDAR")
    write_segment(folder, "c_2")
    for beams in (2, 5):
        write_calibration(folder, "c_2", NO_TURN, np.linspace(-0.1, 0.1, beams).tolist())
        refused(root, rf"lidar_calibration.c_2.*must tell 4 inclinations of beams, .*; got {beams}")


def test_a_frame_without_points_is_named(root):
    write_lidar(root / "training", "b_1", {10: {1: np.zeros((4, 30, 4)), 2: None}})
    with pytest.raises(ValueError, match=r"training.lidar.b_1.parquet is empty: none of its 0 poi"):
        Waymo(root)[2]


def test_poses_that_are_there_twice(root):
    column = "[VehiclePoseComponent].world_from_vehicle.transform"
    rows = [keys("c_2", 10) | {column: NO_TURN.ravel().tolist()}] * 2
    write_table(root / "validation", "vehicle_pose", "c_2",
                {column: pyarrow.list_(pyarrow.float64(), 16)}, rows)  # fmt: skip
    refused(root, r"vehicle_pose.c_2.parquet must hold one row with .*micros = 10; got 2")


def test_broken_labels(root):
    folder = root / "validation"
    labels = np.ones((4, 30, 2), dtype=int)
    write_labels(folder, "c_2", {10: {1: labels, 2: None}})
    refused(root, r"lidar_segmentation.c_2.parquet: frame 10 has no labels of its return 2")
    write_labels(folder, "c_2", {10: {1: labels[:3], 2: labels}})
    refused(root, r"c_2.*frame 10, return 1: expected an image of \(4, 30, 2\); .*\(3, 30, 2\)")
    labels[..., 1] = [[23], [-1], [1], [1]]
    write_labels(folder, "c_2", {10: {1: labels, 2: labels}})
    refused(root, r"c_2.parquet holds class id -1 \(30 points\), 23 \(60 points\), which Waymo")
    component = "[LiDARSegmentationLabelComponent].range_image_return1"
    write_table(folder, "lidar_segmentation", "c_2", {}, [
        {"key.frame_timestamp_micros": 10, "key.laser_name": 2, component: None}
    ])  # fmt: skip
    refused(root, r"no frame of the top LiDAR in .*lidar_segmentation has labels")


def test_files_that_are_none_of_the_users_are_passed_over(root):
    for part in ("lidar", "lidar_segmentation"):
        (root / "validation" / part / "._c_2.parquet").write_bytes(b"Mac OS X")
        (root / "validation" / part / ".e_4.parquet").touch()
    assert names(Waymo(root, "val")) == ["c_2/10", "c_2/20"]


def test_only_what_is_tested_on_may_lie_elsewhere(root, tmp_path):
    write_segment(root / "testing_location", "c_2", times=(10,))
    write_segment(root / "testing_location", "d_3", times=(40,))
    assert Waymo(root, "val").files == [root / "validation/lidar/c_2.parquet"] * 2
    assert names(Waymo(root, "val")) == ["c_2/10", "c_2/20"]
    (tmp_path / "frames.txt").write_text("d_3,40\n")
    test = Waymo(root, "test", tmp_path / "frames.txt")
    assert test.files == [root / "testing_location/lidar/d_3.parquet"]
    assert len(test[0]) == 180


def test_linked_folders_are_followed(root, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/validation").symlink_to(root / "validation", target_is_directory=True)
    assert names(Waymo(tmp_path / "linked", "val")) == ["c_2/10", "c_2/20"]


def test_one_epoch_and_a_submission(root, tmp_path, monkeypatch):
    """What Waymo's server takes has every point of three frames, in which they are 180 each."""
    run_config("waymo", root, tmp_path / "run", "--data.voxel_size=0.8")
    scores = json.loads((tmp_path / "run" / "val.json").read_text())
    assert 0 <= scores["miou"] <= 1
    assert list(scores["iou"]) == NAMES
    monkeypatch.setattr(waymo, "TEST_FRAMES", 3)
    (tmp_path / "frames.txt").write_text("d_3,10\nd_3,30\nd_3,20\n")
    test = {"split": "test", "frames": tmp_path / "frames.txt", "account": "a@b.c", "method": "m"}
    run_config("waymo", root, tmp_path / "run", "--data.voxel_size=0.8", "--data.test=Waymo",
               *[f"--data.test.init_args.{name}={value}" for name, value in test.items()],
               f"--data.test.init_args.root={root}",
               f"--ckpt_path={tmp_path}/run/checkpoints/last.ckpt", subcommand="test")  # fmt: skip
    Waymo(root, **test).submission.check(tmp_path / "run/submission.bin")
