"""Folders of the user's own scans: every kind of file, labels, classes, splits, what is broken."""

import sys

import numpy as np
import pytest

from geonorm.datasets import ScanFolder, collate_scans
from geonorm.datasets.label_ids import distinct_color
from geonorm.datasets.scan_fields import SUFFIXES, read_fields
from geonorm.datasets.scan_folder import read_classes
from helpers.scan_folder_trees import COLUMNS, KINDS, TABLE, points, shares, write, write_splits
from helpers.segmentation_runs import run_config

TRAIN_IDS = {1: 255, 2: 0, 5: 1, 6: 1, 7: 2}
OPTIONS = {"columns": COLUMNS, "intensity_max": 1000, "color_max": None}
# Arrays do not say how many bits their colours have.
BY_KIND = {".npy": {"color_max": 255}, ".bin": {"color_max": 255}}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "classes.csv").write_text(TABLE)
    return tmp_path


def only(table, *names):
    """Return some of the fields of a table."""
    return np.array(table[list(names)].tolist(), [(name, table.dtype[name]) for name in names])


def read(root, split="train", **options):
    return ScanFolder(root, split, **{**OPTIONS, **options})


@pytest.mark.parametrize(
    ("kind", "text"), [(".ply", True), (".pcd", True), *((kind, False) for kind in KINDS)]
)
def test_every_kind_gives_the_same_scan(root, kind, text):
    table = points()
    path = write(root / "train" / f"a{kind.upper() if kind == '.las' else kind}", table, text)
    [scan] = read(root, **BY_KIND.get(kind, {}))
    assert scan.name == f"train/{path.name}"
    places = np.stack([table[axis] for axis in "xyz"], axis=1)
    np.testing.assert_array_equal(scan.points, places.astype("f4"))
    np.testing.assert_array_equal(scan.intensity, (table["intensity"] / 1000).astype("f4"))
    rgb = np.stack([table[name] for name in ("red", "green", "blue")], axis=1)
    np.testing.assert_array_equal(scan.feature("color"), (rgb / 255).astype("f4"))
    normals = np.stack([table[name] for name in ("nx", "ny", "nz")], axis=1)
    np.testing.assert_array_equal(scan.feature("normal"), normals)
    assert scan.feature("echo")[:, 0].tolist() == table["echo"].tolist()
    assert scan.labels.tolist() == [TRAIN_IDS[id_] for id_ in table["label"].tolist()]
    assert scan.offset == (0, 0, 0)
    assert set(KINDS) == set(SUFFIXES)


def test_a_number_that_its_type_does_not_hold(root):
    """As a program writes it that says `uchar` of every label."""
    head = "ply\nformat ascii 1.0\nelement vertex 2\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz") + "property uchar label\n"
    path = write(root / "train" / "a.ply", points(), True)
    path.write_text(f"{head}end_header\n1 2 3 2\n4 5 6 300\n")
    with pytest.raises(ValueError, match=r"a\.ply is damaged: label has the value 300, .* uint8,"):
        read(root)[0]


def test_the_limits_of_ids_and_colours(root):
    rows = " 65535 ,a,255,0,255\n-65535,b,0,0,0\n-1,a,7,7,7\n+65534,a,0,0,0\n"
    (root / "classes.csv").write_text(f"id,name,red,green,blue\n{rows}")
    ids = read_classes(root / "classes.csv")
    assert (ids.names, ids.raw_ids) == (("a", "b"), (65535, -65535))
    assert ids.colors.tolist() == [[255, 0, 255], [0, 0, 0]]
    assert ids.train_ids(np.array([-65535, -1, 65535, 65534]), "a").tolist() == [1, 0, 0, 0]


def test_a_table_with_blanks_after_its_commas(root):
    (root / "classes.csv").write_text('id, name\n2, ground\n5, "tree, tall"\n')
    ids = read_classes(root / "classes.csv")
    assert (ids.names, ids.raw_ids) == (("ground", "tree, tall"), (2, 5))


def test_the_first_colour_of_a_name_and_short_lines(root):
    (root / "classes.csv").write_text(
        "id,name,red,green,blue\n4\n3,a\n9,b,0,0,1\n5,a,7,8,9\n6,a,1,1,1\n7,c\n"
    )
    ids = read_classes(root / "classes.csv")
    assert ids.names == ("a", "b", "c")
    assert ids.colors.tolist() == [[7, 8, 9], [0, 0, 1], [*distinct_color(2)]]
    assert ids.train_ids(np.array([3, 4, 5, 6, 7, 9]), "a").tolist() == [0, 255, 0, 0, 2, 1]


def test_the_defaults_are_those_of_kitti(tmp_path):
    rows = np.array([[1, 2, 3, 0.25], [4, 5, 6, 1]], "<f4")
    (tmp_path / "train").mkdir()
    rows.tofile(tmp_path / "train" / "a.bin")
    np.array([40, 10], "<u4").tofile(tmp_path / "train" / "a.label")
    (tmp_path / "elsewhere.csv").write_bytes(b"\xef\xbb\xbfid,name\n10,car\n40,road\n")
    [scan] = ScanFolder(tmp_path, classes=tmp_path / "elsewhere.csv")
    assert scan.points.tolist() == rows[:, :3].tolist()
    assert scan.intensity.tolist() == [0.25, 1]
    assert scan.labels.tolist() == [1, 0]


def test_classes(root):
    ids = read_classes(root / "classes.csv")
    assert (ids.names, ids.raw_ids) == (("ground", "tree", "pole"), (2, 5, 7))
    assert ids.colors[:2].tolist() == [[1, 2, 3], [9, 9, 9]]
    assert len(np.unique(ids.colors, axis=0)) == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id;name\n1;road\n", r"classes.csv must begin with a line id,name; got \['id;name'\]"),
        ("", r"classes.csv must begin with a line id,name; got None"),
        ("id,name\n", "classes.csv names no class"),
        ("id,name\n0,\n", "classes.csv names no class"),
        ("id,name\n1,road\nx,car\n", "classes.csv, line 3: an id must be a whole number; got 'x'"),
        ("id,name\n1_0,road\n", "classes.csv, line 2: an id must be a whole number; got '1_0'"),
        ("id,name\n1.0,road\n", "classes.csv, line 2: an id must be a whole number; got '1.0'"),
        ("id,name\n٣,road\n", "classes.csv, line 2: an id must be a whole number; got '٣'"),
        ("id,name\n1,road\n1,car\n", "classes.csv, line 3: 1 is there twice"),
        ("id,name\n1,road\n0,\n0,car\n", "classes.csv, line 4: 0 is there twice"),
        ("id,name,red,green,blue\n1,a,1,2,²\n", "line 2: red, green and blue must be from 0 to"),
        ("id,name\n1,a\n-65536,b\n", r"line 3: an id must be from -65535 to 65535; got -65536"),
        ("id,name\n1,a\n65536,b\n", r"line 3: an id must be from -65535 to 65535; got 65536"),
        ("id,name\n1,road\n70000,car\n", r"line 3: an id must be from -65535 to 65535; got 70000"),
        ("id,name,red,green,blue\n1,a,1,2,256\n", "line 2: red, green and blue must be from 0 to"),
        ("id,name,red,green,blue\n1,a,1,,\n", "line 2: red, green and blue must be from 0 to 255"),
    ],
)
def test_wrong_tables(root, table, message):
    (root / "classes.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        read_classes(root / "classes.csv")


def test_labels_beside_a_scan(root):
    """They go before the field, since every LAS file has a classification, if one of zeros."""
    table = points()
    table["label"] = 0
    ids = points()["label"]
    expected = [TRAIN_IDS[id_] for id_ in ids.tolist()]
    scan = write(root / "train" / "velodyne" / "a.las", table)
    labels = root / "train" / "labels"
    labels.mkdir()
    with pytest.raises(ValueError, match=r"a.las holds class id 0 \(60 points\), which .*classes"):
        read(root)[0]
    for path in (scan.with_suffix(".label"), labels / "a.label"):
        (ids.astype("<u4") + (7 << 16)).tofile(path)
        assert read(root)[0].labels.tolist() == expected
        path.unlink()
    for path in (scan.with_suffix(".labels"), scan.with_suffix(".txt"), labels / "a.txt"):
        path.write_text("".join(f"{id_}\r\n" for id_ in ids))
        assert read(root)[0].labels.tolist() == expected
        path.unlink()
    np.save(labels / "a.npy", ids[:, None].astype("f4"))  # which is no scan
    assert len(read(root)) == 1
    assert read(root)[0].labels.tolist() == expected
    for count in (7, 61):
        np.save(labels / "a.npy", np.resize(ids, count))
        with pytest.raises(ValueError, match=rf"a.npy must hold 60 labels, .*; got .{count},"):
            read(root)[0]
    (labels / "a.label").write_bytes(bytes(4 * 59))
    with pytest.raises(ValueError, match=r"a.las has several files of labels, .*a.label, .*a.npy"):
        read(root)[0]
    (labels / "a.npy").unlink()
    with pytest.raises(ValueError, match=r"a.label must hold 60 labels of 4 bytes, .*= 59 labels"):
        read(root)[0]
    (labels / "a.label").rename(labels / "a.txt")
    with pytest.raises(ValueError, match=r"a.txt: expected one id in each line; got could not"):
        read(root)[0]
    (labels / "a.txt").write_text("1_0\n" * 60)
    with pytest.raises(ValueError, match=r"a.txt: expected one id in each line; got an underscore"):
        read(root)[0]


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_labels_of_a_scan_of_one_point(root, shape):
    table = points()[:1].copy()
    table["label"] = 0  # which has no class
    write(root / "train" / "velodyne" / "a.npy", table)
    labels = root / "train" / "labels"
    labels.mkdir()
    np.save(labels / "a.npy", points()["label"][:1].reshape(shape))
    label = TRAIN_IDS[int(points()["label"][0])]
    assert read(root, color_max=255)[0].labels.tolist() == [label]
    np.save(labels / "a.npy", np.ones((1, 1, 1)))
    with pytest.raises(ValueError, match=r"a.npy must hold 1 labels, .*; got \(1, 1, 1\)"):
        read(root, color_max=255)[0]


def test_the_field_of_the_labels(root):
    table = points()
    fields = {"x": table["x"], "y": table["y"], "z": table["z"], "Class": table["label"],
              "scalar_mine": table["label"].astype("f4")}  # fmt: skip
    (root / "train").mkdir()
    np.savez(root / "train" / "a.npz", **fields)
    expected = [TRAIN_IDS[id_] for id_ in table["label"].tolist()]
    assert read(root)[0].labels.tolist() == expected
    assert read(root, label="Mine")[0].labels.tolist() == expected
    fields["scalar_mine"][:4] = 2.5, np.nan, 1, np.inf
    np.savez(root / "train" / "a.npz", **fields)
    with pytest.raises(ValueError, match=r"a.npz: labels must be whole numbers; got 2.5 and 3"):
        read(root, label="mine")[0]
    with pytest.raises(ValueError, match=r"a.npz has no labels; expected a field other \(it has cl"
                       r"ass, mine, x, y, z\), or one of .*a.label, .*labels/a.npy"):  # fmt: skip
        read(root, label="other")[0]


def test_the_names_of_labels_and_which_goes_first(root):
    names = ("label", "labels", "class", "classification", "class_id", "segment", "semantic")
    table = points()[:2]
    places = {axis: table[axis] for axis in "xyz"}
    (root / "train").mkdir()
    for number, name in enumerate(names):
        later = dict.fromkeys(names[number + 1 :], np.array([1, 1]))
        np.savez(root / "train" / "a.npz", **later, **{name: np.array([7, 2])}, **places)
        assert read(root)[0].labels.tolist() == [2, 0], name


def test_colours_and_normals_of_two_of_three_fields_are_none(root):
    table = points()
    write(root / "train" / "a.ply", only(table, "x", "y", "z", "red", "blue", "nx", "nz", "label"))
    assert read(root)[0].features == ("position", "height")


def test_tables_within_an_archive(root):
    table = points()
    stacked = {name: np.stack([table[each] for each in names], axis=1) for name, names in
               (("coord", "xyz"), ("Colors", ("red", "green", "blue")))}  # fmt: skip
    (root / "train").mkdir()
    np.savez(root / "train" / "a.npz", labels=table["label"][:, None], **stacked)
    [scan] = read(root)
    np.testing.assert_array_equal(scan.points, stacked["coord"].astype("f4"))
    np.testing.assert_array_equal(scan.feature("color"), (stacked["Colors"] / 255).astype("f4"))
    assert scan.features == ("position", "height", "color")
    np.savez(root / "train" / "a.npz", coord=stacked["coord"], label=table["label"][:9])
    with pytest.raises(ValueError, match=r"a.npz: expected one value of each field .* 9 of label"):
        read(root)[0]
    np.savez(root / "train" / "a.npz", label=table["label"])
    with pytest.raises(ValueError, match=r"a.npz has no x, y, z; its points have label"):
        read(root)[0]


def test_tables_of_the_columns_and_of_normals_within_an_archive(root):
    table = points()
    (root / "train").mkdir()
    whole = np.column_stack([table[name].astype("f8") for name in COLUMNS])
    normals = whole[:, 7:10]
    np.savez(root / "train" / "a.npz", mine=whole, far=np.ones((60, 2)), words=np.array(["a", "b"]),
             Normals=-normals)  # fmt: skip
    [scan] = read(root, color_max=255)
    np.testing.assert_array_equal(scan.points, whole[:, :3].astype("f4"))
    np.testing.assert_array_equal(scan.feature("normal"), -normals.astype("f4"))
    assert scan.labels.tolist() == [TRAIN_IDS[id_] for id_ in table["label"].tolist()]
    assert scan.features == ("position", "height", "intensity", "color", "normal", "echo")


def test_packed_colours_do_not_replace_those_that_stand_alone(root):
    table = points()
    fields = {name: table[name] for name in ("x", "y", "z", "label")}
    packed = np.full(60, 10 << 16 | 20 << 8 | 30 | 99 << 24, np.uint32)
    (root / "train").mkdir()
    for dtype in ("u4", "f4", "u8"):
        values = packed.view("f4") if dtype == "f4" else packed.astype(dtype)
        np.savez(root / "train" / "a.npz", **fields, rgba=values)
        expected = np.float32([10, 20, 30]) / np.float32(255)
        np.testing.assert_allclose(read(root)[0].feature("color")[0], expected)
    for order in (("g", "rgb"), ("rgb", "g")):
        both = {"g": np.full(60, 7, "u1"), "rgb": packed}
        np.savez(root / "train" / "a.npz", **fields, **{name: both[name] for name in order})
        color = read(root)[0].feature("color")[0] * 255
        np.testing.assert_allclose(color, [10, 7 if order[0] == "g" else 20, 30], rtol=1e-5)


def test_an_array_with_names(root):
    (root / "train").mkdir()
    table = points()
    np.save(root / "train" / "a.npy", table)
    assert read(root)[0].labels.tolist() == [TRAIN_IDS[id_] for id_ in table["label"].tolist()]


def test_map_coordinates_keep_what_float32_would_round_away(root):
    table = points()
    table["x"] += 512_000
    table["y"] += 5_403_000
    write(root / "train" / "a.las", table)
    [scan] = read(root)
    middle = [np.median(table["x"]), np.median(table["y"])]
    assert np.abs(np.array(scan.offset[:2]) - middle).max() <= 0.5
    places = np.stack([table[axis] for axis in "xyz"], axis=1)
    np.testing.assert_allclose(scan.points + np.array(scan.offset), places, atol=2e-6)


def test_absent_features_name_the_scans(root):
    write(root / "train" / "a.ply", only(points(), "x", "y", "z", "label"))
    write(root / "train" / "b.ply", points())
    write(root / "train" / "c.ply", only(points(), "x", "y", "z", "nx", "ny", "nz", "label"))
    scans = [*read(root)]
    assert [len(scan.features) for scan in scans] == [2, 6, 3]
    for name, lacking in (("intensity", "train/a.ply, train/c.ply"), ("normal", "train/a.ply")):
        with pytest.raises(ValueError, match=rf"'{name}', which scan {lacking} lacks; choose"):
            collate_scans(scans, 0.1, features={"position": 1.0, name: 1.0})


def test_how_large_intensities_and_colours_are(root):
    table = points()
    table["intensity"][7] = 999
    table["intensity"][table["intensity"] > 999] = 5
    path = write(root / "train" / "a.ply", table)
    with pytest.raises(ValueError, match=r"a.ply: intensity is from .* to 999, not from 0 to 1; gi"
                       r"ve intensity_max=999, or the sensor's largest"):  # fmt: skip
        read(root, intensity_max=1)[0]
    with pytest.raises(ValueError, match=r"intensity_max must be a positive number; got 0"):
        read(root, intensity_max=0)[0]
    assert read(root, intensity_max=999)[0].intensity.max() == 1
    fields = {name: table[name] for name in ("x", "y", "z", "label")}
    np.savez(root / "below.npz", intensity=np.linspace(-0.5, 0.5, 60), **fields)
    (root / "below.txt").write_text("below.npz\n")
    with pytest.raises(ValueError, match=r"below.npz: intensity is from -0.5 to 0.5, not from 0 t"):
        read(root, "below", intensity_max=1)[0]
    for wrong in (-1, 0):
        with pytest.raises(ValueError, match=f"color_max must be a positive number; got {wrong}"):
            read(root, color_max=wrong)[0]
    path.unlink()
    write(path.with_suffix(".bin"), table)
    with pytest.raises(ValueError, match=r"a.bin: color is from .* not from 0 to 1; give color_"):
        read(root)[0]
    path.with_suffix(".bin").unlink()
    fields = {name: table[name].astype("u2") if name in ("red", "green", "blue") else table[name]
              for name in table.dtype.names}  # fmt: skip
    np.savez(path.with_suffix(".npz"), **fields)
    with pytest.raises(ValueError, match=r"colours up to \d+ in fields of 16 bits; .*_max=255"):
        read(root)[0]
    eight = read(root, color_max=255)[0].feature("color")
    np.testing.assert_allclose(eight[:, 0], table["red"] / 255, rtol=1e-6)
    for most, kind, share in ((0, "u2", 0), (256, "u2", 256 / 65535), (51, "i4", 0.2),
                              (0.25, "f8", 0.25), (0.25, "f4", 0.25), (51, "u1", 0.2),
                              (1, "u2", None), (255, "u2", None)):  # fmt: skip
        for name in ("red", "green", "blue"):
            fields[name] = np.zeros(60, kind)
        fields["green"][0] = most
        np.savez(path.with_suffix(".npz"), **fields)
        if share is None:
            with pytest.raises(ValueError, match=rf"colours up to {most} in fields of 16 bits; if"):
                read(root)[0]
        else:
            assert read(root)[0].feature("color").max() == pytest.approx(share)


def test_lists_and_folders(root, tmp_path):
    write_splits(root)
    assert [scan.name for scan in read(root, "val", intensity_max=1)] == [
        "val/b.npz", "val/deep/a.ply",
    ]  # fmt: skip
    (root / "val.txt").write_bytes(b"\xef\xbb\xbfval/deep/a.ply\r\n\r\ntrain/scan.las \r\n")
    assert [scan.name for scan in read(root, "val", intensity_max=1)] == [
        "val/deep/a.ply", "train/scan.las",
    ]  # fmt: skip
    outside = write(tmp_path / "elsewhere" / "my scan.PLY", points())
    (root / "other.txt").write_text(f"{outside}\n")
    assert read(root, "other")[0].labels[0] == TRAIN_IDS[points()["label"][0]]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "other.txt").write_text(f"{outside}\n")
    [scan] = read(tmp_path / "mine", "other", classes=root / "classes.csv")
    assert scan.name == str(outside)


def refused(root, match, split="train", **options):
    with pytest.raises(ValueError, match=match):
        read(root, split, **options)[0]


def test_missing_folders_and_half_a_download(root):
    refused(root, r"no split 'train'; tried .*train.txt and .*train$")
    (root / "train").mkdir()
    refused(root, r"no scans in .*train; expected files that end in .ply, .pcd, .npy")
    path = write(root / "train" / "a.ply", points())
    (root / "train" / "b.label").write_bytes(bytes(8))
    refused(root, r"train is incomplete: 1 files of labels have no scan, such as .*b.label")
    (root / "train" / "b.label").unlink()
    (root / "train" / "notes.txt").write_text("These are mine.")
    assert len(read(root)) == 1
    (root / "train" / "b").mkdir()
    (root / "train" / "b" / "a.labels").write_text("2\n")
    refused(root, r"train is incomplete: 1 files of labels have no scan, such as .*b/a.labels")
    (root / "train" / "b" / "a.labels").unlink()
    (root / "train.txt").write_text("train/a.ply\ntrain/b.ply\nc.las\n")
    refused(root, r"the list .*train.txt is incomplete: 2 of 3 files are missing: .*b.ply, .*c.las")
    (root / "train.txt").write_text("train/a.ply 3\n")
    refused(root, r"train.txt: .*a.ply 3: expected a file that ends in .ply, .pcd")
    (root / "train.txt").write_text("\n")
    refused(root, r"train.txt lists no scan; expected a path in each line")
    (root / "train.txt").unlink()
    path.write_bytes(b"")
    refused(root, r"a.ply is empty or no file; expected one scan")
    (root / "classes.csv").unlink()
    refused(root, r"no table of classes .*classes.csv; expected a line id,name and one such as 40")


def test_another_layout(root):
    (root / "sequences/00/velodyne").mkdir(parents=True)
    refused(root, r"no split 'train'; .* looks like SemanticKITTI: --config semantickitti")


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_cut_off(root, kind):
    path = write(root / "train" / f"a{kind}", points())
    data = path.read_bytes()
    for size in (len(data) - 30, len(data) // 2 + 1, 100, 1):
        path.write_bytes(data[:size])
        refused(root, rf"a{kind} (is trunc|cannot be read|is dam|has no)", **BY_KIND.get(kind, {}))


def test_arrays_of_other_columns(root):
    write(root / "train" / "a.npy", only(points(), "x", "y", "z"))
    refused(root, r"a.npy: expected numbers, \(N, 4\): x, y, z, intensity; got float64 \(60, 3\)",
            columns=("x", "y", "z", "intensity"))  # fmt: skip
    refused(root, r"a.npy has no z; its points have x, y, zeta", columns=("x", "y", "zeta"))


def test_values_that_are_not_finite_are_left_out(root):
    table = points()
    table["nx"][3], table["x"][9] = np.nan, np.inf
    write(root / "train" / "a.ply", table)
    [scan] = read(root)
    assert scan.dropped == 2
    assert np.flatnonzero(~scan.kept).tolist() == [3, 9]
    labels = np.delete(table["label"], [3, 9])
    assert scan.labels.tolist() == [TRAIN_IDS[id_] for id_ in labels.tolist()]
    table["x"] = np.nan
    write(root / "train" / "a.ply", table)
    refused(root, r"a.ply is empty: none of its 60 points is finite")


def test_linked_and_hidden_folders(root, tmp_path):
    write(root / "train" / "a.ply", points())
    (root / "train" / "._a.ply").write_bytes(b"Mac")
    write(root / "train" / "__MACOSX" / "b.ply", points())
    write(tmp_path / "elsewhere" / "c.ply", points())
    (root / "train" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "train" / "around").symlink_to(root / "train", target_is_directory=True)
    assert [scan.name for scan in read(root)] == ["train/a.ply", "train/linked/c.ply"]


@pytest.mark.parametrize(("module", "kind"), [("laspy", ".las"), ("lazrs", ".laz")])
def test_without_laspy(root, monkeypatch, module, kind):
    write(root / "train" / f"a{kind}", points())
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=module):
        read(root)[0]


def test_one_epoch_of_the_configuration(root, tmp_path):
    write_splits(root)
    run_config("scan_folder", root, tmp_path / "run", "--data.features={color: 1, height: 3}")
    scores = (tmp_path / "run" / "val.json").read_text()
    assert [name in scores for name in ("ground", "tree", "pole")] == [True] * 3
    assert shares(points())["intensity"].max() == 1


@pytest.mark.parametrize(("axes", "names"), [
    ("x y z", "xyz points point coord coords pos"),
    ("red green blue", "rgb color colors"),
    ("nx ny nz", "normal normals Normals"),
])  # fmt: skip
def test_tables_go_by_the_names_that_they_have_elsewhere(tmp_path, axes, names):
    path, table = tmp_path / "a.npz", np.arange(6.0).reshape(2, 3) + 5
    for name in names.split():
        first = {} if axes == "x y z" else {"xyz": np.zeros((2, 3))}
        np.savez(path, **first, **{name: table}, echo=np.array([[1], [2]]), text=np.array(["a"]))
        fields = read_fields(path, ["x", "y", "z", "intensity"])
        assert [fields[axis].tolist() for axis in axes.split()] == table.T.tolist()
        assert fields["echo"].tolist() == [1, 2]
        assert "text" not in fields


def test_fields_have_one_name_each(tmp_path):
    path = tmp_path / "a.npy"
    names = ["X", "Y", "Z", "scalar_Intensity", "r", "g", "b",
             "normal_x", "normal_y", "normal_z", "return_number"]  # fmt: skip
    known = ["x", "y", "z", "intensity", "red", "green", "blue", "nx", "ny", "nz", "echo"]
    rows = np.arange(22.0).reshape(2, 11)
    np.save(path, rows)
    fields = read_fields(path, names)
    assert {name: values.tolist() for name, values in fields.items()} == {
        name: column.tolist() for name, column in zip(known, rows.T, strict=True)
    }
    packed = np.array([0x7F102030, 0x00FF0180], "u4")
    for kind in ("u4", "f4"):
        for name in ("rgb", "RGBA"):
            cloud = np.zeros(2, [("x", "f4"), ("y", "f4"), ("z", "f4"), (name, kind)])
            cloud[name] = packed.view(kind)
            np.save(path, cloud)
            fields = read_fields(path, names)
            assert [fields[color].tolist() for color in ("red", "green", "blue")] == [
                [0x10, 0xFF], [0x20, 0x01], [0x30, 0x80],
            ]  # fmt: skip
