"""SemanticPOSS: its ids and splits, broken downloads, and an epoch of its configuration."""

import json
import shutil

import numpy as np
import pytest

from geonorm.datasets import SemanticPOSS
from helpers.segmentation_runs import run_config
from helpers.sequence_trees import (
    train_ids_of,
    write_scan,
    write_semanticposs,
    write_synlidar,
)

RAW = [*range(23)]
# As its configuration numbers them; the others are no class.
PUBLISHED = {4: 0, 5: 0, 6: 1, 7: 2, 8: 3, 9: 4, 10: 5, 11: 5, 12: 5, 13: 6, 14: 7, 15: 8, 16: 9,
             17: 10, 21: 11, 22: 12}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    return write_semanticposs(tmp_path)


def names(dataset):
    return [dataset[i].name for i in range(len(dataset))]


def test_scans_and_labels(root):
    val = SemanticPOSS(root, "val")
    assert names(val) == ["03/000001", "03/000002"]
    assert {name[:2] for name in names(SemanticPOSS(root))} == {"00", "01", "02", "04", "05"}
    assert names(SemanticPOSS(root / "dataset", [5])) == ["05/000001", "05/000002"]
    points = write_scan(root / "dataset/sequences", "03", 1, RAW, [*range(65535 - 22, 65536)])
    np.testing.assert_array_equal(val[0].points, points[:, :3])
    np.testing.assert_array_equal(val[0].intensity, points[:, 3])
    assert train_ids_of(val, RAW) == {raw: PUBLISHED.get(raw, 255) for raw in RAW}
    assert [SemanticPOSS.classes[i] for i in (0, 4, 12)] == ["person", "plants", "ground"]
    assert val.submission is None


def test_intensities_of_a_byte(root):
    file = root / "dataset/sequences/03/velodyne/000001.bin"
    rows = np.fromfile(file, "<f4").reshape(-1, 4)
    rows[:, 3] = np.arange(len(RAW)) * 10
    rows.tofile(file)
    with pytest.raises(ValueError, match=r"03/000001: intensity must be .*220.*intensity_max=255"):
        SemanticPOSS(root, "val")[0]
    intensity = SemanticPOSS(root, "val", intensity_max=255)[0].intensity
    np.testing.assert_allclose(intensity, np.arange(len(RAW)) * 10 / 255, rtol=1e-6)
    with pytest.raises(ValueError, match=r"intensity_max must be a positive number; got 0"):
        SemanticPOSS(root, intensity_max=0)
    for number in (-255, float("nan")):
        with pytest.raises(ValueError, match="intensity_max must be a positive number"):
            SemanticPOSS(root, intensity_max=number)


def refused(root, match, split="val"):
    with pytest.raises(ValueError, match=match):
        SemanticPOSS(root, split)[0]


def test_broken_downloads(root, tmp_path):
    refused(tmp_path / "nothing", r"no SemanticPOSS under .*; tried .*nothing.sequences and .*data")
    refused(root, r"one of train, val or a list of seq.*got 'vall'. Did you mean 'val'", "vall")
    refused(root, r"got '03'. Did you mean \['03'\]", "03")
    refused(root, r"split must name at least one sequence; got \[\]", [])
    sequence = root / "dataset/sequences/03"
    scan, label = sequence / "velodyne/000001.bin", sequence / "labels/000001.label"
    whole = scan.read_bytes()
    scan.write_bytes(whole[:-4])
    refused(root, r"000001.bin is truncated: expected a multiple of 16 bytes")
    scan.write_bytes(whole[:-16])
    refused(root, r"000001.label must hold 22 labels of 4 bytes, .*= 23 labels")
    scan.write_bytes(whole)
    np.array([72] * 20 + [40, 40, 23], "<u4").tofile(label)  # 72 is SemanticKITTI's terrain
    refused(root, r"class id 23 \(1 points\), 40 \(2 points\), 72 \(20 points\), which Semant")
    label.unlink()
    refused(root, r"000001.bin has no labels; expected them in .*labels.000001.label$")
    shutil.rmtree(sequence / "labels")
    refused(root, r"000001.bin has no labels; .*; 2 of 2 scans there lack them")
    for number in (3, 4):
        (sequence / f"velodyne/00000{number}.bin").write_bytes(whole)
    (sequence / "labels").mkdir()
    for number in (7, 5, 8, 6):
        (sequence / f"labels/00000{number}.label").touch()
    refused(root, r"SemanticPOSS is incomplete: 4 of 4 files are missing: [^,]*velodyne/000005.bin,"
                  r" [^,]*6.bin, [^,]*7.bin, …\. Download")  # fmt: skip
    (sequence / "labels/000008.label").unlink()
    refused(root, r"3 of 3 files are missing: [^,]*5.bin, [^,]*6.bin, [^,]*7.bin\. Download")
    shutil.rmtree(sequence / "velodyne")
    refused(root, r"no scans in .*03.velodyne \(expected .*\); give the sequences you have")


def test_other_folders_are_named(root, tmp_path):
    refused(root / "dataset/sequences", r"no SemanticPOSS .*dataset looks like SemanticPOSS: give")
    write_synlidar(tmp_path / "syn")
    refused(tmp_path / "syn", r"no SemanticPOSS .*syn looks like SynLiDAR: --config synlidar")


def test_files_that_are_none_of_the_users_are_passed_over(root):
    sequence = root / "dataset/sequences/03"
    (sequence / "velodyne/._000001.bin").write_bytes(b"Mac OS X        ")
    (sequence / "labels/._000001.label").write_bytes(b"Mac")
    (sequence / "velodyne/.part.bin").touch()
    assert names(SemanticPOSS(root, "val")) == ["03/000001", "03/000002"]


def test_linked_folders_are_followed(root, tmp_path):
    (tmp_path / "linked/sequences").mkdir(parents=True)
    target = root / "dataset/sequences/03"
    (tmp_path / "linked/sequences/03").symlink_to(target, target_is_directory=True)
    assert names(SemanticPOSS(tmp_path / "linked", "val")) == ["03/000001", "03/000002"]


def test_one_epoch_of_the_configuration(root, tmp_path):
    run_config("semanticposs", root, tmp_path / "run", "--data.voxel_size=0.8")
    scores = json.loads((tmp_path / "run" / "val.json").read_text())
    assert 0 <= scores["miou"] <= 1
    assert list(scores["iou"]) == list(SemanticPOSS.classes)
