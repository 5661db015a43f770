"""Shards: what was written is what is read, each once; what is missing or damaged is told."""

import gc
import json
import tarfile
import warnings
from collections import Counter
from contextlib import closing
from dataclasses import replace
from time import sleep

import numpy as np
import pytest
import torch

from geonorm.datasets import (
    ClassFolders,
    ClipDataset,
    ClipShards,
    Scan,
    ScanShards,
    SemanticKITTI,
    progress,
)
from geonorm.datasets.clip_shards import write_clip_shards
from geonorm.datasets.scan_shards import write_scan_shards
from geonorm.datasets.shards import Shards, write_shards
from geonorm.training.sampler import EpochLoader, EpochSampler
from helpers.semantickitti_trees import write_labelled
from helpers.video_files import encode, numbered_film

webdataset = pytest.importorskip("webdataset")


class Odd(torch.utils.data.Dataset):
    """Scans with everything that a scan may have, and one with nothing but points."""

    classes, colors, ignore_index = ("a", "b"), np.eye(2, 3, dtype=np.uint8) * 200, 255

    def __len__(self):
        return 7

    def set_epoch(self, epoch):
        pass

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        points = rng.normal(size=(20 + index, 3)).astype(np.float32)
        bare = Scan(points, None, None, f"sequence/{index}")
        if index == 3:
            return bare
        color, echo = rng.random((20 + index, 3)), rng.integers(1, 3, (20 + index, 1))
        kept = np.ones(30 + index, dtype=bool)
        kept[:10] = False
        return replace(
            bare, intensity=rng.random(20 + index).astype(np.float32), dropped=10, kept=kept,
            labels=rng.choice([0, 1, 255 if index else 300], 20 + index), offset=(0.1, 2e6, -3.0),
            extra={"color": color.astype(np.float32), "echo": echo.astype(np.float32)},
            domain=index % 2,
        )  # fmt: skip


def assert_same(scan, other):
    for name in ("points", "intensity", "labels", "kept"):
        mine, its = getattr(scan, name), getattr(other, name)
        assert (mine is None) == (its is None), name
        if mine is not None:
            assert mine.dtype == its.dtype
            np.testing.assert_array_equal(mine, its)
    assert scan.extra.keys() == other.extra.keys()
    for name, values in scan.extra.items():
        np.testing.assert_array_equal(values, other.extra[name])
    for name in ("name", "dropped", "offset", "domain"):
        assert getattr(scan, name) == getattr(other, name)


@pytest.mark.parametrize("workers", [0, 2])
def test_scans_come_back_to_the_bit(tmp_path, workers):
    data = Odd()
    assert write_scan_shards(data, tmp_path / "train", size=3, workers=workers) == 3
    shards = ScanShards(tmp_path)
    assert len(shards) == 7
    assert shards.classes == data.classes
    np.testing.assert_array_equal(shards.colors, data.colors)
    for index in range(7):
        assert_same(data[index], shards[index])


def test_webdataset_reads_them(tmp_path):
    write_scan_shards(Odd(), tmp_path / "train", size=4)
    urls = sorted(map(str, tmp_path.glob("train/*.tar")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files open
        read = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
        gc.collect()
    assert [each["__key__"] for each in read] == [f"{number:08d}" for number in range(7)]
    for index, each in enumerate(read):
        np.testing.assert_array_equal(each["points.npy"], Odd()[index].points)
        assert each["json"]["name"] == f"sequence/{index}"


@pytest.fixture
def kitti(tmp_path):
    write_labelled(tmp_path / "kitti")
    return SemanticKITTI(tmp_path / "kitti", "train")


def names_of(dataset, rank, epoch):
    sampler = EpochSampler(dataset, True, 5, rank, 2)
    sampler.set_epoch(epoch)
    loader = EpochLoader(dataset, 2, sampler=sampler, num_workers=2, collate_fn=list)
    return [scan.name for batch in loader for scan in batch]


def test_two_workers_of_two_processes_see_each_scan_once_per_epoch(kitti, tmp_path):
    """In the order in which they see the loose files."""
    write_scan_shards(kitti, tmp_path / "shards/train", size=3)
    shards = ScanShards(tmp_path / "shards")
    orders = []
    for epoch in (0, 1):
        seen = [names_of(shards, rank, epoch) for rank in (0, 1)]
        assert Counter(seen[0] + seen[1]) == Counter(scan.name for scan in map(
            kitti.__getitem__, range(10)))  # fmt: skip
        assert len(seen[0]) == len(seen[1]) == 5
        assert seen[0] == names_of(kitti, 0, epoch)
        orders.append(seen)
    assert orders[0] != orders[1]


class Members:
    """Samples of one member, which count how often they are made."""

    def __init__(self, fails_at=None):
        self.made, self.fails_at = [], fails_at

    def __call__(self, number):
        if number == self.fails_at:
            raise OSError("stopped")
        self.made.append(number)
        return {"bin": bytes([number]) * 100}


def test_a_writing_that_was_stopped_goes_on(tmp_path):
    first = Members(fails_at=7)
    with pytest.raises(OSError, match="stopped"):
        write_shards(tmp_path, "scans", first, 10, {}, size=3)
    assert first.made == [0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match=r"no index.json .*write-shards has not finished there"):
        Shards(tmp_path, "scans")
    shard = tmp_path / "shard-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(bytes([4]) * 100, bytes([9]) * 100))  # its length is the same
    again = Members()
    assert write_shards(tmp_path, "scans", again, 10, {}, size=3) == 3
    assert again.made == [3, 4, 5, 6, 7, 8, 9]
    assert shard.read_bytes() == whole
    assert [sample.read() for sample in Shards(tmp_path, "scans").samples] == [
        {"bin": bytes([number]) * 100} for number in range(10)
    ]
    names = {"index.json", "writing.json"} | {
        f"shard-{n:06d}.{end}" for n in range(4) for end in ("tar", "json")
    }
    assert {path.name for path in tmp_path.iterdir()} == names
    assert write_shards(tmp_path, "scans", Members(fails_at=0), 10, {}, size=3) == 0


def test_what_is_wrong_with_shards_is_told(tmp_path):
    write = Members()
    with pytest.raises(ValueError, match="expected samples, and at least 1 in a shard; got 0 and"):
        write_shards(tmp_path, "scans", write, 0, {})
    with pytest.raises(ValueError, match=r"expected samples, and at least 1 .* got 5 and 0"):
        write_shards(tmp_path, "scans", write, 5, {}, size=0)
    assert write_shards(tmp_path / "deep" / "one", "scans", write, 1, {}, size=1) == 1
    with pytest.raises(ValueError, match=r"no index.json .*: expected a folder that geonorm"):
        Shards(tmp_path, "scans")
    write_shards(tmp_path, "scans", write, 5, {"classes": ["a"]}, size=2)
    with pytest.raises(ValueError, match=r"holds shards of other data \(about differ\): remove"):
        write_shards(tmp_path, "scans", write, 5, {"classes": ["b"]}, size=2)
    with pytest.raises(ValueError, match="holds shards of scans, version 1; expected clips, vers"):
        Shards(tmp_path, "clips")
    shards = Shards(tmp_path, "scans")
    shard = tmp_path / "shard-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(bytes([3]) * 100, bytes([9]) * 100))
    assert shards.samples[2].read() == {"bin": bytes([2]) * 100}
    with pytest.raises(ValueError, match=r"shard-000001.tar is damaged: the bin at byte \d+ fails"):
        shards.samples[3].read()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"1 of 3 shards in .* are missing or .* shard-000001.tar"):
        Shards(tmp_path, "scans")


@pytest.fixture
def films(tmp_path):
    for number, name in enumerate(("a/0", "a/1", "b/2", "b/3")):
        path = tmp_path / f"films/{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, numbered_film(10 + 3 * number))
    (tmp_path / "films/b/broken.avi").write_bytes(b"no film")
    return ClassFolders(tmp_path / "films")


def test_clips_come_back_to_the_bit(films, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path / "cache"))
    write_clip_shards(films, tmp_path / "shards/train", size=3)
    assert "broken.avi is left out" in caplog.text
    loose = ClipDataset(films, length=4, sampling="random", seed=1)
    monkeypatch.setenv("GEONORM_CACHE", "/proc/none")  # nothing is probed, and nothing kept
    shards = ClipShards(tmp_path / "shards")
    packed = ClipDataset(shards, length=4, sampling="random", seed=1)
    assert packed.classes == ("a", "b")
    assert len(packed) == len(loose) == 4
    assert [packed.rate(n) for n in range(4)] == [loose.rate(n) for n in range(4)]
    for index in range(4):
        mine, its = packed[index], loose[index]
        assert torch.equal(mine.video, its.video)
        assert mine.label == its.label
    with closing(tarfile.open(tmp_path / "shards/train/shard-000001.tar")) as tar:
        assert tar.getnames() == ["00000003.json", "00000003.mp4"]
        told = json.load(tar.extractfile("00000003.json"))
    assert told == {"path": str(tmp_path / "films/b/3.mp4"), "label": 1}


def test_a_damaged_clip_in_a_shard_is_replaced_and_named(films, tmp_path):
    write_clip_shards(films, tmp_path / "shards/train", size=4)
    shards = ClipShards(tmp_path / "shards")
    path, _ = shards.videos[1]
    start, size = map(int, path.stem.split("+"))
    with path.parent.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))
    clips = ClipDataset(shards, length=4, sampling="uniform")
    assert clips[1].video_index == 2
    (report,) = clips.report()
    assert (report.path, report.kind) == (path, "skipped")


def test_long_work_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0.2)
    squares = progress.in_threads(lambda n: sleep(0.1) or n * n, list(range(8)), "squaring", 2)
    assert squares == [0, 1, 4, 9, 16, 25, 36, 49]
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert all(" of 8, 0:00:0" in line and line.startswith("squaring: ") for line in lines)


def test_shards_of_another_version_or_without_a_file_are_refused(tmp_path):
    write_shards(tmp_path, "scans", Members(), 3, {})
    index = tmp_path / "index.json"
    told = json.loads(index.read_text())
    assert (told["version"], told["kind"], told["count"], told["size"]) == (1, "scans", 3, 128)
    index.write_text(json.dumps(told | {"version": 2}))
    with pytest.raises(ValueError, match="holds shards of scans, version 2; expected scans, vers"):
        Shards(tmp_path, "scans")
    index.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"other data \(count, size differ\)"):
        write_shards(tmp_path, "scans", Members(), 4, {}, size=2)
    (tmp_path / "shard-000000.tar").unlink()
    with pytest.raises(ValueError, match=r"1 of 1 shards in .* are missing"):
        Shards(tmp_path, "scans")


def test_scans_are_written_by_the_hundred_and_twenty_eight(tmp_path):
    assert write_scan_shards(Odd(), tmp_path / "train") == 1
    told = json.loads((tmp_path / "train" / "index.json").read_text())
    assert (told["kind"], told["count"], told["size"]) == ("scans", 7, 128)
    assert told["about"] == {"classes": ["a", "b"], "colors": [[200, 0, 0], [0, 200, 0]]}
