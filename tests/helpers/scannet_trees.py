"""ScanNet as it is released and as Pointcept processes it, byte for byte."""

import numpy as np

NYU40 = np.array([1, 39, 0, 13, 16, 2])  # wall, otherfurniture, none, a class left out, curtain …
TRIANGLES = 4


def vertices(scene, count=6):
    """Return x, y, z in metres and red, green, blue of a scene."""
    rng = np.random.default_rng([*scene.encode()])
    return rng.uniform(-1, 1, (count, 3)).astype("<f4"), rng.integers(0, 256, (count, 3), "u1")


def mesh(points, colors, labels=None):
    """Return a PLY file as ScanNet's: vertices with colours and alpha, and triangles."""
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    head += [f"property float {axis}" for axis in "xyz"]
    head += [f"property uchar {name}" for name in ("red", "green", "blue", "alpha")]
    fields = [("xyz", "<f4", 3), ("rgb", "u1", 3), ("alpha", "u1")]
    if labels is not None:
        head.append("property ushort label")
        fields.append(("label", "<u2"))
    head += [f"element face {TRIANGLES}", "property list uchar int vertex_indices", "end_header\n"]
    rows = np.zeros(len(points), fields)
    rows["xyz"], rows["rgb"], rows["alpha"] = points, colors, 255
    if labels is not None:
        rows["label"] = labels
    faces = np.zeros(TRIANGLES, [("n", "u1"), ("v", "<i4", 3)])
    faces["n"] = 3
    return "\n".join(head).encode() + rows.tobytes() + faces.tobytes()


def write_released(root, scene, labels=NYU40, count=6):
    """Write a scene as ScanNet releases it; without labels among those to test on."""
    folder = root / ("scans" if labels is not None else "scans_test") / scene
    folder.mkdir(parents=True)
    points, colors = vertices(scene, count)
    (folder / f"{scene}_vh_clean_2.ply").write_bytes(mesh(points, colors))
    if labels is not None:
        file = folder / f"{scene}_vh_clean_2.labels.ply"
        file.write_bytes(mesh(points, colors, labels))
    return folder


def write_processed(root, split, scene, labels=(0, 19, -1, -1, 13, 1)):
    """Write a scene as Pointcept does."""
    folder = root / split / scene
    folder.mkdir(parents=True)
    points, colors = vertices(scene)
    np.save(folder / "coord.npy", points)
    np.save(folder / "color.npy", colors)
    np.save(folder / "normal.npy", np.tile(np.array([0, 0, 1], "f4"), (len(points), 1)))
    if labels is not None:
        np.save(folder / "segment20.npy", np.array(labels, "i2"))
        np.save(folder / "segment200.npy", np.array(labels, "i2"))
    return folder


def write_splits(root):
    """Write scenes as released for every split, and the lists of them."""
    for scene in ("scene0000_00", "scene0000_01", "scene0001_00"):
        write_released(root, scene)
    tested = [f"scene{number:04d}_00" for number in range(707, 807)]
    for number, scene in enumerate(tested):
        write_released(root, scene, labels=None, count=6 + 3 * (number % 2))
    for split, scenes in {"train": "scene0000_01\nscene0000_00\n", "val": "scene0001_00\n",
                          "test": "\n".join(tested)}.items():  # fmt: skip
        (root / f"scannetv2_{split}.txt").write_text(scenes)
    return root
