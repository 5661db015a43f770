"""nuScenes-lidarseg: its tables, its numbers, what is broken, a run and a submission."""

import json
import zipfile

import numpy as np
import pytest

from geonorm.datasets import NuScenes
from geonorm.datasets.label_map import label_maps
from geonorm.datasets.nuscenes import MINI_VAL_SCENES, VAL_SCENES, _numbers
from geonorm.datasets.submission import Submission
from helpers.nuscenes_trees import CATEGORIES, rows, write
from helpers.segmentation_runs import run_config

# The published table from these numbers to 1 … 16.
PUBLISHED = {9: 1, 14: 2, 15: 3, 16: 3, 17: 4, 18: 5, 21: 6, 2: 7, 3: 7, 4: 7, 6: 7, 12: 8, 22: 9,
             23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 30: 16}  # fmt: skip


@pytest.fixture
def trainval(tmp_path):
    return write(tmp_path, "v1.0-trainval", ["0003", "0002", "0001", "0012"])


def test_scans_and_labels(trainval):
    train, val = NuScenes(trainval, "train"), NuScenes(trainval, "val")
    assert [train[i].name for i in range(len(train))] == ["0001d0", "0001d1", "0002d0", "0002d1"]
    assert [val[i].name for i in range(len(val))] == ["0003d0", "0003d1", "0012d0", "0012d1"]
    scan = train[1]
    np.testing.assert_array_equal(scan.points, rows("0001d1")[:, :3])
    np.testing.assert_array_equal(scan.intensity, (np.arange(32) * 8 / 255).astype("f4"))
    assert scan.labels.tolist() == [PUBLISHED.get(raw, 256) - 1 for raw in range(32)]
    table = trainval / "v1.0-trainval/sample_data.json"
    table.write_text(table.read_text().replace('"timestamp": 0', '"timestamp": 9'))
    assert NuScenes(trainval).tokens == ["0001d1", "0001d0", "0002d1", "0002d0"]


def test_classes_are_found_by_name(tmp_path):
    """The release's instructions number flat.other after terrain, its table before sidewalk."""
    names = CATEGORIES.copy()
    names[25:28] = ["flat.sidewalk", "flat.terrain", "flat.other"]
    root = write(tmp_path, "v1.0-mini", ["0061"], names)
    table = root / "v1.0-mini" / "category.json"
    table.write_text(json.dumps(json.loads(table.read_text())[::-1]))  # in no order of index
    scan = NuScenes(root, "mini_train")[0]
    assert [NuScenes.classes[label] for label in scan.labels[25:28]] == [
        "sidewalk", "terrain", "other_flat"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("label_map", "published"),
    [
        ("dglss", {17: 1, 14: 2, 21: 3, 23: 4, 15: 5, 16: 5, 18: 5, 22: 5, 2: 6, 3: 6, 4: 6, 6: 6,
                   24: 7, 26: 8, 27: 9, 30: 10}),
        ("lidog", {17: 1, 20: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2, 24: 3, 26: 4, 27: 5,
                   28: 6, 30: 7}),
    ],
)  # fmt: skip
def test_shared_classes(trainval, tmp_path, label_map, published):
    """By the numbers of the release's table; police cars (20) and strollers (7) differ."""
    shared = NuScenes(trainval, "val", label_map=label_map)
    assert dict(zip(shared.classes, shared.colors.tolist(), strict=True)) == {
        name: [*rgb] for name, rgb in label_maps()[label_map].classes.items()
    }
    assert shared.colors.dtype == np.uint8
    scan = shared[0]
    assert scan.labels.tolist() == [published.get(raw, 256) - 1 for raw in range(32)]
    write(tmp_path, "v1.0-test", ["0077"], labelled=False)
    rows("0077d1")[:9].tofile(tmp_path / "samples/LIDAR_TOP/0077d1.pcd.bin")
    submission = NuScenes(tmp_path, "test").submission
    assert [submission.num_points(token) for token in ("0077d0", "0077d1")] == [32, 9]
    assert submission.files["0077d1"] == "lidarseg/test/0077d1_lidarseg.bin"
    assert NuScenes(tmp_path, "test")[1].labels is None
    assert NuScenes(tmp_path, "test", label_map=label_map).submission is None


def test_splits():
    assert len(_numbers(VAL_SCENES)) == 150
    assert sum(map(int, _numbers(VAL_SCENES))) == 88_948  # of those that nuscenes-devkit lists
    assert {"0003", "0012", "0018", "0110", "0929", "1073"} <= _numbers(VAL_SCENES)
    assert not {"0001", "0011", "0019", "0037", "0628", "0918"} & _numbers(VAL_SCENES)
    assert _numbers(MINI_VAL_SCENES) == {"0103", "0916"}


def test_the_small_download(tmp_path):
    write(tmp_path, "v1.0-mini", ["0061", "0103", "0553", "0916"])
    names = [{token[:4] for token in NuScenes(tmp_path, split).tokens}
             for split in ("mini_train", "mini_val")]  # fmt: skip
    assert names == [{"0061", "0553"}, {"0103", "0916"}]  # 0553 is one of the 150
    write(tmp_path / "part", "v1.0-mini", ["0061"])
    refused(tmp_path / "part", r"v1.0-mini has no scene of the split 'mini_val'", "mini_val")
    (tmp_path / "part/v1.0-mini/sample_data.json").write_bytes(b"")
    refused(tmp_path / "part", r"no table .*sample_data.json, or an empty one; ", "mini_train")
    (tmp_path / "part/v1.0-mini/sample_data.json").unlink()
    refused(tmp_path / "part", r"no table .*sample_data.json, or an empty one; ", "mini_train")


def test_a_run_and_a_submission(trainval, tmp_path):
    write(tmp_path, "v1.0-test", ["0077"], labelled=False)
    broken = rows("0077d0")
    broken[5, 0] = np.nan  # which the server wants a class of all the same
    broken.tofile(tmp_path / "samples/LIDAR_TOP/0077d0.pcd.bin")
    run = tmp_path / "run"
    run_config("nuscenes", trainval, run)
    assert 0 <= json.loads((run / "val.json").read_text())["miou"] <= 1
    run_config("nuscenes", trainval, run, f"--ckpt_path={run}/checkpoints/last.ckpt",
               subcommand="test")  # fmt: skip
    with zipfile.ZipFile(run / "submission.zip") as packed:
        assert sorted(packed.namelist()) == [
            "lidarseg/test/0077d0_lidarseg.bin", "lidarseg/test/0077d1_lidarseg.bin",
            "test/submission.json",
        ]  # fmt: skip
        ids = np.frombuffer(packed.read("lidarseg/test/0077d0_lidarseg.bin"), "u1")
        meta = json.loads(packed.read("test/submission.json"))["meta"]
    assert (len(ids), ids.min() >= 1, ids.max() <= 16) == (32, True, True)
    assert {name for name, used in meta.items() if used} == {"use_lidar"}
    assert len(meta) == 5
    assert NuScenes(trainval, "val").submission is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lidarseg/test/a_lidarseg.bin": b"\0\1"}, r"holds the id 0; nuScenes takes 1, 2, 3"),
        ({"lidarseg/test/a_lidarseg.bin": b"\1\x11"}, r"holds the id 17; nuScenes takes 1, 2, 3"),
        ({"lidarseg/test/a_lidarseg.bin": b"\1"}, r"a_lidarseg.bin in .* must hold 2 ids"),
        ({"lidarseg/test/a_lidarseg.bin": None}, r"lacks 1 of 2 files that nuScenes takes"),
        ({"test/submission.json": b"{}"}, r"test/submission.json in .* must be b'.*use_lidar"),
        ({"test/submission.json": None}, r"lacks 1 of 2 .* such as test/submission.json"),
    ],
)
def test_what_the_server_would_refuse(tmp_path, change, message):
    others = {"test/submission.json": b'{"meta": {"use_lidar": true}}'}
    scans = Submission("nuScenes", {"a": "lidarseg/test/a_lidarseg.bin"}, {"a": 2}.get,
                       np.array(NuScenes.raw_ids), "u1", others)  # fmt: skip
    right = {"lidarseg/test/a_lidarseg.bin": b"\1\x10", **others}
    for files in (right, right | change):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            for name, data in files.items():
                if data is not None:
                    packed.writestr(name, data)
        if files is right:
            scans.check(tmp_path / "a.zip")
    with pytest.raises(ValueError, match=message):
        scans.check(tmp_path / "a.zip")


def test_files_are_packed_together_or_not_at_all(tmp_path):
    others = {"about/us.json": b"{}"}
    scans = Submission("streets", {"a": "of/all/a.bin", "b": "of/all/b.bin"}, {"a": 3, "b": 1}.get,
                       np.array([10, 20]), "u1", others)  # fmt: skip
    parts, path = tmp_path / "parts", tmp_path / "submission.zip"
    scans.write(parts, "a", np.array([0, 0, 1]), None)
    with pytest.raises(ValueError, match=r"lacks 1 of 3 files that streets .* of/all/b.bin; pred"):
        scans.pack(parts, path)
    assert not path.exists()
    scans.write(parts, "b", np.array([0]), None)
    scans.write(parts, "b", np.array([1]), None)
    (parts / "of/another.bin").touch()
    scans.pack(parts, path)
    with zipfile.ZipFile(path) as packed:
        found = {name: packed.read(name) for name in packed.namelist()}
        kinds = {entry.compress_type for entry in packed.infolist()[:2]}
    assert found == {"of/all/a.bin": b"\n\n\x14", "of/all/b.bin": b"\x14", **others}
    assert kinds == {zipfile.ZIP_DEFLATED}


def refused(root, match, split="train"):
    with pytest.raises(ValueError, match=match):
        NuScenes(root, split)[0]


def test_broken_downloads(trainval):
    refused(trainval / "nothing", r"no nuScenes under .*; tried .*/nothing/v1.0-trainval")
    refused(trainval, r"no nuScenes under .*; tried .*/v1.0-test", "test")
    refused(trainval, r"one of train, val, .*; got 'validate'", "validate")
    tables = trainval / "v1.0-trainval"
    label = trainval / "lidarseg/v1.0-trainval/0001d0_lidarseg.bin"
    label.write_bytes(bytes(31))
    refused(trainval, r"0001d0_lidarseg.bin must hold 32 labels of 1 bytes, .* = 31 labels")
    label.write_bytes(bytes([77] * 32))
    refused(trainval, r"0001d0_lidarseg.bin holds class id 77 \(32 points\), which nuScenes does")
    scan = trainval / "samples/LIDAR_TOP/0001d0.pcd.bin"
    scan.write_bytes(bytes(33))
    refused(trainval, r"0001d0.pcd.bin is truncated: expected a multiple of 20 bytes")
    scan.unlink()
    label.unlink()
    refused(trainval, r"incomplete: 2 of 8 files are missing: .*0001d0.pcd.bin, .*0001d0_lidarseg")
    table = tables / "lidarseg.json"
    table.write_text(json.dumps(json.loads(table.read_text())[:-2]))
    refused(trainval, r"2 of 4 scans have no labels, such as 0012d0; expected .*: unpack", "val")
    table.unlink()
    refused(trainval, r"no table .*lidarseg.json; unpack nuScenes-lidarseg, a download of its own")
    table = tables / "sample_data.json"
    whole = table.read_bytes()
    for left in (whole[:-9], whole[: whole.rindex(b",") + 1]):
        table.write_bytes(left)
        refused(trainval, r"sample_data.json is cut off or damaged: it has no end; unpack")
    table = tables / "scene.json"
    table.write_bytes(table.read_bytes()[:-9])
    refused(trainval, r"scene.json is cut off or damaged \(.*\); unpack nuScenes' metadata")
    table.unlink()
    refused(trainval, r"no table .*scene.json; unpack nuScenes' metadata again")


def test_tables_of_nuscenes_without_labels_of_points(trainval):
    file = trainval / "v1.0-trainval/category.json"
    file.write_text(json.dumps([{"name": name} for name in CATEGORIES]))
    refused(trainval, r"category.json gives no index of flat.driveable_surface, .*: unpack")


def test_linked_and_hidden_files(trainval, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("v1.0-trainval", "samples", "lidarseg"):
        (mine / name).symlink_to(trainval / name, target_is_directory=True)
    (trainval / "samples/LIDAR_TOP/._0001d0.pcd.bin").write_bytes(b"Mac")
    (trainval / "v1.0-trainval/._scene.json").write_bytes(b"Mac")
    table = trainval / "v1.0-trainval/sample_data.json"
    table.write_bytes(table.read_bytes() + b"\r\n" * 20)
    assert NuScenes(mine, "train").tokens == ["0001d0", "0001d1", "0002d0", "0002d1"]
    np.testing.assert_array_equal(NuScenes(mine, "train")[0].points, rows("0001d0")[:, :3])


def test_another_layout(trainval, tmp_path):
    refused(trainval / "samples", r"no nuScenes under .*samples; .* looks like nuScenes: give that")
    (tmp_path / "other/sequences/00/velodyne").mkdir(parents=True)
    refused(tmp_path / "other", r"other looks like SemanticKITTI: --config semantickitti")
