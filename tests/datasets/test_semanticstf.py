"""SemanticSTF: its own ids, five columns, the weather of each scan, and broken downloads."""

import json

import numpy as np
import pytest

from geonorm.datasets import SemanticKITTI, SemanticSTF
from geonorm.datasets.semanticstf import read_weathers
from helpers.scannet_trees import write_processed
from helpers.segmentation_runs import run_config
from helpers.semanticstf_trees import POINTS, rows, write_splits


@pytest.fixture
def root(tmp_path):
    return write_splits(tmp_path)


def test_a_scan_by_hand(root):
    dataset = SemanticSTF(root, "val")
    dataset.set_epoch(2)
    assert [dataset[i].name for i in range(len(dataset))] == [
        "val/fog_1", "val/snow_2", "val/snow_3",
    ]  # fmt: skip
    scan = dataset[1]
    np.testing.assert_array_equal(scan.points, rows(1)[:, :3])
    np.testing.assert_allclose(scan.intensity, np.arange(POINTS) / (POINTS - 1), atol=1e-6)
    # 1 is car and 19 traffic-sign; 0 and 20 are no class.
    once = [255, *range(19), 255]
    assert scan.labels.tolist() == once * 2
    assert SemanticSTF.classes == SemanticKITTI.classes
    np.testing.assert_array_equal(SemanticSTF.colors, SemanticKITTI.colors)
    assert dataset.submission is None


def test_weather(root):
    def names(weather):
        dataset = SemanticSTF(root, "val", weather)
        return [dataset[i].name for i in range(len(dataset))]

    assert names("snow") == ["val/snow_2", "val/snow_3"]
    assert names("dense_fog") == ["val/fog_1"]
    with pytest.raises(ValueError, match=r"val.txt tells of no scan in rain"):
        names("rain")
    with pytest.raises(ValueError, match=r"no weather 'fog'; choose from .*'dense_fog'"):
        names("fog")
    path = root / "val" / "val.txt"
    path.write_text("fog_1,dense_fog\nsnow_2,snow\n")
    with pytest.raises(ValueError, match=r"not tell the weather of 1 of 3 scans, such as snow_3"):
        names("snow")
    path.write_text("fog_1,dense_fog\n\nsnow_2 snow\n")
    with pytest.raises(ValueError, match=r"val.txt, line 3: expected name,weather.*'snow_2 snow'"):
        names("snow")
    path.unlink()
    with pytest.raises(ValueError, match=r"no list of the weather of each scan .*val.txt"):
        names("snow")
    assert len(SemanticSTF(root, "val")) == 3


def test_ids_of_semantickitti_are_refused(root):
    label = root / "val/labels/fog_1.label"
    np.array([40] * 30 + [10] * 11 + [252], "<u4").tofile(label)
    with pytest.raises(ValueError, match=r"holds class id 40 \(30 points\), 252 \(1 points\)"):
        SemanticSTF(root, "val")[0]


def test_broken_downloads(root, tmp_path):
    velodyne = root / "val/velodyne"
    with pytest.raises(ValueError, match=r"no SemanticSTF under .*nothing; tried .*nothing.train"):
        SemanticSTF(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"no split 'valid' of SemanticSTF.*Did you mean 'val'"):
        SemanticSTF(root, "valid")
    (velodyne / "._fog_1.bin").write_bytes(b"Mac")
    rows(0)[:, :4].tofile(velodyne / "fog_1.bin")  # four columns, as SemanticKITTI has
    with pytest.raises(ValueError, match=r"fog_1.bin is truncated: expected a multiple of 20 byte"):
        SemanticSTF(root, "val")[0]
    rows(0)[:40].tofile(velodyne / "fog_1.bin")
    with pytest.raises(ValueError, match=r"fog_1.label must hold 40 labels of 4 byt.*= 42 labels"):
        SemanticSTF(root, "val")[0]
    np.full((POINTS, 5), np.nan, "<f4").tofile(velodyne / "fog_1.bin")
    with pytest.raises(ValueError, match=r"fog_1.bin is empty: none of its 42 points is finite"):
        SemanticSTF(root, "val")[0]
    (root / "val/labels/snow_2.label").unlink()
    with pytest.raises(ValueError, match=r"incomplete: 1 of 3 files are missing: .*snow_2.label"):
        SemanticSTF(root, "val")
    for file in (root / "train/velodyne").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"no scans in .*train.velodyne \(expected .bin files\)"):
        SemanticSTF(root)


def test_labels_whose_scans_are_missing(root):
    (root / "val/velodyne/snow_2.bin").unlink()
    (root / "val/labels/._fog_1.label").write_bytes(b"Mac")
    with pytest.raises(ValueError, match=r"incomplete: 1 of 3 files are missing: .*snow_2.bin"):
        SemanticSTF(root, "val")


def test_another_layout(tmp_path):
    (tmp_path / "sequences/00/velodyne").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"looks like SemanticKITTI: --config semantickitti"):
        SemanticSTF(tmp_path)
    write_processed(tmp_path / "rooms", "train", "scene0000_00")
    with pytest.raises(ValueError, match=r"no scans in .*rooms looks like ScanNet: --config scann"):
        SemanticSTF(tmp_path / "rooms")


def test_linked_folders_are_followed(root, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "val").symlink_to(root / "val", target_is_directory=True)
    assert len(SemanticSTF(tmp_path / "linked", "val")) == 3


def test_one_epoch_of_the_configuration(root, tmp_path):
    run_config("semanticstf", root, tmp_path / "run", "--data.voxel_size=0.8",
               "--data.batch_size=1", "--data.val.init_args.weather=snow")  # fmt: skip
    scores = json.loads((tmp_path / "run" / "val.json").read_text())
    assert 0 <= scores["miou"] <= 1
    assert len(scores["iou"]) == 19


def test_a_list_of_weathers_may_name_either_file(tmp_path):
    path = tmp_path / "val.txt"
    path.write_text("a.bin,dense_fog\nb,1.label, light_fog\n c , rain \nd,snow\n")
    assert read_weathers(path) == {"a": "dense_fog", "b,1": "light_fog", "c": "rain", "d": "snow"}
    path.write_text("a,snow\n,snow\n")
    with pytest.raises(ValueError, match=r"line 2: expected name,weather .*; got ',snow'"):
        read_weathers(path)
