"""The SemanticKITTI loader: splits, labels, broken files, and one real scan where there is one."""

import zipfile

import numpy as np
import pytest

from geonorm.datasets.scan_io import read_bin
from geonorm.datasets.semantickitti import SPLITS, SemanticKITTI, read_labels
from geonorm.datasets.submission import Submission
from helpers.segmentation_runs import run_config
from helpers.semantickitti_trees import write_labelled, write_scan, write_tested


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(0, 1, (5, 4)).astype(np.float32)


RAW = np.array([10, 252, 0, 40, 81])


def test_a_scan_by_hand(tmp_path, points):
    instances = np.array([7, 65535, 1, 0, 3]) << 16
    write_scan(tmp_path, "00", 3, points, RAW + instances)
    write_scan(tmp_path, "00", 1, points[:2], RAW[:2])
    dataset = SemanticKITTI(tmp_path, split=["00"])
    assert len(dataset) == 2
    assert [dataset[i].name for i in range(2)] == ["00/000001", "00/000003"]
    scan = dataset[1]
    np.testing.assert_array_equal(scan.points, points[:, :3])
    np.testing.assert_array_equal(scan.intensity, points[:, 3])
    assert scan.labels.tolist() == [0, 0, 255, 8, 18]
    assert scan.dropped == 0


def test_every_published_id_has_its_class(tmp_path):
    published = {
        10: 0, 252: 0, 11: 1, 15: 2, 18: 3, 258: 3, 13: 4, 16: 4, 20: 4, 256: 4, 257: 4, 259: 4,
        30: 5, 254: 5, 31: 6, 253: 6, 32: 7, 255: 7, 40: 8, 60: 8, 44: 9, 48: 10, 49: 11, 50: 12,
        51: 13, 70: 14, 71: 15, 72: 16, 80: 17, 81: 18, 0: 255, 1: 255, 52: 255, 99: 255,
    }  # fmt: skip
    file = tmp_path / "all.label"
    np.array(list(published), dtype="<u4").tofile(file)
    assert read_labels(file, len(published)).tolist() == list(published.values())


def test_classes_colours_and_raw_ids_agree():
    assert len(SemanticKITTI.classes) == len(SemanticKITTI.raw_ids) == 19
    assert SemanticKITTI.colors.shape == (19, 3)
    assert SemanticKITTI.colors.dtype == np.uint8
    by_name = dict(zip(SemanticKITTI.classes, SemanticKITTI.colors.tolist(), strict=True))
    assert by_name["person"] == [255, 30, 30]  # red; the official BGR map says 30, 30, 255
    assert by_name["car"] == [100, 150, 245]
    published = {  # blue, green, red of every raw id, as semantic-kitti.yaml has them
        10: (245, 150, 100), 11: (245, 230, 100), 15: (150, 60, 30), 18: (180, 30, 80),
        20: (255, 0, 0), 30: (30, 30, 255), 31: (200, 40, 255), 32: (90, 30, 150),
        40: (255, 0, 255), 44: (255, 150, 255), 48: (75, 0, 75), 49: (75, 0, 175),
        50: (0, 200, 255), 51: (50, 120, 255), 70: (0, 175, 0), 71: (0, 60, 135),
        72: (80, 240, 150), 80: (150, 240, 255), 81: (0, 0, 255),
    }  # fmt: skip
    assert SemanticKITTI.raw_ids == tuple(published)
    assert SemanticKITTI.colors[:, ::-1].tolist() == [list(bgr) for bgr in published.values()]


def test_splits_are_the_official_ones(tmp_path, points):
    for sequence in range(22):
        raw = None if sequence > 10 else np.full(5, 40)
        write_scan(tmp_path / "dataset", f"{sequence:02d}", 0, points, raw)
    names = {}
    for split in SPLITS:
        dataset = SemanticKITTI(tmp_path, split)
        dataset.set_epoch(3)
        names[split] = [dataset[i].name[:2] for i in range(len(dataset))]
    assert names["train"] == ["00", "01", "02", "03", "04", "05", "06", "07", "09", "10"]
    assert names["val"] == ["08"]
    assert names["test"] == [str(i) for i in range(11, 22)]
    assert SemanticKITTI(tmp_path, "test")[0].labels is None


def test_sequences_by_number_in_the_order_asked_for(tmp_path, points):
    for sequence in ("08", "00", "15"):
        raw = None if sequence == "15" else RAW
        write_scan(tmp_path, sequence, 4, points, raw)
    dataset = SemanticKITTI(tmp_path, split=[8, "15", 0])
    assert [dataset[i].name for i in range(3)] == ["08/000004", "15/000004", "00/000004"]
    assert [dataset[i].labels is None for i in range(3)] == [False, True, False]


def test_points_that_are_not_finite_are_dropped_and_counted(tmp_path, points):
    points[1, 0], points[3, 2] = np.nan, np.inf
    write_scan(tmp_path, "00", 0, points, RAW)
    scan = SemanticKITTI(tmp_path, ["00"])[0]
    assert scan.dropped == 2
    assert scan.labels.tolist() == [0, 255, 18]
    np.testing.assert_array_equal(scan.points, points[[0, 2, 4], :3])


def test_files_that_are_none_of_the_users_are_passed_over(tmp_path, points):
    write_scan(tmp_path, "00", 0, points, RAW)
    folder = tmp_path / "sequences" / "00" / "velodyne"
    for name in ("._000000.bin", ".000001.bin", ".part.bin"):
        (folder / name).write_bytes(b"Mac OS X        ")
    for name in ("@eaDir", "lost+found", ".Trash-1000"):
        (folder / name).mkdir()
        (folder / name / "000002.bin").write_bytes(b"x")
    dataset = SemanticKITTI(tmp_path, split=["00"])
    assert [dataset[i].name for i in range(len(dataset))] == ["00/000000"]
    (folder / "000000.bin").unlink()
    with pytest.raises(ValueError, match=r"no scans in .*00.velodyne"):
        SemanticKITTI(tmp_path, split=["00"])


def test_missing_folder_says_what_was_tried(tmp_path):
    with pytest.raises(ValueError, match=r"tried .*sequences and .*dataset.sequences"):
        SemanticKITTI(tmp_path / "nothing")


def test_linked_folders_are_followed(tmp_path, points):
    write_scan(tmp_path / "elsewhere", "00", 2, points, RAW)
    (tmp_path / "mine" / "sequences").mkdir(parents=True)
    (tmp_path / "mine" / "sequences" / "07").symlink_to(tmp_path / "elsewhere/sequences/00")
    assert SemanticKITTI(tmp_path / "mine", ["07"])[0].name == "07/000002"


def test_labels_whose_scans_are_missing(tmp_path, points):
    """As half of a download leaves them; the others would be trained on without a word."""
    for frame in range(3):
        write_scan(tmp_path, "00", frame, points, RAW)
    (tmp_path / "sequences/00/velodyne/000001.bin").unlink()
    (tmp_path / "sequences/00/labels/._000007.label").write_bytes(b"Mac")
    with pytest.raises(ValueError, match=r"incomplete: 1 of 3 files are missing: .*000001.bin"):
        SemanticKITTI(tmp_path, ["00"])


def test_another_layout(tmp_path):
    (tmp_path / "train/velodyne").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"tried .*looks like SemanticSTF: --config semanticstf"):
        SemanticKITTI(tmp_path)


def test_missing_sequence_names_its_folder(tmp_path, points):
    write_scan(tmp_path, "00", 0, points, RAW)
    with pytest.raises(ValueError, match=r"no scans in .*01.velodyne"):
        SemanticKITTI(tmp_path, "train")


@pytest.mark.parametrize(
    ("split", "message"),
    [("valid", "one of train, val, test"), ("08", r"Did you mean \['08'\]"), ([], "at least one")],
)
def test_unknown_split(tmp_path, points, split, message):
    write_scan(tmp_path, "08", 0, points, RAW)
    with pytest.raises(ValueError, match=message):
        SemanticKITTI(tmp_path, split)


def test_missing_label_file(tmp_path, points):
    write_scan(tmp_path, "00", 0, points, None)
    with pytest.raises(ValueError, match=r"has no labels; expected them in .*000000.label"):
        SemanticKITTI(tmp_path, ["00"])[0]


def test_truncated_scan(tmp_path):
    file = tmp_path / "cut.bin"
    file.write_bytes(b"\0" * 30)
    with pytest.raises(ValueError, match=r"cut.bin is truncated.*got 30"):
        read_bin(file)


def test_empty_scan(tmp_path):
    file = tmp_path / "empty.bin"
    file.touch()
    with pytest.raises(ValueError, match=r"empty.bin is empty"):
        read_bin(file)


def test_scan_without_a_finite_point(tmp_path, points):
    write_scan(tmp_path, "00", 0, np.full_like(points, np.nan), RAW)
    with pytest.raises(ValueError, match=r"000000.bin is empty: none of its 5 points"):
        SemanticKITTI(tmp_path, ["00"])[0]


def test_labels_of_another_length(tmp_path, points):
    write_scan(tmp_path, "00", 0, points, RAW[:4])
    with pytest.raises(ValueError, match=r"000000.label must hold 5 labels.*= 4 labels"):
        SemanticKITTI(tmp_path, ["00"])[0]


def test_unknown_label_id(tmp_path, points):
    write_scan(tmp_path, "00", 0, points, np.array([77, 77, 0, 23, 81]))
    with pytest.raises(ValueError, match=r"00.label holds class id 23 \(1 points\), 77 \(2 points"):
        SemanticKITTI(tmp_path, ["00"])[0]


def test_the_real_scan(data_root):
    scan = SemanticKITTI(data_root / "semantickitti", ["00"])[0]
    assert len(scan) == 123_389
    assert scan.dropped == 0
    present = set(np.unique(scan.labels).tolist()) - {255}
    assert present <= set(range(19))
    assert len(present) >= 8
    assert 0 <= scan.intensity.min() <= scan.intensity.max() <= 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a folder with every scan that the server judges, and one of each other sequence."""
    root = tmp_path_factory.mktemp("semantickitti")
    write_labelled(root)
    write_tested(root)
    return root


@pytest.mark.slow  # 10 s, of 20,351 files
def test_a_run_and_a_submission(whole, tmp_path):
    """One epoch with the configuration alone, and what SemanticKITTI's server takes."""
    run_config("semantickitti", whole, tmp_path)
    run_config("semantickitti", whole, tmp_path, f"--ckpt_path={tmp_path}/checkpoints/last.ckpt",
               "--data.batch_size=1024", subcommand="test")  # fmt: skip
    with zipfile.ZipFile(tmp_path / "submission.zip") as packed:
        names = packed.namelist()
        assert len(names) == len(set(names)) == 20_351
        found = {}
        for path in names:
            sequences, sequence, predictions, name = path.split("/")
            assert (sequences, predictions, name[6:]) == ("sequences", "predictions", ".label")
            ids = np.frombuffer(packed.read(path), "<u4")
            assert len(ids) == 1 + int(name[:6]) % 3
            assert {*ids.tolist()} <= {*SemanticKITTI.raw_ids}
            found[sequence] = found.get(sequence, 0) + 1
    assert (found["11"], found["19"], found["21"], len(found)) == (921, 4981, 2721, 11)


def test_a_part_of_the_tested_scans_is_refused(whole, tmp_path):
    """The server judges every scan; a zip of fewer would pass a check against the files alone."""
    message = r"SemanticKITTI takes all 20,351 scans of its test split; 19,430 of them .*12/000000,"
    with pytest.raises(ValueError, match=message):
        run_config("semantickitti", whole, tmp_path, '--data.test.init_args.split=["11"]',
                   subcommand="test")  # fmt: skip
    assert not (tmp_path / "submission").exists()
    last = whole / "sequences/21/velodyne/002720.bin"
    last.unlink()
    with pytest.raises(ValueError, match=r"20,351 scans .*; 1 of them .*, such as 21/002720: test"):
        _ = SemanticKITTI(whole, "test").submission
    last.write_bytes(bytes(16))
    assert len(SemanticKITTI(whole, "test").submission.files) == 20_351
    last.with_stem("002721").write_bytes(bytes(16))
    with pytest.raises(ValueError, match=r"SemanticKITTI does not know the scans 21/002721"):
        _ = SemanticKITTI(whole, "test").submission
    last.with_stem("002721").unlink()
    assert SemanticKITTI(whole, ["08", "11"]).submission is None


def test_what_the_server_would_refuse(tmp_path):
    """Train ids in place of raw ones, and the folder of the labels in place of predictions."""
    scans = Submission("SemanticKITTI", {"11/000000": "sequences/11/predictions/000000.label"},
                       {"11/000000": 2}.get, np.array(SemanticKITTI.raw_ids))  # fmt: skip
    raw, train = (np.array(ids, "<u4").tobytes() for ids in ([10, 81], [0, 18]))
    packed = tmp_path / "a.zip"
    for path, data, message in (
        ("sequences/11/predictions/000000.label", train, r"holds the id 0; SemanticKITTI takes 10"),
        ("sequences/11/labels/000000.label", raw, r"lacks 1 of 1 .*sequences/11/predictions/"),
        ("sequences/11/predictions/000000.label", raw[:4], r"must hold 2 ids, .*; got 1"),
        ("sequences/11/predictions/000000.label", raw[:7], r"SemanticKITTI takes ids of <u4; got"),
        ("sequences/11/predictions/000000.label", raw, None),
    ):
        with zipfile.ZipFile(packed, "w") as file:
            file.writestr(path, data)
        if message is None:
            scans.check(packed)
            continue
        with pytest.raises(ValueError, match=message):
            scans.check(packed)
    with zipfile.ZipFile(packed, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr(path, raw)
    with pytest.raises(ValueError, match=r"each of the files once; .*/000000.label stands in it"):
        scans.check(packed)
