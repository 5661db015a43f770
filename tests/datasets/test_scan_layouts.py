"""What a folder of scans looks like, told by its files."""

from pathlib import Path

import pytest

from geonorm.datasets.scan_layouts import looks_like

BENCHMARKS = {
    "v1.0-mini/sample_data.json": "nuScenes: --config nuscenes",
    "scans/scene0000_00": "ScanNet: --config scannet",
    "train/scene0/segment20.npy": "ScanNet: --config scannet",
    "val/scene0/segment20.npy": "ScanNet: --config scannet",
    "Area_6/hall/Annotations": "S3DIS: --config s3dis",
    "Area_1/hall/segment.npy": "S3DIS: --config s3dis",
    "Area_3_hall.npy": "S3DIS: --config s3dis",
    "sequences/00/tag": "SemanticPOSS: --config semanticposs",
    "dataset/sequences/00/tag": "SemanticPOSS: --config semanticposs",
    "annotations.yaml": "SynLiDAR: --config synlidar",
    "sequences/00/velodyne": "SemanticKITTI: --config semantickitti",
    "dataset/sequences/00/velodyne": "SemanticKITTI: --config semantickitti",
    "train/velodyne": "SemanticSTF: --config semanticstf",
    "val/velodyne": "SemanticSTF: --config semanticstf",
    "training/lidar/a.parquet": "Waymo: --config waymo",
    "validation/lidar/a.parquet": "Waymo: --config waymo",
    "testing/lidar/a.parquet": "Waymo: --config waymo",
    "a.tfrecord": "version 1 of Waymo: take version 2, in Parquet, which needs no TensorFlow",
    "ply_data_all_0.h5": "S3DIS in blocks of PointNet: take the release itself",
    "original_ply/Area_1.ply": "S3DIS of KPConv: take the release itself",
    "training/velodyne": "KITTI's detection benchmark: its scans have no labels of points",
    "2011_09_26/drive/velodyne_points": "KITTI's raw recordings: their scans have no labels",
}
NO_BENCHMARK = ("Area_7/hall/Annotations", "sequences/velodyne", "velodyne", "train/lidar/a.npy")


def made(root: Path, name: str) -> Path:
    (root / name).mkdir(parents=True)
    return root


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_is_told_by_its_files(tmp_path: Path, name: str) -> None:
    root = made(tmp_path / "data", name)
    said = looks_like(root, "another")
    assert said.startswith(f". {root} looks like {BENCHMARKS[name]}")


@pytest.mark.parametrize("name", NO_BENCHMARK)
def test_other_folders_look_like_nothing(tmp_path: Path, name: str) -> None:
    assert looks_like(made(tmp_path / "data", name), "another") == ""


def test_the_wanted_one_is_told_beside_the_folder_alone(tmp_path: Path) -> None:
    root = made(tmp_path / "data", "sequences/00/velodyne")
    assert looks_like(root, "SemanticKITTI") == ""
    given = f". {root} looks like SemanticKITTI: give that folder"
    assert looks_like(root / "sequences", "SemanticKITTI") == given
    assert looks_like(tmp_path, "SemanticKITTI") == given
    (tmp_path / "data").rename(tmp_path / ".data")
    assert looks_like(tmp_path, "SemanticKITTI") == ""


def test_the_folder_goes_first_then_the_one_around_it(tmp_path: Path) -> None:
    root = made(tmp_path / "data", "sequences/00/velodyne")
    made(tmp_path, "annotations.yaml")
    made(root / "inside", "a.tfrecord")
    assert looks_like(root, "another").startswith(f". {root} looks like SemanticKITTI")
    assert looks_like(root, "SemanticKITTI").startswith(f". {tmp_path} looks like SynLiDAR")
    (tmp_path / "annotations.yaml").rmdir()
    found = looks_like(root, "SemanticKITTI")
    assert found.startswith(f". {root / 'inside'} looks like version 1 of Waymo")


def test_poss_is_not_taken_for_kitti(tmp_path: Path) -> None:
    for name in ("sequences/00/velodyne", "sequences/00/tag"):
        made(tmp_path / "data", name)
    assert "looks like SemanticPOSS" in looks_like(tmp_path / "data", "another")


def test_fifty_folders_are_looked_into_in_the_order_of_names(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / "data" / f"{number:02}").mkdir(parents=True)
    made(tmp_path / "data" / "49", "annotations.yaml")
    assert "data/49 looks like SynLiDAR" in looks_like(tmp_path / "data", "another")
    (tmp_path / "data" / "00a").mkdir()
    assert looks_like(tmp_path / "data", "another") == ""
