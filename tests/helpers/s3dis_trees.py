"""S3DIS in the layouts in which people have it, byte for byte."""

import numpy as np

# Number of the class of each object of a room, in the order of the files' names.
OBJECTS = {"beam_1": 3, "ceiling_1": 0, "clutter_2": 12, "sofa_1": 9, "stairs_1": 12}
POINTS = 4  # of an object


def rows(name):
    """Return x, y, z in metres to the millimetre, and red, green, blue of an object's points."""
    rng = np.random.default_rng([*name.encode()])
    places = rng.integers(-9_999, 9_999, (POINTS, 3)) / 1000
    return np.column_stack([places, rng.integers(0, 256, (POINTS, 3))])


def lines(points):
    """Return points as the release writes them; the colours of some rooms have decimals."""
    return "".join(
        f"{x:.3f} {y:.3f} {z:.3f} {r:.0f} {g:.6f} {b:.0f}\n" for x, y, z, r, g, b in points
    ).encode()


def write_released(root, area, room, objects=OBJECTS):
    """Write a room as released, with what Macs leave there."""
    folder = root / f"Area_{area}" / room
    (folder / "Annotations").mkdir(parents=True)
    for name in objects:
        data = lines(rows(f"{area}{room}{name}"))
        (folder / "Annotations" / f"{name}.txt").write_bytes(data)
        (folder / "Annotations" / f"._{name}.txt").write_bytes(b"Mac")
    (folder / f"{room}.txt").write_bytes(b"".join(lines(r) for r in [rows("all")]))
    (root / f"Area_{area}" / ".DS_Store").write_bytes(b"Mac")
    angles = root / f"Area_{area}" / f"Area_{area}_alignmentAngle.txt"
    head = "" if angles.is_file() else "## Global alignment angle per disjoint space ##\n\n"
    with angles.open("a") as file:
        file.write(f"{head}{room} 90\n")
    return folder


def whole_room(area, room):
    """Return the points and the classes of a room that is written by these functions."""
    points = np.concatenate([rows(f"{area}{room}{name}") for name in OBJECTS])
    return points, np.repeat([*OBJECTS.values()], POINTS)


def write_processed(root, area, room, normals=True):
    """Write a room as Pointcept does."""
    folder = root / f"Area_{area}" / room
    folder.mkdir(parents=True)
    points, labels = whole_room(area, room)
    np.save(folder / "coord.npy", points[:, :3].astype("f4"))
    np.save(folder / "color.npy", points[:, 3:].astype("u1"))
    np.save(folder / "segment.npy", labels[:, None].astype("i2"))
    np.save(folder / "instance.npy", labels[:, None].astype("i2"))
    if normals:
        np.save(folder / "normal.npy", np.tile(np.array([0, 0, 1], "f4"), (len(points), 1)))
    return folder


def write_array(root, area, room):
    """Write a room as PointNet's script does."""
    root.mkdir(exist_ok=True)
    path = root / f"Area_{area}_{room}.npy"
    np.save(path, np.column_stack(whole_room(area, room)))
    return path
