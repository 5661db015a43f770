"""Scans in every kind of file that ScanFolder takes, written without what reads them."""

import laspy
import numpy as np

KINDS = (".ply", ".pcd", ".npy", ".npz", ".bin", ".las", ".laz")
TABLE = "id,name,red,green,blue\n2,ground,1,2,3\n5,tree\n6,tree,9,9,9\n7, pole ,,,\n1,\n"
COLUMNS = ("x", "y", "z", "intensity", "red", "green", "blue", "nx", "ny", "nz", "echo", "label")
_DTYPES = ("<f8", "<f8", "<f8", "<u2", "u1", "u1", "u1", "<f4", "<f4", "<f4", "u1", "<i4")


def points(seed=0, count=60):
    """Return a table of points by name: intensity to 1000, colours to 255, ids 1, 2, 5, 6, 7."""
    rng = np.random.default_rng(seed)
    table = np.zeros(count, list(zip(COLUMNS, _DTYPES, strict=True)))
    for axis in "xyz":
        table[axis] = rng.integers(-8000, 8000, count) / 1000
    table["intensity"] = rng.integers(0, 1001, count)
    for name in ("red", "green", "blue"):
        table[name] = rng.integers(0, 256, count)
    normals = rng.normal(size=(count, 3))
    for name, column in zip(("nx", "ny", "nz"), normals.T, strict=True):
        table[name] = column
    table["echo"] = rng.integers(1, 4, count)
    table["label"] = rng.choice([1, 2, 5, 6, 7], count)
    return table


def write(path, table, text=False):
    """Write the fields that a table has to a file of the kind that its name tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.column_stack([table[name].astype("<f4") for name in table.dtype.names])
    match path.suffix.lower():
        case ".ply":
            path.write_bytes(_ply(table, text))
        case ".pcd":
            path.write_bytes(_pcd(table, text))
        case ".npy":
            np.save(path, columns.astype("f8"))
        case ".npz":
            np.savez(path, **{name: table[name] for name in table.dtype.names})
        case ".bin":
            columns.tofile(path)
        case _:
            _las(table).write(str(path))
    return path


def write_splits(root):
    """Write a scan of every kind whose fields have names to train on, one of two to validate on."""
    for seed, kind in enumerate((".ply", ".pcd", ".npz", ".las", ".laz")):
        write(root / "train" / f"scan{kind}", shares(points(seed)))
    write(root / "val" / "deep" / "a.ply", shares(points(8)))
    write(root / "val" / "b.npz", shares(points(9)))
    (root / "classes.csv").write_text(TABLE)
    return root


def shares(table):
    """Return a table whose intensities are 0 or 1, as the default of ScanFolder takes them."""
    changed = table.copy()
    changed["intensity"] = table["intensity"] > 500
    return changed


def _body(table, text):
    if not text:
        return table.tobytes()
    return "".join(" ".join(map(str, row)) + "\n" for row in table.tolist()).encode()


def _ply(table, text):
    names = {"f8": "double", "f4": "float", "u2": "ushort", "u1": "uchar", "i4": "int"}
    head = ["ply", f"format {'ascii' if text else 'binary_little_endian'} 1.0",
            f"element vertex {len(table)}"]  # fmt: skip
    head += [
        f"property {names[table.dtype[name].str[1:]]} {name}" for name in table.dtype.names
    ]
    return "\n".join([*head, "end_header\n"]).encode() + _body(table, text)


def _pcd(table, text):
    """Return a PCD file with the three colours in one number, as PCL writes them."""
    rgb = sum(table[name].astype("<u4") << shift
              for name, shift in (("red", 16), ("green", 8), ("blue", 0)))  # fmt: skip
    kept = [name for name in table.dtype.names if name not in ("red", "green", "blue")]
    packed = np.zeros(len(table), [(name, table.dtype[name]) for name in kept] + [("rgb", "<u4")])
    for name in kept:
        packed[name] = table[name]
    packed["rgb"] = rgb
    kinds = [packed.dtype[name] for name in packed.dtype.names]
    head = ["VERSION 0.7", f"FIELDS {' '.join(packed.dtype.names)}",
            f"SIZE {' '.join(str(kind.itemsize) for kind in kinds)}",
            f"TYPE {' '.join(kind.kind.upper() for kind in kinds)}",
            f"COUNT {' '.join('1' for _ in kinds)}", f"WIDTH {len(table)}", "HEIGHT 1",
            f"POINTS {len(table)}", f"DATA {'ascii' if text else 'binary'}", ""]  # fmt: skip
    if not text:
        head[3] = head[3][:-1] + "F"
    return "\n".join(head).encode() + _body(packed, text)


def _las(table):
    """Return a LAS file: the label is its classification, normals are dimensions of its own."""
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.scales = np.full(3, 0.001)
    header.offsets = np.array([np.floor(table[axis].min()) for axis in "xyz"])
    extra = [name for name in ("nx", "ny", "nz") if name in table.dtype.names]
    header.add_extra_dims([laspy.ExtraBytesParams(name=name, type="f4") for name in extra])
    file = laspy.LasData(header)
    own = {"echo": "return_number", "label": "classification"}
    for name in table.dtype.names:
        values = table[name]
        if name in ("red", "green", "blue"):  # of 16 bits, which 255 times 257 fills
            values = values.astype("u2") * 257
        file[own.get(name, name)] = values
    return file
