"""SynLiDAR: both layouts, its ids, downloads in parts, and an epoch of its configuration."""

import json

import numpy as np
import pytest

from geonorm.datasets import SynLiDAR
from helpers.segmentation_runs import run_config
from helpers.sequence_trees import (
    train_ids_of,
    write_scan,
    write_semanticposs,
    write_synlidar,
)

RAW = [*range(33)]


@pytest.fixture
def root(tmp_path):
    return write_synlidar(tmp_path / "SynLiDAR")


def names(dataset):
    return [dataset[i].name for i in range(len(dataset))]


@pytest.mark.parametrize("level", ["", "sequences"])
def test_layouts_and_splits(tmp_path, level):
    write_synlidar(tmp_path / "data" / level)
    for split, sequences in {"all": range(13), "train": range(12), "val": [12]}.items():
        found = names(SynLiDAR(tmp_path / "data", split))
        assert found == [f"{sequence:02d}/000007" for sequence in sequences]
    assert names(SynLiDAR(tmp_path / "data", ["03", 1])) == ["03/000007", "01/000007"]


def test_scans_and_labels(root):
    points = write_scan(root, "12", 7, RAW, [*range(65535 - 32, 65536)])
    dataset = SynLiDAR(root, "val")
    np.testing.assert_array_equal(dataset[0].points, points[:, :3])
    np.testing.assert_array_equal(dataset[0].intensity, points[:, 3])
    assert train_ids_of(dataset, RAW) == {0: 255, **{raw: raw - 1 for raw in RAW[1:]}}
    published = {1: "car", 2: "pick-up", 8: "road", 9: "sidewalk", 10: "parking", 12: "female",
                 18: "building", 23: "traffic-sign", 24: "pole", 32: "other-object"}  # fmt: skip
    assert {raw: SynLiDAR.classes[raw - 1] for raw in published} == published
    assert SynLiDAR.colors.shape == (32, 3)
    assert len(np.unique(SynLiDAR.colors, axis=0)) == 32
    assert dataset.submission is None


def refused(root, match, split="val"):
    with pytest.raises(ValueError, match=match):
        SynLiDAR(root, split)[0]


def test_broken_downloads(root, tmp_path):
    refused(tmp_path / "nothing", r"no SynLiDAR under .*; tried .*nothing.sequences and .*nothing$")
    refused(tmp_path / "SynLiDAR", r"one of all, train, val .*; got 'trainval'", "trainval")
    scan, label = root / "12/velodyne/000007.bin", root / "12/labels/000007.label"
    whole = scan.read_bytes()
    scan.write_bytes(whole[:-16])
    refused(root, r"000007.label must hold 32 labels of 4 bytes, .*= 33 labels")
    scan.write_bytes(whole[:-2])
    refused(root, r"000007.bin is truncated: expected a multiple of 16 bytes")
    scan.write_bytes(whole)
    np.array([40] * 30 + [33, 33, 252], "<u4").tofile(label)
    refused(root, r"class id 33 \(2 points\), 40 \(30 points\), 252 \(1 points\), which SynLiDAR d")
    label.unlink()
    refused(root, r"000007.bin has no labels; expected them in .*12.labels.000007.label$")
    scan.unlink()
    refused(root, r"no scans in .*12.velodyne .*; give the sequences you have as a list")


def test_other_folders_are_named(root, tmp_path):
    refused(tmp_path, r"SynLiDAR looks like SynLiDAR: give that folder")
    write_semanticposs(tmp_path / "poss")
    refused(tmp_path / "poss", r"no SynLiDAR .*poss looks like SemanticPOSS: --config semanticposs")


def test_a_sequence_that_is_still_in_parts(tmp_path):
    write_scan(tmp_path, "00", 0, RAW)
    for part in ("01.tar.gz.aa", "01.tar.gz.ab", "._01.tar.gz.aa"):
        (tmp_path / part).touch()
    refused(tmp_path, r"packed in 01.tar.gz.aa, 01.tar.gz.ab. Join .*`cat 01\* > ../01.tar.gz`",
            ["00", "01"])  # fmt: skip


def test_every_sequence_is_still_in_parts(tmp_path):
    for part in ("00.tar.gz", "01.tar.gz.aa"):
        (tmp_path / part).touch()
    refused(tmp_path, r"no scans in .*00.velodyne .*still packed in 00.tar.gz. Join", "train")


def test_files_that_are_none_of_the_users_are_passed_over(root):
    (root / "12/velodyne/._000007.bin").write_bytes(b"Mac OS X        ")
    (root / "12/labels/._000007.label").write_bytes(b"Mac")
    assert names(SynLiDAR(root, "val")) == ["12/000007"]


def test_linked_folders_are_followed(root, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/12").symlink_to(root / "12", target_is_directory=True)
    assert names(SynLiDAR(tmp_path / "linked", "val")) == ["12/000007"]


def test_one_epoch_of_the_configuration(root, tmp_path):
    run_config("synlidar", root, tmp_path / "run", "--data.voxel_size=0.8")
    scores = json.loads((tmp_path / "run" / "val.json").read_text())
    assert 0 <= scores["miou"] <= 1
    assert list(scores["iou"]) == list(SynLiDAR.classes)
