"""Single scans from .bin, .npy, .ply and .pcd files."""

import numpy as np
import pytest

from geonorm.datasets import read_scan
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
    refused(tmp_path, "a.pcd.bin", rows(3).tobytes(), r"expected a multiple of 20 bytes, 5 float32")
    with pytest.raises(ValueError, match=r"nothing\.ply is not a file; expected a scan"):
        read_scan(tmp_path / "nothing.ply")


def test_values(tmp_path):
    bright = rows() * np.float32([1, 1, 1, 255])
    refused(
        tmp_path, "a.bin", bright.tobytes(),
        r"a\.bin: intensity must be in \[0, 1\]; got .* intensity_max=255",
    )  # fmt: skip
    refused(tmp_path, "a.bin", bright.tobytes(), "intensity_max must be a posit", intensity_max=0)
    refused(
        tmp_path, "b.bin", np.full((7, 4), np.nan, "<f4").tobytes(),
        r"b\.bin is empty: none of its 7 points is finite",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((3, 5)), r"float64 \(3, 5\)"),
        (np.zeros(4), r"float64 \(4,\)"),
        (np.zeros((3, 4), complex), r"complex128 \(3, 4\)"),
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
