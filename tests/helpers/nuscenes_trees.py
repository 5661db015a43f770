"""nuScenes-lidarseg as it is released: its tables, key frames and labels."""

import json

import numpy as np

# As category.json of the release numbers them from 0, which its instructions do not.
CATEGORIES = [
    "noise", "animal",
    *("human.pedestrian." + name for name in (
        "adult", "child", "construction_worker", "personal_mobility", "police_officer", "stroller",
        "wheelchair",
    )),
    "movable_object.barrier", "movable_object.debris", "movable_object.pushable_pullable",
    "movable_object.trafficcone", "static_object.bicycle_rack",
    *("vehicle." + name for name in (
        "bicycle", "bus.bendy", "bus.rigid", "car", "construction", "emergency.ambulance",
        "emergency.police", "motorcycle", "trailer", "truck",
    )),
    "flat.driveable_surface", "flat.other", "flat.sidewalk", "flat.terrain",
    "static.manmade", "static.other", "static.vegetation", "vehicle.ego",
]  # fmt: skip


def write(root, version, scenes, categories=CATEGORIES, labelled=True):
    """Write two key frames of each scene and their tables, and a frame between them."""
    tables = root / version
    (root / "samples/LIDAR_TOP").mkdir(parents=True, exist_ok=True)
    (root / "lidarseg" / version).mkdir(parents=True)
    tables.mkdir()
    named = {"scene": [], "sample": [], "sample_data": [], "lidarseg": [],
             "category": [{"token": name, "name": name, "description": "", "index": index}
                          for index, name in enumerate(categories)]}  # fmt: skip
    for scene in scenes:
        named["scene"].append({"token": f"t{scene}", "name": f"scene-{scene}", "description": ""})
        for key in (1, 0):  # not in the order of time
            token, sample = f"{scene}d{key}", f"{scene}s{key}"
            file = f"samples/LIDAR_TOP/{token}.pcd.bin"
            named["sample"].append({"token": sample, "timestamp": key, "scene_token": f"t{scene}"})
            for kind in ("LIDAR_TOP", "CAM_FRONT", "sweeps"):
                named["sample_data"].append({
                    "token": token if kind == "LIDAR_TOP" else f"{kind}{token}",
                    "sample_token": sample, "timestamp": key, "is_key_frame": kind != "sweeps",
                    "filename": {"LIDAR_TOP": file, "CAM_FRONT": f"samples/CAM_FRONT/{token}.jpg",
                                 "sweeps": f"sweeps/LIDAR_TOP/{token}.pcd.bin"}[kind],
                })  # fmt: skip
            rows(token).tofile(root / file)
            if labelled:
                label = f"lidarseg/{version}/{token}_lidarseg.bin"
                named["lidarseg"].append({"token": token, "sample_data_token": token,
                                          "filename": label})  # fmt: skip
                np.arange(32, dtype="u1").tofile(root / label)
    for name, table in named.items():
        if labelled or name != "lidarseg":
            (tables / f"{name}.json").write_text(json.dumps(table, indent=0))
    return root


def rows(token):
    """Return x, y, z, the intensity up to 255 and the laser of 32 points."""
    rng = np.random.default_rng([*token.encode()])
    return np.column_stack([rng.uniform(-9, 9, (32, 3)), np.arange(32) * 8, np.arange(32)]).astype(
        "<f4"
    )
