"""Single scans from .bin, .npy, .ply and .pcd files."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from geonorm.datasets import read_scan
from geonorm.datasets.ply import read_ply, read_ply_fields, write_ply
from geonorm.datasets.scan_io import _more_columns, read_bin
from helpers.scan_writers import ply, rows, write

KINDS = {
    "a.bin": {}, "a.npy": {}, "a.ply": {}, "text.ply": {"text": True},
    "a.pcd": {}, "text.pcd": {"text": True}, "A.PLY": {},
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_same_scan_and_tells_which_points_are_left_out(tmp_path, name):
    points = rows()
    points[17, 1], points[30, 3], points[299, 0] = np.nan, np.inf, -np.inf
    path = write(tmp_path / name.lower(), points, **KINDS[name])
    path = path.rename(tmp_path / name)
    scan = read_scan(path)
    kept = np.ones(300, dtype=bool)
    kept[[17, 30, 299]] = False
    np.testing.assert_array_equal(scan.kept, kept)
    assert scan.dropped == 3
    np.testing.assert_array_equal(scan.points, points[kept, :3])
    np.testing.assert_array_equal(scan.intensity, points[kept, 3])
    assert scan.labels is None
    assert scan.name == str(path)


def test_the_fifth_column_of_nuscenes_is_left_out(tmp_path):
    points = np.concatenate([rows(), np.full((300, 1), 31, "<f4")], axis=1)
    points[:, 3] *= 255
    (tmp_path / "A.PCD.BIN").write_bytes(points.tobytes())
    assert len(read_scan(tmp_path / "A.PCD.BIN", intensity_max=255)) == 300
    (tmp_path / "a.pcd.bin").write_bytes(points.tobytes())
    scan = read_scan(tmp_path / "a.pcd.bin", intensity_max=255)
    np.testing.assert_array_equal(scan.points, points[:, :3])
    np.testing.assert_allclose(scan.intensity, rows()[:, 3], rtol=1e-6)
    assert scan.kept is None


def test_cloudcompares_name_of_the_intensity(tmp_path):
    names = ("x", "y", "z", "scalar_Intensity")
    scan = read_scan(write(tmp_path / "a.ply", rows(), names=names))
    np.testing.assert_array_equal(scan.intensity, rows()[:, 3])


@pytest.mark.parametrize("name", ["a.npy", "a.ply", "a.pcd"])
def test_without_intensity_it_is_zero_and_said(tmp_path, name):
    options = {} if name == "a.npy" else {"names": ("x", "y", "z")}
    path = write(tmp_path / name, rows()[:, :3], **options)
    with pytest.warns(UserWarning, match=rf"{name} has no intensity; 0 is taken for every point"):
        scan = read_scan(path)
    np.testing.assert_array_equal(scan.points, rows()[:, :3])
    assert not scan.intensity.any()


def test_numbers_of_other_dtypes(tmp_path):
    whole = (rows() * [1, 1, 1, 200]).astype(np.int16)
    np.save(tmp_path / "a.npy", whole)
    scan = read_scan(tmp_path / "a.npy", intensity_max=200)
    np.testing.assert_array_equal(scan.points, whole[:, :3])
    np.save(tmp_path / "b.npy", np.asfortranarray(rows().astype(np.float64)))
    np.testing.assert_array_equal(read_scan(tmp_path / "b.npy").points, rows()[:, :3])


def refused(tmp_path, name, data, message, **options):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_scan(tmp_path / name, **options)


def test_what_name_and_size_tell(tmp_path):
    refused(tmp_path, "a.las", b"LASF", r"a\.las: expected a file that ends in \.bin, \.npy, \.ply")
    refused(tmp_path, "a.bin", b"", r"a\.bin is empty; expected one scan")
    refused(
        tmp_path, "a.bin", rows().tobytes()[:-5],
        r"a\.bin is truncated: expected a multiple of 16 bytes, 4 float32 .* got 4795",
    )  # fmt: skip
    refused(tmp_path, "A.BIN", rows(3).tobytes()[:-1], r"A\.BIN is truncated: .* got 47\. Copy the "
                                                        r"file again$")  # fmt: skip
    refused(tmp_path, "a.pcd.bin", rows(3).tobytes(), r"expected a multiple of 20 bytes, 5 float32")
    with pytest.raises(ValueError, match=r"nothing\.ply is not a file; expected a scan"):
        read_scan(tmp_path / "nothing.ply")


def test_rows_of_a_file_are_the_callers_own(tmp_path):
    rows().tofile(tmp_path / "a.bin")
    found = read_bin(tmp_path / "a.bin")
    found[0] = 7
    assert read_bin(tmp_path / "a.bin", columns=2).shape == (600, 2)
    np.testing.assert_array_equal(read_bin(tmp_path / "a.bin"), rows())


def test_values(tmp_path):
    bright = rows() * np.float32([1, 1, 1, 255])
    refused(
        tmp_path, "a.bin", bright.tobytes(),
        r"a\.bin: intensity must be in \[0, 1\]; got .* intensity_max=255",
    )  # fmt: skip
    for most in (0, -255, np.nan):
        refused(tmp_path, "a.bin", bright.tobytes(), f"intensity_max must be a .*; got {most}",
                intensity_max=most)  # fmt: skip
    refused(
        tmp_path, "b.bin", np.full((7, 4), np.nan, "<f4").tobytes(),
        r"b\.bin is empty: none of its 7 points is finite",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["a.npy", "a.ply", "text.ply", "a.pcd", "text.pcd"])
def test_no_points(tmp_path, name):
    path = write(tmp_path / name, rows(0), **KINDS.get(name, {}))
    with pytest.raises(ValueError, match=rf"{name} is empty: none of its 0 points is finite"):
        read_scan(path)


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((3, 5)), r"float64 \(3, 5\)"),
        (np.zeros(4), r"float64 \(4,\)"),
        (np.zeros((3, 4), complex), r"complex128 \(3, 4\)"),
        (np.zeros((3, 4), bool), r"bool \(3, 4\)"),
        (np.zeros((3, 2)), r"float64 \(3, 2\)"),
        (np.zeros((3, 4, 1)), r"float64 \(3, 4, 1\)"),
    ],
)
def test_arrays_of_another_form(tmp_path, array, got):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=rf"a\.npy: expected numbers, \(N, 4\).* got {got}"):
        read_scan(tmp_path / "a.npy")


def test_a_pickle_is_never_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}] * 4], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npy cannot be read as a \.npy array"):
        read_scan(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.ply", "a.pcd", "text.ply", "text.pcd"])
def test_truncated(tmp_path, name):
    data = write(tmp_path / name, rows(), **KINDS[name]).read_bytes()
    refused(tmp_path, name, data[: len(data) * 2 // 3], rf"{name} .*truncated")


@pytest.mark.parametrize("name", ["text.ply", "text.pcd"])
def test_a_line_that_is_no_numbers(tmp_path, name):
    data = write(tmp_path / name, rows(), text=True).read_bytes()
    refused(tmp_path, name, data[:-9] + b"oops\n", rf"{name} is truncated or damaged: could not")


def test_text_with_other_things_around_the_points(tmp_path):
    data = ply(rows(), text=True)
    data = data.replace(b"element vertex", b"element camera 1\nproperty float f\nelement vertex")
    face = b"element face 1\nproperty list uchar int i\n"
    data = data.replace(b"end_header\n", face + b"end_header\n7\n")
    (tmp_path / "a.ply").write_bytes(data + b"3 0 1 2\n")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.ply").points, rows()[:, :3])


def test_headers_that_promise_nothing_or_too_much(tmp_path):
    refused(tmp_path, "a.ply", b"ply\nformat ascii 1.0\nend_header\n", r"a\.ply is damaged: it has")
    refused(
        tmp_path, "a.ply", ply(rows()).replace(b"vertex 300", b"vertex 300000000000"),
        r"a\.ply is truncated: its header promises 300000000000 points, more than its \d+ bytes",
    )  # fmt: skip


def test_a_cloud_without_places(tmp_path):
    refused(tmp_path, "a.ply", ply(rows(), names=("a", "b", "c")), r"a\.ply .*truncated or damaged")


UTM = np.array([513_000.0, 5_403_600.0, 312.0])


def on_a_map(count=1000):
    """Return float64 rows in UTM coordinates, a millimetre and more apart along y."""
    points = rows(count).astype(np.float64)
    points[:, 1] = np.linspace(-1, 1, count)
    points[:, :3] += UTM + 0.123456789
    return points


MAPS = {"a.npy": {}, "a.ply": {"dtype": "<f8"}, "text.ply": {"dtype": "<f8", "text": True},
        "a.pcd": {"dtype": "<f8"}, "text.pcd": {"dtype": "<f8", "text": True}}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_coordinates_of_a_map_keep_what_float32_would_round_away(tmp_path, name):
    points = on_a_map()
    points[7, 0] = np.nan
    path = write(tmp_path / name, points, **MAPS[name])
    with pytest.warns(UserWarning, match=rf"{name} lies about \(513001.0, 5403600.0, 313.0\), not"):
        scan = read_scan(path)
    assert scan.offset == (513001.0, 5403600.0, 313.0)
    assert len(np.unique(points[:, 1].astype(np.float32))) < 10  # what was read before
    assert len(np.unique(scan.points[:, 1])) == 999
    there = scan.points + np.array(scan.offset)
    np.testing.assert_allclose(there, np.delete(points, 7, axis=0)[:, :3], rtol=0, atol=2e-6)
    np.testing.assert_array_equal(scan.kept, np.arange(1000) != 7)


@pytest.mark.parametrize("dtype", ["<i4", "<i8", "<u4", "<f4"])
def test_coordinates_of_a_map_in_other_numbers(tmp_path, dtype):
    """Whole millimetres, say; and float32, which a file rounded before."""
    whole = np.rint(on_a_map()[:, :3] * [100, 100, 1]).astype(dtype)
    np.save(tmp_path / "a.npy", np.insert(whole, 3, 0, axis=1))
    with pytest.warns(UserWarning, match=r"a\.npy lies about"):
        scan = read_scan(tmp_path / "a.npy")
    np.testing.assert_array_equal(scan.points + np.array(scan.offset), whole.astype(np.float64))


@pytest.mark.parametrize(("east", "offset"), [
    (2040, 0), (2060, 2060), (-2040, 0), (-2060, -2060),
])  # fmt: skip
def test_scans_beyond_2_km_are_moved_and_nearer_ones_are_not(tmp_path, east, offset):
    points = np.zeros((5, 4))
    points[:, 0] = east + np.array([-3, -1, 0.25, 1, 3])
    points[:, 1] = [50, 51, 51.75, 53, 64]
    np.save(tmp_path / "a.npy", points)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scan = read_scan(tmp_path / "a.npy")
    assert scan.offset == ((offset, 52, 0) if offset else (0, 0, 0))
    there = scan.points + np.array(scan.offset)
    np.testing.assert_allclose(there, points[:, :3], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MAPS)
def test_a_scan_about_its_sensor_stays_where_it_is(tmp_path, name):
    """Though it is of float64 and a point lies far away, which alone is rounded, and said to be."""
    points = rows(1000).astype(np.float64)
    path = write(tmp_path / name, points, **MAPS[name])
    scan = read_scan(path)
    assert scan.offset == (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(scan.points, points[:, :3].astype(np.float32))
    points[5, :3] = UTM + 0.2
    write(path, points, **MAPS[name])
    with pytest.warns(UserWarning, match=r"1 of its points are so far .* by up to 0\.2 m\. Cut"):
        scan = read_scan(path)
    assert scan.offset == (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(scan.points, points[:, :3].astype(np.float32))


def test_points_that_float32_moves_by_less_than_a_millimetre_are_not_told(tmp_path):
    points = rows(9).astype(np.float64)
    points[2, 0], points[4, 1] = 16_384 + 0.0009, -16_384 - 0.0009
    np.save(tmp_path / "a.npy", points)
    assert read_scan(tmp_path / "a.npy").offset == (0.0, 0.0, 0.0)
    points[2, 0], points[7, 1] = -32_768 - 0.0012, 32_768 + 0.0015
    np.save(tmp_path / "a.npy", points)
    with pytest.warns(UserWarning, match=r"2 of its points are so far .* by up to 0\.0015 m\. Cut"):
        read_scan(tmp_path / "a.npy")


def test_intensities_beyond_float32_are_left_out(tmp_path):
    points = rows(9).astype(np.float64)
    points[2, 3], points[5, 3] = 1e39, -1e300
    np.save(tmp_path / "a.npy", points)
    scan = read_scan(tmp_path / "a.npy")
    assert np.flatnonzero(~scan.kept).tolist() == [2, 5]


@pytest.mark.parametrize(("dtype", "large"), [("<f8", "1.7e308"), (np.longdouble, "1e400")])
def test_places_beyond_float32_are_left_out(tmp_path, dtype, large):
    points = rows(9).astype(dtype)
    points[2, 0], points[3, 1] = np.longdouble(large), -1e39
    np.save(tmp_path / "a.npy", points)
    scan = read_scan(tmp_path / "a.npy")
    assert (scan.dropped, scan.offset) == (2, (0.0, 0.0, 0.0))
    points[:, 0] = np.longdouble(large)
    np.save(tmp_path / "a.npy", points)
    with pytest.raises(ValueError, match=r"a\.npy is empty: none of its 9 points is finite"):
        read_scan(tmp_path / "a.npy")


@pytest.mark.parametrize("intensity_max", [1, 255])
@pytest.mark.parametrize("scale", [255, 1])
def test_six_columns_with_colours(tmp_path, scale, intensity_max):
    """S3DIS has whole colours up to 255 and places above 0, SUN RGB-D colours in [0, 1]."""
    colors = np.random.default_rng(1).integers(0, 256, (300, 3)) * (scale / 255)
    places = np.abs(rows()[:, :3]) if scale == 255 else rows()[:, :3]
    data = np.concatenate([places, colors.astype("<f4")], axis=1).tobytes()
    message = r"a\.bin has 6 columns of float32 by its values; expected 4: .*reshape\(-1, 6\)"
    refused(tmp_path, "a.bin", data, message, intensity_max=intensity_max)
    with pytest.raises(ValueError, match=message):
        read_bin(tmp_path / "a.bin")
    rows_of_six = np.fromfile(tmp_path / "a.bin", "f4").reshape(-1, 6)
    np.save(tmp_path / "a.npy", rows_of_six[:, :3])  # as the message says
    with pytest.warns(UserWarning, match="has no intensity"):
        np.testing.assert_array_equal(read_scan(tmp_path / "a.npy").points, places)


def test_colours_are_whole_up_to_255_or_shares_up_to_1():
    places = [-3.5, 40.25, 1.5]
    for columns, colored in (([0, 255, 7], True), ([0, 256, 7], False), ([-1, 255, 7], False),
                             ([0, 0.5, 1], True), ([0, 0.5, 2], False), ([0, np.nan, 1], False)):
        assert _more_columns(np.array([[*places, *columns], [*places, 0, 1, 1]])) is colored
        assert not _more_columns(np.array([[3, 4, 200, *columns], [0, 0, 0, 1, 1, 1]]))


def test_five_columns(tmp_path):
    points = np.concatenate([rows(), np.arange(300)[:, None] % 32], axis=1).astype("<f4")
    points[:, 3] = np.floor(points[:, 3] * 255)
    refused(tmp_path, "a.bin", points.tobytes(), r"a\.bin has 5 columns of float32 by its values")
    refused(
        tmp_path, "b.bin", points[:299].tobytes(),
        r"a multiple of 16 bytes, .* got 5980\. Copy the file again\. Or has it 5 columns\?",
    )  # fmt: skip
    six = np.concatenate([points, points[:, :1]], axis=1)[:299]
    refused(tmp_path, "c.bin", six.tobytes(), r"got 7176\. Copy .*\. Or has it 6 columns\? ")


def test_four_columns_are_not_taken_for_more(tmp_path):
    """Whatever stands in them: places above 0, whole numbers, nothing but zeros."""
    for number, points in enumerate([rows(300), np.abs(rows(300)), np.ones((60, 4)),
                                     np.zeros((60, 4)), np.rint(np.abs(rows(60))), rows(60) / 99]):
        points = points.astype("<f4")
        points[:, 3] = np.clip(points[:, 3], 0, 1)
        path = write(tmp_path / f"{number}.bin", points)
        np.testing.assert_array_equal(read_scan(path).points, points[:, :3])


NAMES = ("12:30:45", "%05d", "file:a", "http:a", "pipe:0", "-a", "a*[b]?", "a b", "a\nb", "é")


@pytest.mark.parametrize("kind", ["bin", "npy", "ply", "pcd"])
def test_names_that_libraries_take_for_patterns_or_addresses(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(NAMES):
        write(Path(f"{name}.{kind}"), rows(9, seed=seed))
    for seed, name in enumerate(NAMES):
        scan = read_scan(f"{name}.{kind}")
        assert scan.name == f"{name}.{kind}"
        np.testing.assert_array_equal(scan.points, rows(9, seed=seed)[:, :3])
        write_ply(Path(f"{name}.out.ply"), scan.points, np.zeros((9, 3), np.uint8))
        np.testing.assert_array_equal(read_ply(Path(f"{name}.out.ply")), scan.points)


@pytest.mark.parametrize("name", KINDS)
def test_no_kind_of_file_needs_open3d(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "open3d", None)  # which makes importing it fail
    path = write(tmp_path / name.lower(), rows(), **KINDS[name])
    np.testing.assert_array_equal(read_scan(path).points, rows()[:, :3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_write_ply_writes_is_read_again(tmp_path, dtype):
    places = on_a_map()[:, :3].astype(dtype)
    colors = np.random.default_rng(0).integers(0, 256, (1000, 3), "u1")
    write_ply(tmp_path / "a.ply", places, colors)
    np.testing.assert_array_equal(read_ply(tmp_path / "a.ply"), places)
    fields = read_ply_fields(tmp_path / "a.ply")
    assert [*fields] == ["x", "y", "z", "red", "green", "blue"]
    assert [values.dtype for values in fields.values()] == [dtype] * 3 + [np.uint8] * 3
    np.testing.assert_array_equal(np.stack([*fields.values()][3:], axis=1), colors)
