"""Maps between label sets: every id as published, by hand; two sets never mix.

Those of nuScenes are tested beside its tables, in test_nuscenes.py.
"""

import json
import re

import numpy as np
import pytest

from geonorm.datasets import (
    JoinedScans,
    NuScenes,
    SemanticKITTI,
    SemanticPOSS,
    SemanticSTF,
    SynLiDAR,
)
from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.label_map import in_words, label_maps, mapped, maps_of
from geonorm.datasets.semantickitti import IGNORED_RAW_IDS
from helpers.segmentation_runs import run_config
from helpers.semantickitti_trees import write_tested
from helpers.sequence_trees import train_ids_of, write_scan, write_synlidar

KITTI = [10, 11, 13, 15, 16, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 60, 70, 71, 72, 80, 81,
         252, 253, 254, 255, 256, 257, 258, 259, *IGNORED_RAW_IDS]  # fmt: skip
# {published number: ids}, those of DGLSS from 1, those of LiDOG and SemanticKITTI from 0.
DGLSS = {
    "SemanticKITTI": {1: [10, 252], 2: [11], 3: [15], 4: [18, 258],
                      5: [13, 16, 20, 256, 257, 259], 6: [30, 254], 7: [40, 44, 60], 8: [48],
                      9: [72], 10: [70, 71]},
    # Trunks and plants are 9, terrain: as published, against all the others.
    "SemanticPOSS": {1: [7], 2: [21], 6: [4, 5], 7: [22], 9: [8, 9]},
}  # fmt: skip
LIDOG = {
    "SemanticKITTI": {0: [10, 252], 1: [30, 254], 2: [40, 44, 60], 3: [48], 4: [72],
                      5: [50, 51, 80, 81], 6: [70, 71]},
    "SynLiDAR": {0: [1, 2], 1: [12, 13, 14, 15], 2: [8, 10], 3: [9], 4: [22],
                 5: [18, 23, 24, 26], 6: [20, 21]},
}  # fmt: skip
SYNLIDAR_AS_KITTI = {0: [1], 1: [5], 2: [6], 3: [2, 3], 4: [4, 7], 5: [12, 13, 14, 15], 6: [16],
                     7: [17], 8: [8], 9: [10], 10: [9], 11: [11], 12: [18], 13: [26], 14: [20],
                     15: [21], 16: [22], 17: [24], 18: [23]}  # fmt: skip
STREETS = {"SemanticKITTI": (SemanticKITTI, KITTI), "SemanticPOSS": (SemanticPOSS, [*range(23)]),
           "SynLiDAR": (SynLiDAR, [*range(33)])}  # fmt: skip
CASES = [
    *(("dglss", dataset, 1, table) for dataset, table in DGLSS.items()),
    *(("lidog", dataset, 0, table) for dataset, table in LIDOG.items()),
    ("semantickitti", "SynLiDAR", 0, SYNLIDAR_AS_KITTI),
]


@pytest.mark.parametrize(("name", "dataset", "first", "published"), CASES)
def test_every_id_has_its_published_class(tmp_path, name, dataset, first, published):
    """One point of each id that the dataset has, read from a label file."""
    kind, raw = STREETS[dataset]
    write_scan(tmp_path / "sequences", "00", 0, raw, 5)
    expected = {id_: number - first for number, ids in published.items() for id_ in ids}
    assert set(expected) < set(raw)
    dataset = kind(tmp_path, ["00"], label_map=name)
    assert train_ids_of(dataset, raw) == {id_: expected.get(id_, 255) for id_ in raw}
    assert dataset.classes == tuple(label_maps()[name].classes)
    assert [tuple(rgb) for rgb in dataset.colors.tolist()] == [*label_maps()[name].classes.values()]
    assert kind(tmp_path, ["00"]).classes == kind.classes


def test_classes_by_name():
    dglss, lidog = label_maps()["dglss"], label_maps()["lidog"]
    assert [*dglss.classes] == ["car", "bicycle", "motorcycle", "truck", "other-vehicle",
                                "pedestrian", "drivable-surface", "sidewalk", "terrain",
                                "vegetation"]  # fmt: skip
    assert [*lidog.classes] == ["vehicle", "person", "road", "sidewalk", "terrain", "manmade",
                                "vegetation"]  # fmt: skip
    assert [*label_maps()["semantickitti"].classes] == [*SemanticKITTI.classes]


def test_colours_are_those_of_semantickitti():
    """Of the class of that name, or of what is most of it."""
    same = {"pedestrian": "person", "vehicle": "car", "manmade": "building",
            "drivable-surface": "road"}  # fmt: skip
    kitti = label_maps()["semantickitti"].classes
    for each in (label_maps()["dglss"], label_maps()["lidog"]):
        assert {**each.classes} == {name: kitti[same.get(name, name)] for name in each.classes}


def test_plants_of_semanticposs_are_terrain_as_published():
    poss, kitti = (label_maps()["dglss"].ids[name] for name in ("SemanticPOSS", "SemanticKITTI"))
    assert (poss["terrain"], poss["vegetation"]) == ([8, 9], [])
    assert kitti["vegetation"] == [70, 71]  # vegetation and trunk
    assert "plants as terrain" in " ".join(SemanticPOSS.__doc__.split())


def test_semanticstf_has_the_classes_of_semantickitti(tmp_path):
    for kind in ("velodyne", "labels"):
        (tmp_path / "val" / kind).mkdir(parents=True)
    np.random.default_rng(0).uniform(0, 1, (21, 5)).astype("<f4").tofile(
        tmp_path / "val/velodyne/a.bin"
    )
    np.arange(21, dtype="<u4").tofile(tmp_path / "val/labels/a.label")
    dataset = SemanticSTF(tmp_path, "val", label_map="semantickitti")
    assert dataset[0].labels.tolist() == [255, *range(19), 255]
    assert dataset.classes == SemanticKITTI.classes


def test_unknown_ids_stay_unknown(tmp_path):
    write_scan(tmp_path, "00", 0, [1, 40, 40])
    with pytest.raises(ValueError, match=r"class id 40 \(2 points\), which SynLiDAR does not have"):
        SynLiDAR(tmp_path, ["00"], label_map="lidog")[0]


def test_every_dataset_says_which_maps_it_has(tmp_path):
    assert {kind.__name__: kind.label_maps for kind in
            (NuScenes, SemanticKITTI, SemanticPOSS, SemanticSTF, SynLiDAR)} == {
        "NuScenes": ("dglss", "lidog"), "SemanticKITTI": ("dglss", "lidog", "semantickitti"),
        "SemanticPOSS": ("dglss",), "SemanticSTF": ("semantickitti",),
        "SynLiDAR": ("lidog", "semantickitti"),
    }  # fmt: skip
    assert maps_of("ScanNet") == ()
    for kind in (SemanticPOSS, SynLiDAR, SemanticKITTI, NuScenes, SemanticSTF):
        with pytest.raises(ValueError, match=r"has no label map 'dgls'; choose from \['.*'\]"):
            kind(tmp_path, label_map="dgls")
    with pytest.raises(ValueError, match=r"SemanticPOSS has no label map 'lidog'.*\['dglss'\]"):
        SemanticPOSS(tmp_path, label_map="lidog")
    with pytest.raises(ValueError, match=r"rooms has no label map 'lidog'; it has none"):
        mapped(LabelIds("rooms", [("wall", (0, 0, 0), (1,))], ()), "lidog")


@pytest.mark.parametrize("name", label_maps())
def test_files_are_whole(name):
    """Each class stands in every dataset, no id stands twice, and the source is named."""
    each = label_maps()[name]
    assert re.search(r"et al\..*20\d\d", each.source)
    for dataset, ids in each.ids.items():
        assert [*ids] == [*each.classes], dataset
        listed = [id_ for row in ids.values() for id_ in row]
        assert len(listed) == len(set(listed)) > 0, dataset


def test_no_two_sets_have_the_same_classes():
    """What a table is of is known by its classes."""
    own = [SemanticPOSS.classes, SynLiDAR.classes, NuScenes.classes]
    sets = [*own, *(tuple(each.classes) for each in label_maps().values())]
    assert len(sets) == len(set(sets))


def test_in_words():
    assert in_words(label_maps()["lidog"].classes) == (
        "LiDOG's vehicle, person, road, sidewalk, terrain, manmade, vegetation"
    )
    assert in_words(["car", "road"]) == "car, road"


@pytest.fixture
def streets(tmp_path):
    """Return a folder that holds sequences of SemanticKITTI, the test sequences too."""
    for sequence in range(22):
        write_scan(tmp_path / "kitti/sequences", f"{sequence:02d}", 0, KITTI)
    return tmp_path / "kitti"


def test_a_map_takes_the_place_of_the_benchmark(tmp_path):
    write_tested(tmp_path)
    assert SemanticKITTI(tmp_path, "test").submission is not None
    assert SemanticKITTI(tmp_path, "test", label_map="semantickitti").submission is not None
    assert SemanticKITTI(tmp_path, "test", label_map="dglss").submission is None


def test_two_sets_never_mix(streets, tmp_path):
    """Neither of training and validation, nor of a checkpoint and what it is tested on."""
    run = tmp_path / "run"
    small = ("--data.voxel_size=0.8", "--data.clip_range=null")
    run_config("semantickitti", streets, run, *small, "--data.label_map=dglss")
    assert list(json.loads((run / "val.json").read_text())["iou"]) == [
        *label_maps()["dglss"].classes
    ]
    with pytest.raises(ValueError, match=r"got DGLSS's car, .* and LiDOG's vehicle, person"):
        run_config("semantickitti", streets, tmp_path / "mixed",
                   "--data.train.init_args.label_map=dglss",
                   "--data.val.init_args.label_map=lidog")  # fmt: skip
    checkpoint = f"--ckpt_path={run}/checkpoints/last.ckpt"
    with pytest.raises(ValueError, match=r"knows the classes DGLSS's car.*the data have LiDOG's"):
        run_config("semantickitti", streets, run, checkpoint, "--data.label_map=lidog",
                   subcommand="validate")  # fmt: skip
    with pytest.raises(ValueError, match=r"knows the classes DGLSS's.*data have SemanticKITTI's c"):
        run_config("semantickitti", streets, run, checkpoint, subcommand="validate")


def test_joined_datasets_have_one_set(streets, tmp_path):
    write_synlidar(tmp_path / "syn")
    kitti = SemanticKITTI(streets, "val", label_map="lidog")
    joined = JoinedScans([kitti, SynLiDAR(tmp_path / "syn", "val", label_map="lidog")])
    assert [{*joined[i].labels.tolist()} for i in range(2)] == [{*range(7), 255}] * 2
    with pytest.raises(ValueError, match=r"got LiDOG's vehicle, .* and SemanticKITTI's car, bicyc"):
        JoinedScans([kitti, SynLiDAR(tmp_path / "syn", "val", label_map="semantickitti")])


def test_trained_on_one_dataset_and_validated_on_another(streets, tmp_path):
    write_synlidar(tmp_path / "syn")
    arguments = ("--data.voxel_size=0.8", "--data.root=null", "--data.label_map=semantickitti",
                 f"--data.train.init_args.root={tmp_path / 'syn'}",
                 "--data.val=geonorm.datasets.semantickitti.SemanticKITTI",
                 f"--data.val.init_args.root={streets}",
                 "--data.val.init_args.split=val")  # fmt: skip
    run_config("synlidar", streets, tmp_path / "run", *arguments)
    scores = json.loads((tmp_path / "run" / "val.json").read_text())
    assert list(scores["iou"]) == list(SemanticKITTI.classes)


def test_datasets_without_maps_say_so(tmp_path):
    with pytest.raises(ValueError, match=r"dataset to train takes no label map .*ScanNet.*leave"):
        run_config("scannet", tmp_path, tmp_path / "run", "--data.label_map=dglss")
