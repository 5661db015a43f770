"""Evaluation under shift: what is counted, resampled, left out and kept."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geonorm.datasets import Augmented, Scan, SyntheticStreets
from geonorm.datasets.scan import IGNORE_INDEX
from geonorm.datasets.scan_corruptions import ROBO3D, ScanCorruption, levels
from geonorm.training.segmentation.scores import class_iou
from geonorm.training.shift.bootstrap import resamples
from geonorm.training.shift.cells import Cells
from geonorm.training.shift.evaluate import CLEAN, count_cells, evaluate, scores_of
from geonorm.training.shift.measures import measure
from geonorm.training.shift.run import (
    Options,
    evaluate_checkpoints,
    find_baseline,
    known_corruptions,
    network_names,
    spread,
)
from geonorm.training.shift.scans import ScanTask, beams_of
from geonorm.training.shift.tasks import Judged

pytestmark = pytest.mark.filterwarnings("default")  # as users run it


def knowing(scan):
    """Return the true classes, a network that makes no error."""
    return np.where(scan.labels == IGNORE_INDEX, 0, scan.labels)


def by_height(scan):
    """Return a class by the height of each point alone."""
    return np.digitize(scan.points[:, 2], np.linspace(-2, 4, 10)).astype(np.int64)


def kept(folder, number=1):
    """Return as many files of counts."""
    return [Cells(folder, {"network": each}) for each in range(number)]


def mean_iou(pairs, kinds):
    """Return the mean IoU of (predicted, labels), by sets of points."""
    predicted, labels = map(np.concatenate, zip(*pairs, strict=True))
    predicted, labels = predicted[labels != IGNORE_INDEX], labels[labels != IGNORE_INDEX]
    each = [
        ((predicted == kind) & (labels == kind)).sum()
        / ((predicted == kind) | (labels == kind)).sum()
        for kind in range(kinds) if (labels == kind).any()
    ]  # fmt: skip
    return np.mean(each)


class Given:
    """A dataset of given scans."""

    colors, ignore_index = np.zeros((3, 3), np.uint8), IGNORE_INDEX

    def __init__(self, scans, classes=("floor", "wall", "door")):
        self.scans, self.classes = scans, classes

    def __len__(self):
        return len(self.scans)

    def __getitem__(self, index):
        return self.scans[index]


def room(points=400, seed=0):
    """Return a cloud of a room: neither rings nor intensities."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-3, 3, (points, 3)).astype(np.float32)
    return Scan(places, None, rng.integers(0, 3, points), f"room {seed}")


def test_scores_are_the_mean_iou_of_the_scans_that_augmented_holds(tmp_path):
    streets = SyntheticStreets(3, seed=5)
    task = ScanTask([by_height], streets, beams=32, seed=7)
    names = ["crosstalk", "beam_missing", "motion_blur", "density"]
    (found,), left_out = evaluate(task, kept(tmp_path), [0, 1, 2], names, draws=100)
    assert left_out == {}
    kinds = len(streets.classes)
    scans = [streets[item] for item in range(3)]
    clean = mean_iou([(by_height(scan), scan.labels) for scan in scans], kinds)
    assert found.clean[0] == pytest.approx(clean, rel=1e-12)
    for name in names:
        assert [*found.corrupted[name]] == [*range(1, levels(name) + 1)]
        for level, score in found.corrupted[name].items():
            change = ScanCorruption(name, level, streets.classes, beams=32)
            changed = Augmented(streets, [change], seed=7)
            scans = [changed[item] for item in range(3)]
            expected = mean_iou([(by_height(scan), scan.labels) for scan in scans], kinds)
            assert score[0] == pytest.approx(expected, rel=1e-12)
            assert score[0] != clean


def test_who_makes_no_error_keeps_everything(tmp_path):
    """Corruptions change what is seen, and the labels stay those of the points."""
    task = ScanTask([knowing], SyntheticStreets(2, seed=1), beams=32)
    (found,), left_out = evaluate(task, kept(tmp_path), [0, 1], task.corruptions, draws=100)
    assert left_out == {}
    assert {*found.corrupted} == {*task.corruptions} >= {*ROBO3D}
    assert all((m.retained == 1).all() for m in measure(found).values())


def test_a_resample_is_the_score_of_its_scans_worked_by_hand():
    """Two scans, [[3, 1], [0, 4]] and [[1, 1], [2, 0]]; both, the first twice, the second twice."""
    counts = torch.tensor([[[3, 1], [0, 4]], [[1, 1], [2, 0]]])
    iou = {
        "both": (4 / 8, 4 / 8),
        "first": (3 / 4, 4 / 5),
        "second": (1 / 4, 0 / 3),
    }
    cells = {(item, CLEAN, 0): counts[item].numpy() for item in (0, 1)}
    weights = np.array([[1, 1], [2, 0], [0, 2]])
    found = scores_of(ScanTask([], SyntheticStreets(1)), cells, [0, 1], [], weights)
    assert found.clean == pytest.approx([np.mean(each) for each in iou.values()])
    assert class_iou(counts.sum(0)).tolist() == [4 / 8, 4 / 8]
    cells[1, CLEAN, 0] = np.zeros((2, 2), dtype=np.int64)  # no point of it has a label
    found = scores_of(ScanTask([], SyntheticStreets(1)), cells, [0, 1], [], weights)
    assert found.clean == pytest.approx([np.mean(iou["first"])] * 2 + [np.nan], nan_ok=True)


def test_networks_and_corruptions_share_their_resamples(tmp_path):
    """Duplication changes no IoU of by_height, so that its RR is 1 in every resample."""
    task = ScanTask([by_height, by_height], SyntheticStreets(4, seed=2), beams=32)
    both, _ = evaluate(task, kept(tmp_path, 2), range(4), ["duplication"], draws=200, seed=3)
    assert len(both[0].clean) == 201
    assert both[0].clean[1:].std() > 1e-4
    assert (both[0].clean == both[1].clean).all()
    assert np.allclose(measure(both[0])["duplication"].retained, 1, rtol=0, atol=1e-12)


def test_networks_of_one_description_are_numbered():
    checkpoints = [Path(name) for name in "abcd"]
    titles = ["MinkUNet", "r3d_18", "MinkUNet", "MinkUNet"]
    assert network_names(checkpoints, None, titles) == [
        "MinkUNet", "r3d_18", "MinkUNet (2)", "MinkUNet (3)"]
    with pytest.raises(ValueError, match=r"must be 4 different names.*got a, b, a, c"):
        network_names(checkpoints, [*"abac"], titles)
    with pytest.raises(ValueError, match=r"must be 4 different names.*got a, b, c$"):
        network_names(checkpoints, [*"abc"], titles)


def test_what_does_not_apply_is_named(tmp_path):
    task = ScanTask([knowing], Given([room(seed=0), room(seed=1)]))
    (found,), left_out = evaluate(task, kept(tmp_path), [0, 1], task.corruptions, draws=100)
    assert {*found.corrupted} == {*task.corruptions} - {*left_out}
    assert {"density", "motion_blur", "crosstalk", "cutout"} <= {*found.corrupted}
    for name in ("fog", "snow", "intensity_gain"):
        assert re.search(r"scan room 0 has no feature 'intensity'", left_out[name])
    for name in ("wet_ground", "incomplete_echo"):
        assert re.search(r"got floor, wall, door", left_out[name])
    for name in ("beam_missing", "cross_sensor"):
        assert re.search(r"scan room 0 has no 64 rings", left_out[name])


def test_a_corruption_that_fails_in_a_later_scan_is_left_out_whole(tmp_path):
    street = SyntheticStreets(1, seed=1)[0]
    dark = replace(street, intensity=None, name="dark")
    task = ScanTask([by_height], Given([street, dark], SyntheticStreets.classes), beams=32)
    cells = kept(tmp_path)
    (found,), left_out = evaluate(task, cells, [0, 1], ["fog", "density"], draws=100)
    assert [*found.corrupted] == ["density"]
    assert "scan dark" in left_out["fog"]
    assert (0, "fog", 1) in cells[0]
    again, still = evaluate(task, kept(tmp_path), [0, 1], ["fog", "density"], draws=100)
    assert still == left_out
    assert again[0].clean[0] == found.clean[0]


def test_errors_of_a_network_are_no_reason_to_leave_a_corruption_out(tmp_path):
    def broken(scan):
        raise ValueError("the network is broken")

    task = ScanTask([broken], SyntheticStreets(1), beams=32)
    with pytest.raises(ValueError, match="the network is broken"):
        count_cells(task, kept(tmp_path), [0], ["density"])


def test_nothing_to_judge(tmp_path):
    unlabelled = Given([replace(room(), labels=None)])
    with pytest.raises(ValueError, match=r"scan room 0 has no labels, so nothing can be judged"):
        evaluate(ScanTask([by_height], unlabelled), kept(tmp_path / "a"), [0], ["density"])
    ignored = Given([replace(room(), labels=np.full(400, IGNORE_INDEX))])
    with pytest.raises(ValueError, match=r"not one scan has a label of the network's classes"):
        evaluate(ScanTask([knowing], ignored), kept(tmp_path / "b"), [0], ["density"])
    with pytest.raises(ValueError, match=r"beams must be the rings of the sensor"):
        ScanTask([by_height], ignored, beams=3)


@pytest.mark.parametrize("network", [
    lambda scan: np.full(len(scan), 3), lambda scan: np.full(len(scan), -1),
    lambda scan: np.zeros(len(scan) - 1, dtype=int), lambda scan: np.zeros(len(scan)),
    lambda scan: np.zeros(len(scan) + 1, dtype=int),
], ids=["too high", "negative", "too few", "not whole", "too many"])  # fmt: skip
def test_a_network_must_give_every_point_a_class(network):
    task = ScanTask([network], Given([room()]))
    with pytest.raises(ValueError, match=r"must give each of the 400 points .* one of 3 classes"):
        task.count(0, room())


def test_a_scan_of_which_nothing_is_left_counts_for_nothing(tmp_path):
    """Behind the sensor: no point within 45 degrees of straight ahead."""
    behind, whole = room(), room(seed=1)
    behind.points[:, 0] = -10 - abs(behind.points[:, 0])
    task = ScanTask([knowing], Given([behind, whole]))
    cells = kept(tmp_path)
    count_cells(task, cells, [0, 1], ["field_of_view"])
    assert cells[0][0, "field_of_view", 5].sum() == 0
    assert 0 < cells[0][1, "field_of_view", 5].sum() < 400


def test_a_stopped_count_goes_on_and_gives_the_same(tmp_path):
    """Every cell is counted once, in whatever cell it stopped, and after a line that was cut."""
    streets, names = SyntheticStreets(2, seed=4), ["motion_blur", "density"]
    whole, _ = evaluate(ScanTask([by_height], streets), kept(tmp_path / "a"), [0, 1], names, 100)
    calls = []

    def stopping(scan):
        if len(calls) in (5, 11):
            calls.append("stopped")
            raise KeyboardInterrupt
        calls.append(scan.name)
        return by_height(scan)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate(ScanTask([stopping], streets), kept(tmp_path / "b"), [0, 1], names, 100)
    file, = (tmp_path / "b").iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 10
    file.write_bytes(b"".join(lines)[:-20])
    again, _ = evaluate(ScanTask([stopping], streets), kept(tmp_path / "b"), [0, 1], names, 100)
    assert (again[0].clean == whole[0].clean).all()
    assert again[0].corrupted.keys() == whole[0].corrupted.keys()
    for name in names:
        for level, score in whole[0].corrupted[name].items():
            assert (again[0].corrupted[name][level] == score).all()
    assert len(calls) == 2 * (1 + 3 + 5) + 2 + 1  # the cells, the stops, and the line that was cut
    evaluate(ScanTask([stopping], streets), kept(tmp_path / "b"), [0, 1], names, 100)
    assert len(calls) == 21


def test_a_damaged_line_is_refused_and_another_header_is_another_file(tmp_path):
    one, other = {"checkpoint": "a", "seed": 1}, {"seed": 1, "checkpoint": "a"}
    below = tmp_path / "not" / "yet"
    assert Cells(below, one).path == Cells(below, other).path
    told = hashlib.sha256(b'{"checkpoint": "a", "seed": 1}').hexdigest()  # as earlier versions have
    assert Cells(below, one).path == below / f"{told[:16]}.jsonl"
    cells = Cells(tmp_path, {"checkpoint": "a"})
    cells.add((0, "fog", 1), np.eye(2, dtype=np.int64))
    assert (0, "fog", 1) not in Cells(tmp_path, {"checkpoint": "b"})
    again = Cells(tmp_path, {"checkpoint": "a"})
    assert (again[0, "fog", 1] == np.eye(2)).all()
    assert (0, "fog", 1) not in Cells(tmp_path, {"checkpoint": "a"}, resume=False)
    before = cells.path.read_text()
    for line in ("nonsense", "3", '[0, "fog", 1]'):
        cells.path.write_text(f"{before}{line}\n")
        with pytest.raises(ValueError, match=r"is damaged in line 2 .*--resume false"):
            Cells(tmp_path, {"checkpoint": "a"})


def test_of_each_network_what_lacks_is_counted_and_every_scan_is_read_once(tmp_path, capsys):
    read, seen = [], ([], [])

    class Watched(Given):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    def network(number):
        return lambda scan: seen[number].append(scan.name) or np.zeros(len(scan), dtype=int)

    task = ScanTask([network(0), network(1)], Watched([room(seed=0), room(seed=1)]))
    cells = kept(tmp_path, 2)
    nothing = np.zeros((3, 3), dtype=np.int64)
    for number, cell in ((0, (0, CLEAN, 0)), (1, (0, CLEAN, 0)), (0, (1, "density", 2))):
        cells[number].add(cell, nothing)
    assert count_cells(task, cells, [0, 1], ["density"]) == {}
    assert "1 of 12 cells were counted before" in capsys.readouterr().out
    assert read == [0, 1]
    assert [len(each) for each in seen] == [10, 11]
    assert (cells[0][1, "density", 2] == 0).all()
    assert (cells[1][1, "density", 2] != 0).any()


def test_items_and_groups_of_an_evaluation(tmp_path):
    rooms = Given([room(seed=number) for number in range(3)])
    judged = Judged(ScanTask([knowing], rooms), ["a network"], "mIoU", 3, 2, {"told": 7})
    checkpoint = tmp_path / "a.ckpt"
    checkpoint.write_bytes(b"weights")

    def evaluated(*corruptions, **options):
        return evaluate_checkpoints(
            judged, [checkpoint], tmp_path / "out",
            Options(corruptions=corruptions, resamples=100, **options),
        )  # fmt: skip

    found = evaluated("density", "motion_blur")
    assert found.groups == {"Robo3D": ["motion_blur"], "others": ["density"]}
    assert (found.sizes, found.score, found.baseline) == ({"Robo3D": 8}, "mIoU", None)
    about = {name: found.about[name] for name in ("samples", "of", "unit", "resamples", "told")}
    assert about == {"samples": 2, "of": 3, "unit": "scan", "resamples": 100, "told": 7}
    assert found.about["checkpoints"]["a network"]["file"] == str(checkpoint)
    assert len(found.networks["a network"].clean) == 101
    assert evaluated("density", samples="all").about["samples"] == 3
    assert evaluated("density", samples=1).about["samples"] == 1
    assert [*evaluated("density").groups] == ["others"]
    with pytest.raises(ValueError, match=r"not one corruption applies to these data: fog: scan"):
        evaluated("fog")


def test_a_baseline_is_a_name_a_checkpoint_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, files = ["one", "two"], [Path("a.ckpt"), Path("b.ckpt")]
    (tmp_path / "base.csv").write_text("corruption,level,score\nclean,,0.8\nfog,1,0.5\n")
    assert find_baseline(None, names, files, ["fog"]) is None
    assert find_baseline("two", names, files, ["fog"]) == "two"
    assert find_baseline(str(tmp_path / "b.ckpt"), names, files, ["fog"]) == "two"
    name, scores = find_baseline("base.csv", names, files, ["fog"])
    assert (name, scores.clean.tolist()) == ("base", [0.8])
    assert network_names(files, names, ["", ""]) == names
    with pytest.raises(ValueError, match=r"must be a CSV file of scores or one.*got 'base\.txt'"):
        find_baseline("base.txt", names, files, ["fog"])
    with pytest.raises(ValueError, match="each checkpoint must be given once"):
        network_names([files[0], tmp_path / "a.ckpt"], names, ["", ""])


def test_items_corruptions_and_beams_that_are_chosen():
    assert spread(24, 16) == [round(23 * i / 15) for i in range(16)]
    assert spread(5, "all") == spread(5, 9) == [0, 1, 2, 3, 4]
    task = ScanTask([], SyntheticStreets(1))
    assert known_corruptions(task, ["density", "fog"]) == ["fog", "density"]
    assert known_corruptions(task, None) == known_corruptions(task, []) == [*task.corruptions]
    assert beams_of(SyntheticStreets(1, sensor="mast64")) == 64
    assert beams_of(SyntheticStreets(1)) == 32
    assert beams_of(type("NuScenes", (Given,), {})([])) == 32
    assert beams_of(type("SemanticPOSS", (Given,), {})([])) == 40
    assert beams_of(Given([])) == 64
    assert (resamples(4, 100, 0) == resamples(4, 100, 0)).all()
