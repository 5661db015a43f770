"""PCD and PLY files drawn at random: every value is read as written, every cut file refused."""

from pathlib import Path

import numpy as np
import pytest

from geonorm.datasets.pcd import lzf_decompressed, read_pcd, read_pcd_fields
from geonorm.datasets.ply import count_vertices, read_ply, read_ply_fields, read_vertices
from geonorm.datasets.point_fields import (
    Field,
    check_promise,
    column,
    exact_rows,
    scan_columns,
    single_fields,
)
from helpers.broken_files import broken
from helpers.cloud_files import drawn_pcd, drawn_ply, lzf

FORMATS = {
    "pcd": (drawn_pcd, read_pcd, ("ascii", "binary", "binary_compressed")),
    "ply": (drawn_ply, read_ply, ("ascii", "binary_little_endian", "binary_big_endian")),
}


@pytest.mark.parametrize("form", FORMATS)
def test_two_hundred_drawn_files_are_read_as_they_were_written(tmp_path, form):
    draw, read, _ = FORMATS[form]
    path = tmp_path / f"a.{form}"
    for seed in range(200):
        data, rows, _ = draw(np.random.default_rng(seed))
        path.write_bytes(data)
        np.testing.assert_array_equal(read(path), rows, strict=True, err_msg=f"seed {seed}")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("which", range(3))
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, form, which):
    """But within the last number of a text, which may be a shorter number."""
    draw, read, kinds = FORMATS[form]
    path = tmp_path / f"cut.{form}"
    for seed in range(5):
        data, _, needed = draw(np.random.default_rng(seed), kinds[which])
        for end in {*range(0, needed, 1 + needed // 100), *range(needed - 20, needed)}:
            path.write_bytes(data[:end])
            with pytest.raises(ValueError, match=rf"cut\.{form} .*(truncated|damaged)"):
                read(path)


@pytest.mark.parametrize("form", FORMATS)
def test_broken_files_are_read_or_refused_by_name(tmp_path, form):
    """Broken anywhere, and in their first 200 bytes, which are the header; warnings are errors."""
    draw, read, _ = FORMATS[form]
    path = tmp_path / f"broken.{form}"
    said = []
    for seed in range(20):
        data, _, _ = draw(np.random.default_rng(seed))
        heads = (head + data[200:] for head in broken(data[:200], 20, seed))
        for changed in (*broken(data, 20, seed), *heads):
            path.write_bytes(changed)
            try:
                read(path)
            except ValueError as error:
                said.append(str(error))
    assert 400 < len(said) < 800
    assert all(path.name in words for words in said)


def test_lzf_by_hand(tmp_path):
    """Literals, a reference, one that overlaps what it makes, and one with a longer length."""
    packed = bytes([2, 97, 98, 99, 1 << 5, 2, 3 << 5, 0, 7 << 5, 4, 0, 5 << 5 | 1, 3])
    made = b"abc" b"abc" + b"c" * 5 + b"c" * 13 + b"c" * 7
    with pytest.raises(ValueError, match=r"a\.pcd is truncated or damaged: .* end within one"):
        lzf_decompressed(packed, len(made), Path("a.pcd"))  # 260 back, before all there is
    near = packed[:-2] + bytes([5 << 5, 3])
    assert lzf_decompressed(near, len(made), Path("a.pcd")) == made
    with pytest.raises(ValueError, match=r"points unpack to 31 bytes or more; expected 30\. Copy"):
        lzf_decompressed(near, 30, Path("a.pcd"))
    for end in (1, 2, 5, len(near) - 1):
        with pytest.raises(ValueError, match=r"a\.pcd is truncated or damaged"):
            lzf_decompressed(near[:end], len(made), Path("a.pcd"))


PADDED = """VERSION 0.7
FIELDS x y z _ intensity _
SIZE 4 4 4 1 4 1
TYPE F F F U F U
COUNT 1 1 1 4 1 12
WIDTH 5
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
DATA binary
"""


def refused(path, data, message):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ValueError, match=rf"{path.name}.*{message}"):
        {".pcd": read_pcd, ".ply": read_ply}[path.suffix](path)


def test_points_that_pcl_pads(tmp_path):
    """As PCL writes PointXYZI, whose points are 32 bytes; the padding holds anything."""
    rows = np.arange(20, dtype="<f4").reshape(5, 4)
    padded = np.frombuffer(np.random.default_rng(0).bytes(160), "u1").reshape(5, 32).copy()
    padded[:, :12], padded[:, 16:20] = rows[:, :3].copy().view("u1"), rows[:, 3:].copy().view("u1")
    (tmp_path / "a.pcd").write_bytes(PADDED.encode() + padded.tobytes())
    np.testing.assert_array_equal(read_pcd(tmp_path / "a.pcd"), rows)


@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed"])
def test_fields_of_one_number_come_in_their_types(tmp_path, kind):
    """Neither padding nor a field of several numbers is among them."""
    head = (PADDED.replace("y z _ intensity _", "y z _ ring more").replace("1 4 1\n", "1 2 8\n")
            .replace("U F U", "U U I").replace("1 12", "1 3").replace("binary", kind))  # fmt: skip
    columns = [np.arange(5 * count, dtype=dtype).reshape(5, count) * step
               for dtype, count, step in (("<f4", 1, 2), ("<f4", 1, 3), ("<f4", 1, 5), ("u1", 4, 1),
                                          ("<u2", 1, 16_000), ("<i8", 3, -(2**40)))]  # fmt: skip
    body = {
        "ascii": "".join(" ".join(str(v) for each in columns for v in each[i].tolist()) + "\n"
                         for i in range(5)).encode(),
        "binary": b"".join(each[i].tobytes() for i in range(5) for each in columns),
        "binary_compressed": lzf(np.random.default_rng(0), b"".join(c.tobytes() for c in columns)),
    }[kind]  # fmt: skip
    (tmp_path / "a.pcd").write_bytes(head.encode() + body)
    found = read_pcd_fields(tmp_path / "a.pcd")
    assert {name: values.dtype.str for name, values in found.items()} == {
        "x": "<f4", "y": "<f4", "z": "<f4", "ring": "<u2"}
    for place, name in ((0, "x"), (1, "y"), (2, "z"), (4, "ring")):
        np.testing.assert_array_equal(found[name], columns[place][:, 0])


PCD_FAULTS = {
    "no header at all": ("\x00" * 300, "no header of a .pcd file, whose last line is DATA"),
    "an unknown encoding": (PADDED.replace("binary", "zipped"), "DATA must be one of ascii, .*"),
    "a size of no number": (PADDED.replace("SIZE 4", "SIZE 3"), "field x is of TYPE F and SIZE 3"),
    "an unknown type": (PADDED.replace("TYPE F", "TYPE C"), "x is of TYPE C and SIZE 4; exp"),
    "too few sizes": (PADDED.replace("SIZE 4", "SIZE"), "SIZE must have .* of 6 .* got 5"),
    "too many counts": (PADDED.replace("COUNT 1", "COUNT 1 1"), "COUNT must have .* of 6 .* got 7"),
    "a count of zero": (PADDED.replace("COUNT 1 1 1 4", "COUNT 1 1 1 0"), "field _ has COUNT 0"),
    "a count of no number": (PADDED.replace("COUNT 1", "COUNT -1"), "COUNT must be a whole .*'-1'"),
    "no number of points": (PADDED.replace("WIDTH 5\n", ""), "neither POINTS nor WIDTH"),
    "two numbers of points": (PADDED.replace("DATA", "POINTS 4\nDATA"), "4 POINTS, but WIDTH .* 5"),
    "more points than places": (PADDED.replace("DATA", "POINTS 6\nDATA"), "6 POINTS, but .* is 5"),
    "points of no number": (PADDED.replace("WIDTH 5", "WIDTH x"), "WIDTH must be a whole number"),
    "points of a long number": (PADDED.replace("WIDTH 5", f"WIDTH {10**60}"), "got '10{39}'"),
    "several x": (PADDED.replace("COUNT 1", "COUNT 2"), "expected one x for each point; got 2 val"),
    "no z": (PADDED.replace(" z ", " t "), "has no z; expected fields named x, y and z"),
    "nothing compressed": (PADDED.replace("binary", "binary_compressed"), "ends before its compr"),
    "sizes that do not fit": (
        PADDED.replace("binary", "binary_compressed") + "\x00" * 8, "5 points need 160 bytes",
    ),
    "a text of other columns": (PADDED.replace("binary", "ascii") + "1 2 3\n" * 5, "promises 20"),
    "a text of more columns": (
        PADDED.replace("binary", "ascii") + ("1 " * 21 + "\n") * 5, "promises 20 .* got 21",
    ),
    "a text that says more": (
        PADDED.replace("binary", "ascii") + ("1 " * 20 + "# 1\n") * 5, "damaged: .*'#'",
    ),
    "a text of fewer lines": (
        PADDED.replace("binary", "ascii") + ("1 " * 20 + "\n\n") * 3, "5 points, 3 can be read",
    ),
    "a float of two bytes": (PADDED.replace("SIZE 4", "SIZE 2"), "field x is of TYPE F and SIZE 2"),
    "two encodings": (PADDED.replace("binary", "binary ascii"), "DATA must .* got 'binary ascii'"),
    "no encoding": (PADDED.replace(" binary", ""), "DATA must be one of .* got ''"),
    "two widths": (PADDED.replace("WIDTH 5", "WIDTH 5 5"), "WIDTH must be .* got '5 5'"),
    "a width of 16 digits": (PADDED.replace("WIDTH 5", f"WIDTH {10**15}"), "WIDTH must be a whole"),
    "a width of 15 digits": (PADDED.replace("WIDTH 5", f"WIDTH {10**14}"), "promises 10{14} poi"),
    "a digit above the line": (PADDED.replace("WIDTH 5", "WIDTH \u00b2").encode("latin-1"),
                               "WIDTH must be a whole number; got '\u00b2'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PCD_FAULTS)
def test_pcd_files_that_are_refused(tmp_path, fault):
    refused(tmp_path / "a.pcd", *PCD_FAULTS[fault])


PLY = """ply
format ascii 1.0
element vertex 2
property float x
property float y
property double z
property list uchar int tags
element face 1
property list uchar int vertex_indices
end_header
1 2 3 2 7 7
4 5 6 0
3 0 1 0
"""
PLY_FAULTS = {
    "not ply": (PLY.replace("ply\n", "plx\n", 1), "no header of a .ply file, which begins ply"),
    "an unknown format": (PLY.replace("ascii", "utf8"), "'format utf8 1.0' is no line of a .ply"),
    "no format": (PLY.replace("format ascii 1.0\n", ""), "'end_header' is no line"),
    "an unknown type": (PLY.replace("double", "quad"), "'property quad z' is no line"),
    "a list counted in floats": (PLY.replace("list uchar", "list float"), "'property list flo"),
    "a number of no digits": (PLY.replace("vertex 2", "vertex -2"), "'element vertex -2' is"),
    "a long line": (PLY.replace("element face 1", "face" * 90), "damaged: '(face){15}' is no line"),
    "a property of nothing": (PLY.replace("element vertex 2\n", ""), "'property float x' is"),
    "no vertices": (PLY.replace("element vertex", "element point"), "a .ply file with vertices"),
    "a list for x": (
        PLY.replace("float x", "list uchar float x"), "expected one x for each point; got a list",
    ),
    "no y": (PLY.replace("float y", "float v"), "has no y; expected fields named x, y and z"),
    "a list too short": (PLY.replace("2 7 7", "2 7"), "a line has 5 numbers; .* promises 6"),
    "a list too long": (PLY.replace("2 7 7", "2 7 7 7"), "a line has 7 numbers; .* promises 6"),
    "a list of no number": (PLY.replace("2 7 7", "x 7 7"), "damaged: a list of 'x' values"),
    "a face too short": (PLY.replace("3 0 1 0", "3 0 1"), "a line has 3 numbers; .* promises 4"),
    "no face": (PLY.replace("3 0 1 0\n", ""), "promises 1 rows of face, 0 can be read"),
    "another version": (PLY.replace("1.0", "1.1"), "'format ascii 1.1' is no line"),
    "two formats": (
        PLY.replace("element face", "format ascii 1.0\nelement face"), "'format ascii 1.0' is no",
    ),
    "16 digits": (PLY.replace("vertex 2", f"vertex {10**15}"), "'element vertex 10{15}' is no"),
    "15 digits": (PLY.replace("vertex 2", f"vertex {10**14}"), "promises 10{14} points, more than"),
    "a list of an unknown type": (PLY.replace("int tags", "quad tags"), "'property list uchar qu"),
    "an unknown type of lengths": (PLY.replace("uchar int t", "quad int t"), "'property list quad"),
    "a list of nothing": (
        PLY.replace("element vertex 2", "property list uchar int tags"), "'property list uchar int",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLY_FAULTS)
def test_ply_files_that_are_refused(tmp_path, fault):
    refused(tmp_path / "a.ply", *PLY_FAULTS[fault])


def test_lines_that_say_nothing_are_passed_over(tmp_path):
    spaced = PLY.replace("ply\n", "ply \n\n", 1).replace("element f", "element none 5\nelement f")
    lines = spaced.replace("4 5 6 0", "\n4 5 6 0\n \n") + "and more\n"
    (tmp_path / "a.ply").write_text(lines)
    assert read_ply(tmp_path / "a.ply").tolist() == [[1, 2, 3], [4, 5, 6]]
    plain = spaced.replace("property list uchar int tags\n", "").partition("1 2 3")[0]
    rows = np.array([(1, 2, 3), (4, 5, 6)], "<f4,<f4,<f8").tobytes() + bytes([1, 0, 0, 0, 0])
    (tmp_path / "a.ply").write_bytes(plain.replace("ascii", "binary_little_endian").encode() + rows)
    assert read_ply(tmp_path / "a.ply").tolist() == [[1, 2, 3], [4, 5, 6]]
    columns = PADDED.replace("binary", "ascii").replace("POINTS 5\n", "")
    row = "1 2 3 0 0 0 0 7 " + "0 " * 12
    (tmp_path / "a.pcd").write_text(columns + f"\n{row}\n \n{row}\n{row}\n{row}\n{row}\nand more")
    assert read_pcd(tmp_path / "a.pcd").tolist() == [[1, 2, 3, 7]] * 5


def test_chosen_properties_come_as_they_are_asked_for(tmp_path):
    path = tmp_path / "a.ply"
    path.write_text(PLY)
    assert read_vertices(path, ("z", "x")).tolist() == [[3, 1], [6, 4]]
    with pytest.raises(ValueError, match=r"a\.ply has no red, Y; its points have x, y, z, tags$"):
        read_vertices(path, ("red", "x", "Y"))
    assert count_vertices(path) == 2
    path.write_text(PLY.replace("vertex 2", "point 2"))
    assert count_vertices(path) == 0


def test_numbers_in_text_come_in_the_types_of_their_fields(tmp_path):
    path = tmp_path / "a.ply"
    text = PLY.replace("float y", "char y").replace("1 2 3 2", "0.1 -2 nan 2")
    path.write_text(text)
    found = read_ply_fields(path)
    kinds = {name: values.dtype.char for name, values in found.items()}
    assert kinds == {"x": "f", "y": "b", "z": "d"}
    assert found["x"].tolist() == [np.float32(0.1), 4]
    assert found["y"].tolist() == [-2, 5]
    assert np.isnan(found["z"]).tolist() == [True, False]
    for wrong, told in (("-129", "-129"), ("2.5", "2.5"), ("nan", "nan")):
        path.write_text(text.replace("0.1 -2", f"0.1 {wrong}").replace("4 5", "4 300"))
        with pytest.raises(ValueError, match=f"a.ply is damaged: y has the value {told}, which"):
            read_ply_fields(path)


def test_lists_of_which_one_alone_has_a_length_of_its_own(tmp_path):
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty list uchar uchar one\n"
    head += "property list uchar char other\n" + "".join(f"property uchar {c}\n" for c in "xyz")
    rows = bytes([1, 0, 1, 0, 1, 2, 3, 1, 0, 2, 0, 0, 4, 5, 6, 1, 0, 0, 7, 8, 9])
    data = f"{head}end_header\n".encode() + rows
    (tmp_path / "a.ply").write_bytes(data)
    assert read_ply(tmp_path / "a.ply").tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    refused(tmp_path / "a.ply", data[:-1], "promises 3 points, 2 can be read")


def test_rows_that_are_left_of_other_elements_are_counted(tmp_path):
    head = PLY.partition("1 2 3")[0].replace("ascii", "binary_little_endian")
    head = head.replace("property list uchar int tags\n", "").replace("face 1", "face 3")
    faces = bytes([1, 0, 0, 0, 0, 2, *[0] * 8, 1, 0, 0])
    refused(tmp_path / "a.ply", head.encode() + bytes(32) + faces,
            "promises 3 rows of face, 2 can be read")  # fmt: skip
    head = head.replace("list uchar int vertex_indices", "short first")
    refused(tmp_path / "a.ply", head.encode() + bytes(32 + 5),
            "promises 3 rows of face, 2 can be read")  # fmt: skip


def test_a_binary_list_of_fewer_than_no_values(tmp_path):
    head = PLY.partition("1 2 3")[0].replace("ascii", "binary_little_endian")
    data = head.replace("uchar int tags", "char int tags").encode() + bytes(16) + b"\xff"
    refused(tmp_path / "a.ply", data + bytes(90), r"damaged: a list of -1 values")


def test_what_follows_compressed_points_is_passed_over(tmp_path):
    data, rows, _ = drawn_pcd(np.random.default_rng(3), "binary_compressed")
    (tmp_path / "a.pcd").write_bytes(data + bytes([2, 1, 1, 1]))
    np.testing.assert_array_equal(read_pcd(tmp_path / "a.pcd"), rows)


def test_of_lines_with_one_name_the_first_counts(tmp_path):
    twice = PADDED.replace("DATA", "WIDTH 7\nCOLUMNS a\nDATA").replace("FIELDS", "\nCOLUMNS")
    (tmp_path / "a.pcd").write_bytes(twice.encode() + bytes(5 * 32))
    assert read_pcd(tmp_path / "a.pcd").shape == (5, 4)
    for height, points in (("HEIGHT 3\n", 15), ("", 5)):
        text = PADDED.replace("HEIGHT 1\n", height).encode()
        (tmp_path / "a.pcd").write_bytes(text + bytes(points * 32))
        assert read_pcd(tmp_path / "a.pcd").shape == (points, 4)


def test_files_of_no_points(tmp_path):
    """In every encoding, with lists and without."""
    none = PADDED.replace("WIDTH 5", "WIDTH 0")
    compressed = none.replace("binary", "binary_compressed") + "\x00" * 8
    for text in (none, none.replace("binary", "ascii"), compressed):
        (tmp_path / "a.pcd").write_text(text)
        assert read_pcd(tmp_path / "a.pcd").shape == (0, 4)
    head = PLY.partition("1 2 3")[0].replace("vertex 2", "vertex 0").replace("face 1", "face 0")
    for lists in (head, head.replace("property list uchar int tags\n", "")):
        for kind in ("ascii", "binary_little_endian", "binary_big_endian"):
            (tmp_path / "a.ply").write_text(lists.replace("ascii", kind))
            assert read_ply(tmp_path / "a.ply").shape == (0, 3)


@pytest.mark.parametrize("form", FORMATS)
def test_whole_numbers_that_float64_would_round(tmp_path, form):
    path = tmp_path / f"a.{form}"
    if form == "ply":  # whose whole numbers have four bytes at the most
        path.write_text(PLY.replace("float x", "uint x").replace("1 2 3 2", "4294967295 2 3 2"))
        np.testing.assert_array_equal(read_ply(path), [[4294967295, 2, 3], [4, 5, 6]])
        return
    head = "FIELDS x y z\nSIZE 8 8 8\nTYPE U I I\nPOINTS 1\nDATA binary\n"
    for largest, fits in ((2**53, True), (2**53 + 1, False), (2**64 - 1, False)):
        rows = np.array([largest, 2**53 - 1, 2**53 - 3], "<u8")
        path.write_bytes(head.encode() + rows.tobytes())
        if fits:
            assert read_pcd(path).astype(np.uint64).tolist() == [rows.tolist()]
            continue
        with pytest.raises(ValueError, match=rf"a\.pcd: x reaches {largest}, more than float64"):
            read_pcd(path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("compressed", [True, False])
def test_files_that_open3d_writes(tmp_path, form, text, compressed):
    o3d = pytest.importorskip("open3d")
    rows = np.random.default_rng(0).uniform(-9, 9, (5000, 4)).astype(np.float32)
    rows[::3] = rows[::3].round(1)  # so that there is something to compress
    cloud = o3d.t.geometry.PointCloud(rows[:, :3].copy())
    cloud.point["intensity"] = rows[:, 3:].copy()
    path = tmp_path / f"a.{form}"
    o3d.t.io.write_point_cloud(str(path), cloud, text, compressed)
    _, read, _ = FORMATS[form]
    np.testing.assert_allclose(read(path), rows, rtol=1e-5 * text, atol=1e-5 * text)


@pytest.mark.parametrize("form", ["ply", "pcd"])
def test_of_a_file_that_is_cut_the_points_that_are_left_are_counted(tmp_path, form):
    """Each has four numbers of four bytes; of the fourth point a part is there."""
    fields = ["x", "y", "z", "intensity"]
    head = {
        "ply": "ply\nformat binary_little_endian 1.0\nelement vertex 5\n"
               + "".join(f"property float {name}\n" for name in fields) + "end_header\n",
        "pcd": f"VERSION 0.7\nFIELDS {' '.join(fields)}\nSIZE 4 4 4 4\nTYPE F F F F\n"
               "COUNT 1 1 1 1\nWIDTH 5\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 5\nDATA binary\n",
    }[form]  # fmt: skip
    refused(tmp_path / f"a.{form}", head.encode() + bytes(3 * 16 + 7),
            "its header promises 5 points, 3 can be read")  # fmt: skip


def fields_of(text):
    """Return fields such as `x:f4`, `t:3f4` of three values and `l:[f4` of a list."""
    found = []
    for word in text.split():
        name, kind = word.split(":")
        values = int(kind[0]) if kind[0].isdigit() else 1
        dtype = np.dtype(kind.lstrip("[0123456789"))
        found.append(Field(name, dtype, values, np.dtype("u1") if kind[0] == "[" else None))
    return found


def test_the_places_of_fields_are_found_by_name():
    path = Path("a.ply")
    shuffled = fields_of("scalar_Intensity:f4 Z:f4 n:f4 y:f4 Intensity:f4 X:f8 x:u2")
    assert scan_columns(shuffled, path) == [5, 3, 1, 4]  # of each name the first
    assert scan_columns(shuffled[:4] + shuffled[5:], path) == [4, 3, 1, 0]
    assert scan_columns(shuffled[1:4] + shuffled[5:], path) == [3, 2, 0]
    mixed = fields_of("_:u1 b:f4 a:3f4 a:f4 l:[f4 b:u2 _:f4 c:f4")
    assert single_fields(mixed) == [1, 3, 7]
    assert [field.size for field in mixed[1:4]] == [4, 12, 4]
    for text in ("x:3f4 y:f4 z:f4", "x:f4 y:f4 z:[f4", "x:f4 y:f4 z:f4 intensity:2f4"):
        with pytest.raises(ValueError, match=r"expected one (x|z|intensity) for each point; got"):
            scan_columns(fields_of(text), path)


def test_a_header_can_promise_a_hundred_points_for_each_byte():
    check_promise(700, Path("a.pcd"), 7)
    with pytest.raises(ValueError, match="promises 701 points, more than its 7 bytes"):
        check_promise(701, Path("a.pcd"), 7)


def test_numbers_stand_a_stride_apart():
    data = np.arange(40, dtype="u1").tobytes()
    assert column(data, np.dtype("u1"), 3, 5, 7).tolist() == [5, 12, 19]
    assert column(data, np.dtype(">u2"), 2, 1, 4).tolist() == [0x0102, 0x0506]
    assert column(b"", np.dtype("<i2"), 0, 5, 7).dtype == np.dtype("<i2")


def test_whole_numbers_below_zero_are_as_large_as_those_above():
    low = [np.array([-(2**53) - 1, 5]), np.array([1, 2])]
    with pytest.raises(ValueError, match="y reaches 9007199254740993, more than float64"):
        exact_rows(["y", "x"], low, Path("a.pcd"))
    low[0][0] += 1
    assert exact_rows(["y", "x"], low, Path("a.pcd")).tolist() == [[-(2.0**53), 1], [5, 2]]
