"""S3DIS: three layouts, the broken bytes of the release, what else is broken, and a run."""

import json

import numpy as np
import pytest

from geonorm.datasets import S3DIS
from geonorm.datasets.pointcept import read_points, read_rows
from geonorm.datasets.s3dis import read_text
from helpers.s3dis_trees import (
    OBJECTS,
    lines,
    rows,
    whole_room,
    write_array,
    write_processed,
    write_released,
)
from helpers.segmentation_runs import run_config

ROOMS = {1: ["office_2", "hallway_1"], 2: ["WC_1"], 3: ["lounge_1"], 4: ["storage_1"],
         5: ["pantry_1", "office_19"], 6: ["copyRoom_1"]}  # fmt: skip


@pytest.fixture
def released(tmp_path):
    root = tmp_path / "s3dis"
    for area, rooms in ROOMS.items():
        for room in rooms:
            write_released(root / "Stanford3dDataset_v1.2_Aligned_Version", area, room)
    return root


def areas(root):
    """Return the folder of the areas of the release."""
    return root / "Stanford3dDataset_v1.2_Aligned_Version"


def names(dataset):
    return [dataset[i].name for i in range(len(dataset))]


def test_the_release(released):
    scan = S3DIS(released, [1])[1]
    points, labels = whole_room(1, "office_2")
    assert scan.name == "Area_1/office_2"
    np.testing.assert_array_equal(scan.points, points[:, :3].astype("f4"))
    np.testing.assert_array_equal(scan.feature("color"), (points[:, 3:] / 255).astype("f4"))
    assert scan.labels.tolist() == labels.tolist() == np.repeat([3, 0, 12, 9, 12], 4).tolist()
    assert scan.features == ("position", "height", "color")
    assert S3DIS.classes[3] == "beam"
    assert S3DIS.classes[12] == "clutter"  # what stairs are, too
    assert S3DIS(areas(released), [1])[1].name == scan.name
    assert S3DIS(released, "val").submission is None
    write_array(released / "stanford_indoor3d", 1, "later_1")  # the release goes first
    assert S3DIS(released, [1])[1].name == scan.name


def test_area_5_and_the_six_folds(released):
    assert names(S3DIS(released)) == [
        "Area_1/hallway_1", "Area_1/office_2", "Area_2/WC_1", "Area_3/lounge_1",
        "Area_4/storage_1", "Area_6/copyRoom_1",
    ]  # fmt: skip
    held_out = ["Area_5/office_19", "Area_5/pantry_1"]
    assert names(S3DIS(released, "val")) == names(S3DIS(released, "test")) == held_out
    everything = {f"Area_{area}/{room}" for area, rooms in ROOMS.items() for room in rooms}
    tested = []
    for area in range(1, 7):
        train, test = (names(S3DIS(released, split, area)) for split in ("train", "test"))
        assert {*train} | {*test} == everything
        assert not {*train} & {*test}
        tested += test
    assert sorted(tested) == sorted(everything)
    assert names(S3DIS(released, [6, 2])) == ["Area_6/copyRoom_1", "Area_2/WC_1"]


@pytest.mark.parametrize(
    ("broken", "right"),
    [
        (b"-22.1 -9.1\x160 2.9 103 104 105", [-22.1, -9.160, 2.9, 103, 104, 105]),
        (b"1.0 2.0 3.0 103.0\x100000 104.000000 105", [1, 2, 3, 103, 104, 105]),
        (b"1.0 2.0 3.0 103 167.\x1000000 105", [1, 2, 3, 103, 167, 105]),
        (b"19.302 -9.1 1.785 185\x00187 106", [19.302, -9.1, 1.785, 185, 187, 106]),
        (b"\r1.0 2.0\t3.0  185 187 10\x13\r", [1, 2, 3, 185, 187, 103]),
        (b"1.0 2.0 3.0 \x0b103 104 105", [1, 2, 3, 103, 104, 105]),  # a +, and in Python a blank
    ],
)
def test_broken_bytes_get_their_lost_bit_back(tmp_path, broken, right):
    """The first four are in the release; without the digit, -9.160 would be 6 cm elsewhere."""
    file = tmp_path / "ceiling_1.txt"
    file.write_bytes(b"1 2 3 4 5 6\n" + broken + b"\n7 8 9 10 11 12\n")
    found, mended = read_text(file)
    assert mended == 1
    np.testing.assert_array_equal(found, [[1, 2, 3, 4, 5, 6], right, [7, 8, 9, 10, 11, 12]])


def test_mended_bytes_are_counted_by_file(released):
    for area, room, name, whole, broken in (
        (5, "office_19", "ceiling_1", b".", b"\x0e"), (5, "office_19", "sofa_1", b" ", b"\0"),
    ):  # fmt: skip
        file = areas(released) / f"Area_{area}" / room / "Annotations" / f"{name}.txt"
        file.write_bytes(file.read_bytes().replace(whole, broken, 2))
    with pytest.warns(UserWarning, match=r"office_19.Annotations: broken bytes were mended, "
                      r"2 in ceiling_1.txt, 2 in sofa_1.txt, as are known"):  # fmt: skip
        scan = S3DIS(released, "val")[0]
    points, labels = whole_room(5, "office_19")
    np.testing.assert_array_equal(scan.points, points[:, :3].astype("f4"))
    assert scan.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    "line",
    [b"1 2 3 4 5", b"1 2 3 4 5 6 7", b"1 2 3 4 5 6\x80", b"1 2 3 four 5 6", b"1 2 3 4 5 6\x01",
     b"1 2 3.4.5 4 5 6", b"1 2 3 4 5 1_0", b"1 2 3 4 5 6#", b"1 2 3 4 5 nano"],
)  # fmt: skip
def test_a_line_that_cannot_be_mended_is_named(tmp_path, line):
    file = tmp_path / "wall_1.txt"
    file.write_bytes(b"1 2 3 4 5 6\n\n-1 .2 +3. 4E-1 nan -INF\n" + line + b"\n1 2 3 4 5 6\n")
    shown = repr(line.decode("latin-1")).replace("\\", ".").replace("+", ".")
    with pytest.raises(ValueError, match=rf"wall_1.txt, line 4: expected six numbers.*{shown}"):
        read_text(file)
    file.write_bytes(b"1 2 3 4 5 6\n" + 90 * b"7" + b" 8\n")
    with pytest.raises(ValueError, match=r"wall_1.txt, line 2: .*; got '7{80}', which cannot"):
        read_text(file)
    file.write_bytes(b"1 2 3 4 5 6\n" + line[:1])  # as a copy that was broken off leaves it
    with pytest.raises(ValueError, match=r"wall_1.txt, line 2: expected six .* got '1', which"):
        read_text(file)
    file.write_bytes(b"\n")
    with pytest.raises(ValueError, match=r"wall_1.txt is empty; expected lines of x, y, z, red"):
        read_text(file)


def test_a_file_of_one_line(tmp_path):
    (tmp_path / "wall_1.txt").write_bytes(b"1 2 3 4 5 6")
    found, mended = read_text(tmp_path / "wall_1.txt")
    assert (found.tolist(), mended) == ([[1, 2, 3, 4, 5, 6]], 0)


@pytest.mark.parametrize("line", [b"1 2 3 4 5\n", b"1 2 3 4 5 6 7\n"])
def test_a_file_of_other_columns_throughout(tmp_path, line):
    (tmp_path / "wall_1.txt").write_bytes(line * 3)
    with pytest.raises(ValueError, match=r"wall_1.txt, line 1: expected six numbers"):
        read_text(tmp_path / "wall_1.txt")


def test_objects_have_as_many_labels_as_points(tmp_path):
    room = write_released(tmp_path, 5, "office_1", ["sofa_1", "beam_1"])
    with (room / "Annotations" / "beam_1.txt").open("ab") as file:
        file.write(lines(rows("more")[:3]))
    assert S3DIS(tmp_path, "val")[0].labels.tolist() == [3] * 7 + [9] * 4


@pytest.mark.parametrize("write", [write_processed, write_array])
def test_processed_rooms(tmp_path, write):
    root = tmp_path / "stanford_indoor3d" if write is write_array else tmp_path
    for area, rooms in ROOMS.items():
        for room in rooms:
            write(root, area, room)
    val = S3DIS(tmp_path, "val")
    assert names(val) == ["Area_5/office_19", "Area_5/pantry_1"]
    points, labels = whole_room(5, "pantry_1")
    np.testing.assert_array_equal(val[1].points, points[:, :3].astype("f4"))
    np.testing.assert_array_equal(val[1].feature("color"), (points[:, 3:] / 255).astype("f4"))
    assert val[1].labels.tolist() == labels.tolist()
    assert ("normal" in val[1].features) is (write is write_processed)
    assert len(S3DIS(tmp_path)) == 6


def test_one_epoch_of_the_configuration(released, tmp_path):
    run_config("s3dis", released, tmp_path / "run", "--data.train.init_args.test_area=6",
               "--data.val.init_args.test_area=6")  # fmt: skip
    scores = json.loads((tmp_path / "run" / "val.json").read_text())
    assert {*scores["iou"]} == {"ceiling", "beam", "sofa", "clutter"}  # those of copyRoom_1


def refused(root, match, *options):
    with pytest.raises(ValueError, match=match):
        S3DIS(root, *options)[0]


def test_other_folders_and_splits(released, tmp_path):
    refused(tmp_path / "nothing", r"no S3DIS under .*nothing; tried .*nothing and .*Aligned_V"
                                  r"ersion and .*nothing.stanford_indoor3d")  # fmt: skip
    refused(areas(released) / "Area_5", r"Area_5; tried .*. .*Aligned_Version looks like S3DIS: gi")
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "rooms").symlink_to(areas(released))
    refused(tmp_path / "around", r"no S3DIS .*\. .*around/rooms looks like S3DIS: give that folder")
    refused(released, r"one of train, val, test or a list of areas; got 'Area_5'", "Area_5")
    refused(released, r"has the areas 1 to 6; got \[7, 0\]", [7, 5, 0])
    refused(released, r"has the areas 1 to 6; got \[0\]", "train", 0)
    refused(released, r"has the areas 1 to 6; got no area", [])
    other = tmp_path / "other"
    (other / "sequences/00/velodyne").mkdir(parents=True)
    refused(other, r"no S3DIS under .*other looks like SemanticKITTI: --config semantickitti")
    (other / "ply_data_all_0.h5").touch()
    (other / "sequences/00/velodyne").rmdir()
    refused(other, r"looks like S3DIS in blocks of PointNet: take the release itself")


def test_half_a_download(released):
    office = areas(released) / "Area_5" / "office_19"
    for file in (office / "Annotations").iterdir():
        file.unlink()
    refused(released, r"incomplete: 1 of 6 files are missing: .*office_19.Annotations", "val")
    (office / "Annotations").rmdir()
    (office / "office_19.txt").unlink()
    office.rmdir()  # which the list of the angles names all the same
    refused(released, r"incomplete: 1 of 6 files are missing: .*office_19.Annotations", "val")
    (areas(released) / "Area_2").rename(areas(released) / "Area_9")
    refused(released, r"incomplete: .* has no room of area 2 of those asked for, 1, 2, 3, 4, 6")


def test_half_of_a_processed_room(tmp_path):
    folder = write_processed(tmp_path, 5, "office_1")
    np.save(folder / "segment.npy", np.zeros(19, "i2"))
    refused(tmp_path, r"segment.npy must be \(20,\), as its room's points; got \(19,\)", "val")
    np.save(folder / "segment.npy", np.array([13] * 9 + [-1] * 6 + [255] * 5, "i2"))
    refused(tmp_path, r"segment.npy holds class id 13 \(9 points\), 255 \(5 points\), w", "val")
    np.save(folder / "coord.npy", np.zeros((20, 2)))
    refused(tmp_path, r"coord.npy must be \(N, 3\); got \(20, 2\)", "val")
    (folder / "segment.npy").unlink()
    (folder / "color.npy").unlink()
    refused(tmp_path, r"incomplete: 2 of 3 files .*1/color.npy, .*office_1/segment.npy", "val")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    (tmp_path / "Area_5" / "office_1.pth").touch()
    refused(tmp_path, r"one .pth file for each room of S3DIS, such as office_1.pth", "val")


def test_arrays_of_another_form(tmp_path):
    file = write_array(tmp_path, 5, "office_1")
    whole = np.load(file)
    np.save(file, whole[:, :6])
    refused(tmp_path, r"office_1.npy must be \(N, 7\), .* got \(20, 6\): it has no labels", "val")
    for other in (np.column_stack([whole, whole[:, 0]]), whole[..., None]):
        np.save(file, other)
        refused(tmp_path, r"must be \(N, 7\), .*class; got \(20, (8|7, 1)\)$", "val")
    whole[:7, 6] = 40
    np.save(file, whole)
    refused(tmp_path, r"office_1.npy holds class id 40 \(7 points\), which S3DIS does not", "val")
    file.write_bytes(file.read_bytes()[:-9])
    refused(tmp_path, r"office_1.npy cannot be read as a .npy array; it is truncated", "val")


def test_classes_that_s3dis_does_not_have(released):
    folder = areas(released) / "Area_5" / "office_19" / "Annotations"
    for name in ("lamp_1", "lamp_2", "plant"):
        (folder / f"{name}.txt").write_bytes(lines(rows(name)))
    refused(released, r"Annotations holds lamp \(2 objects\), plant \(1 objects\), which", "val")


def test_linked_and_hidden_folders(released, tmp_path):
    """Macs' ._ files are in every tree here."""
    linked = tmp_path / "linked"
    (linked / "Area_5").mkdir(parents=True)
    room = areas(released) / "Area_5" / "office_19"
    (linked / "Area_5" / "office_7").symlink_to(room, target_is_directory=True)
    (linked / "Area_5" / "._office_7").mkdir()
    assert names(S3DIS(linked, "val")) == ["Area_5/office_7"]
    assert len(S3DIS(linked, "val")[0]) == 4 * len(OBJECTS)


def test_arrays_of_a_room_have_a_row_for_each_point(tmp_path):
    file = tmp_path / "a.npy"

    def read(array, *columns):
        np.save(file, array)
        return read_rows(file, 4, *columns)

    numbers = np.arange(12.0)
    assert read(numbers[:4, None]).tolist() == read(numbers[:4]).tolist() == [0, 1, 2, 3]
    assert read(numbers.reshape(4, 3), 3).tolist() == numbers.reshape(4, 3).tolist()
    for shape, columns in (((5,), ()), ((3,), ()), ((4, 2), ()), ((4, 1), (3,)), ((3, 4), (3,))):
        with pytest.raises(ValueError, match=r"must be \(4,.*\), as its room's points; got"):
            read(np.zeros(shape), *columns)
    np.save(tmp_path / "coord.npy", numbers.reshape(4, 3))
    np.save(tmp_path / "color.npy", numbers.reshape(4, 3) * 5)
    points, extra = read_points(tmp_path)
    assert points.tolist() == numbers.reshape(4, 3).tolist()
    assert [*extra] == ["color"]
    np.testing.assert_allclose(extra["color"], numbers.reshape(4, 3) / 51)
    np.save(tmp_path / "coord.npy", numbers.reshape(3, 4))
    with pytest.raises(ValueError, match=r"coord.npy must be \(N, 3\); got \(3, 4\)"):
        read_points(tmp_path)
