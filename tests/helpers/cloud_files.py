"""PCD and PLY files with headers drawn at random, and what their points are; it reads nothing."""

import numpy as np

TYPES = ["f4", "f8", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))]
PLY_NAMES = {
    "i1": ("char", "int8"), "u1": ("uchar", "uint8"), "i2": ("short", "int16"),
    "u2": ("ushort", "uint16"), "i4": ("int", "int32"), "u4": ("uint", "uint32"),
    "f4": ("float", "float32"), "f8": ("double", "float64"),
}  # fmt: skip


def values(rng, dtype, shape):
    """Return random numbers of a dtype, whole ones up to 2^50, which float64 holds."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 7)).astype(dtype)
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -(2**50)), min(limits.max, 2**50)
    return rng.integers(low, high, shape, dtype=np.int64, endpoint=True).astype(dtype)


def drawn_fields(rng, extras):
    """Return [name, type, count] of x, y, z, perhaps the intensity, and extras, in any order."""
    names = list(rng.choice(["xyz", "XYZ"]))
    if rng.random() < 0.7:
        names.append(str(rng.choice(["intensity", "Intensity", "scalar_Intensity"])))
    fields = [[name, str(rng.choice(TYPES)), 1] for name in names]
    fields += [[name, str(rng.choice(TYPES)), int(count)]
               for name, count in zip(extras, rng.integers(1, 17, len(extras)), strict=True)]
    rng.shuffle(fields)
    return fields


def expected(fields, columns):
    """Return x, y, z and the intensity, if there is one, as float64."""
    places = {field[0].lower(): place for place, field in enumerate(fields)}
    names = [name for name in ("x", "y", "z", "intensity", "scalar_intensity") if name in places]
    return np.stack([columns[places[name]][:, 0].astype(np.float64) for name in names], axis=1)


def in_words(row):
    return " ".join(repr(value.item()) for value in row)


def drawn_pcd(rng, kind=None):
    """Return the bytes of a PCD file, its rows, and how many bytes no reader can do without."""
    kind = kind or str(rng.choice(["ascii", "binary", "binary_compressed"]))
    extras = rng.choice(["_", "rgb", "ring", "normal_x", "_", "fpfh"], rng.integers(0, 5))
    fields = drawn_fields(rng, extras.tolist())
    if rng.random() < 0.2:  # as files of old, which say neither SIZE nor TYPE
        fields = [[name, "f4", 1] for name, _, _ in fields]
    width, height = (int(number) for number in rng.integers(1, 7, 2))
    count = width * height
    columns = [values(rng, f"<{dtype}", (count, many)) for _, dtype, many in fields]
    lines = ["# .PCD v.7 - Point Cloud Data file format", "VERSION .7", ""]
    lines.append(f"{rng.choice(['FIELDS', 'COLUMNS'])} {' '.join(name for name, _, _ in fields)}")
    plain = all(field[1:] == ["f4", 1] for field in fields)
    if not plain or rng.random() < 0.5:
        lines.append("SIZE " + " ".join(dtype[1] for _, dtype, _ in fields))
        lines.append("TYPE " + " ".join(dtype[0].upper() for _, dtype, _ in fields))
    if any(field[2] != 1 for field in fields) or rng.random() < 0.5:
        lines.append("COUNT " + " ".join(str(many) for _, _, many in fields))
    lines += rng.permutation([
        *([f"WIDTH {width}", f"HEIGHT {height}"], [f"POINTS {count}"],
          [f"WIDTH {count}"], [f"WIDTH {width}", f"HEIGHT {height}", f"POINTS {count}"],
          [f"WIDTH {count}", f"POINTS {count}"])[rng.integers(5)],
        *([], ["VIEWPOINT 0 0 0 1 0 0 0"], ["# a comment: POINTS 7"])[rng.integers(3)],
    ]).tolist()  # fmt: skip
    ending = str(rng.choice(["\n", "\r\n"]))
    head = ending.join([*lines, f"DATA {kind}", ""]).encode()
    if kind == "ascii":
        text = [" ".join(in_words(column[i]) for column in columns) for i in range(count)]
        body, needed = with_last_number(text, ending)
    elif kind == "binary":
        body = b"".join(column[i].tobytes() for i in range(count) for column in columns)
        needed = len(body)
        body += rng.bytes(rng.integers(0, 20))
    else:
        padded = rng.random() < 0.5
        body = lzf(rng, b"".join(
            column.tobytes() for column, field in zip(columns, fields, strict=True)
            if padded or field[0] != "_"
        ))  # fmt: skip
        needed = len(body)
    return head + body, expected(fields, columns), len(head) + needed


def with_last_number(lines, ending):
    """Return lines as bytes, and at which byte the last number begins."""
    body = ending.join([*lines, ""]).encode()
    return body, len(body) - len(ending) - len(lines[-1].split()[-1])


def lzf(rng, data):
    """Return data as PCL writes it: both sizes, then literals and references chosen at random."""
    out, at = bytearray(), 0
    while at < len(data):
        length = back = 0
        if at and rng.random() < 0.8:
            before = data.rfind(data[at : at + 3], max(0, at - 8192), at + 2)
            while before >= 0 and length < 264 and at + length < len(data):
                if data[before + length] != data[at + length]:
                    break
                length, back = length + 1, at - before
        if length < 3:
            literal = data[at : at + int(rng.integers(1, 33))]
            out += bytes([len(literal) - 1]) + literal
            at += len(literal)
            continue
        high, low = divmod(back - 1, 256)
        short = min(length - 2, 7)
        out.append(short << 5 | high)
        if short == 7:
            out.append(length - 2 - 7)
        out.append(low)
        at += length
    return np.array([len(out), len(data)], "<u4").tobytes() + bytes(out)


def drawn_ply(rng, kind=None):
    """Return the bytes of a PLY file, its rows, and how many bytes no reader can do without."""
    kinds = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}
    kind = kind or str(rng.choice(list(kinds)))
    ending = str(rng.choice(["\n", "\n", "\r\n", "\r"]))
    extras = rng.choice(["red", "nx", "id", "tags", "weights"], rng.integers(0, 5), replace=False)
    fields = drawn_fields(rng, extras.tolist())
    for each in fields:
        each[1] = each[1].replace("8", "4") if each[1][0] in "iu" else each[1]
        is_list = each[0] in extras and rng.random() < 0.4
        each[2] = str(rng.choice(["u1", "i1", "u2", "i2", "u4", "i4"])) if is_list else 1
    vertices = ("vertex", int(rng.integers(1, 30)), fields)
    others = [("camera", int(rng.integers(0, 3)), [["view", "f4", 1], ["k", "u2", 1]]),
              ("face", int(rng.integers(0, 9)), [["vertex_indices", "i4", "u1"]])]  # fmt: skip
    others.append(("texture", int(rng.integers(1, 3)), [["texels", "u1", "u4"]]))
    order = [vertices, *others[: rng.integers(4)]]
    rng.shuffle(order)
    head = ["ply", f"format {kind} 1.0", "comment element vertex 99", "comment Müller: end_header"]
    body, lines, expect = b"", [], None
    for name, count, its_fields in order:
        head += ["obj_info end_header", "comment end_header"][: rng.integers(3)]
        head.append(f"element {name} {count}")
        for field, dtype, many in its_fields:
            length = "" if many == 1 else f"list {rng.choice(PLY_NAMES[many])} "
            head.append(f"property {length}{rng.choice(PLY_NAMES[dtype])} {field}")
        more, text, columns = ply_rows(rng, count, its_fields, kinds[kind])
        body, lines = body + more, lines + text
        expect = expected(its_fields, columns) if name == "vertex" else expect
    start = ending.join([*head, "end_header", ""]).encode()
    needed = len(body)
    if kind == "ascii":
        body, needed = with_last_number(lines, ending)
    else:
        body += rng.bytes(rng.integers(0, 20))
    return start + body, expect, len(start) + needed


def ply_rows(rng, count, fields, order):
    """Return rows in binary, in text, and as one array for each field that is no list."""
    columns = [values(rng, order + dtype, (count, 1)) for _, dtype, _ in fields]
    body, lines = b"", []
    for row in range(count):
        words = []
        for (_, dtype, many), column in zip(fields, columns, strict=True):
            cells = column[row]
            if many != 1:
                cells = values(rng, order + dtype, int(rng.integers(0, 6)))
                body += np.array(len(cells), order + many).tobytes()
                words.append(str(len(cells)))
            body += cells.tobytes()
            words.append(in_words(cells))
        lines.append(" ".join(words))
    return body, lines, columns
