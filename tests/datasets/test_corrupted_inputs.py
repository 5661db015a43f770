"""Broken files, hundreds of them, through every reader: refused in words or counted, no crash."""

import logging
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from geonorm.datasets import VideoSet, read_scan
from geonorm.datasets.clips import ClipDataset
from geonorm.datasets.semantickitti import SemanticKITTI
from geonorm.datasets.video_index import video_index
from geonorm.datasets.video_io import decoded_frames, read_frames
from geonorm.datasets.video_probe import probe
from geonorm.models import load_checkpoint
from helpers.broken_files import broken, outcome
from helpers.scan_writers import rows, write
from helpers.video_files import encode, numbered_film


@pytest.fixture
def kitti(tmp_path):
    """Return a SemanticKITTI folder of one scan of 200 points, and its two files."""
    rng = np.random.default_rng(0)
    files = [tmp_path / "sequences/00" / name for name in ("velodyne/0.bin", "labels/0.label")]
    for file in files:
        file.parent.mkdir(parents=True)
    rng.uniform([-50, -50, -3, 0], [50, 50, 3, 1], (200, 4)).astype("<f4").tofile(files[0])
    rng.choice([0, 10, 40, 70], 200).astype("<u4").tofile(files[1])
    return tmp_path, files


@pytest.mark.parametrize("clip_range", [None, [-35.2, -35.2, -4, 35.2, 35.2, 2]])
@pytest.mark.parametrize("which", [0, 1], ids=["bin", "label"])
def test_scans(kitti, which, clip_range):
    collate_scans = pytest.importorskip("geonorm.datasets.voxelize").collate_scans
    root, files = kitti

    def read():
        scan = SemanticKITTI(root, ["00"])[0]
        assert np.isfinite(scan.points).all()
        assert set(np.unique(scan.labels)) <= {*range(19), 255}
        assert 4 * 4 * (len(scan) + scan.dropped) == files[0].stat().st_size
        batch = collate_scans([scan], 0.1, clip_range)
        assert torch.isfinite(batch.features).all()
        assert len(batch.inverse) == len(scan)

    whole = files[which].read_bytes()
    outcomes = Counter()
    for data in broken(whole, 40):
        files[which].write_bytes(data)
        outcomes[outcome(read)] += 1
    assert outcomes["read"] >= 1
    assert outcomes["refused"] >= 3


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 255])
def test_values_of_a_scan(kitti, column, value):
    """NaN and infinity are dropped and counted; a place or intensity beyond reason is refused."""
    collate_scans = pytest.importorskip("geonorm.datasets.voxelize").collate_scans
    root, files = kitti
    rows = np.fromfile(files[0], "<f4").reshape(-1, 4)
    rows[3, column] = value
    rows.tofile(files[0])
    if column == 3 and abs(value) > 1 and np.isfinite(value):
        with pytest.raises(ValueError, match=r"00/0: intensity must be in \[0, 1\]; got .* to "):
            SemanticKITTI(root, ["00"])[0]
        return
    scan = SemanticKITTI(root, ["00"])[0]
    assert scan.dropped == int(not np.isfinite(value))
    assert len(scan) + scan.dropped == 200
    if np.isfinite(value) and abs(value) > 1e30:
        with pytest.raises(ValueError, match=r"scan 00/0 has a point at .*give a clip_range"):
            collate_scans([scan], 0.1)
    batch = collate_scans([scan], 0.1, [-40, -40, -4, 40, 40, 2])
    assert batch.point_features.abs().max() <= 2


@pytest.mark.filterwarnings("ignore:.*(so far away|lies about|no intensity):UserWarning")
@pytest.mark.parametrize("count", [40])
@pytest.mark.parametrize("name", ["a.bin", "a.npy", "a.ply", "a.pcd", "text.ply", "text.pcd"])
def test_scans_to_predict(tmp_path, name, count):
    file = write(tmp_path / name, rows(200), **({"text": True} if "text" in name else {}))
    outcomes = Counter()

    def read():
        scan = read_scan(file)
        assert np.isfinite(scan.points).all()
        assert 0 <= scan.intensity.min() <= scan.intensity.max() <= 1
        assert (scan.kept is None) == (scan.dropped == 0)

    for data in broken(file.read_bytes(), count):
        file.write_bytes(data)
        outcomes[outcome(read)] += 1
    assert outcomes["refused"] >= count // 3


class Small(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Linear(60, 80)  # so that most bytes of its file are weights
        self.norm = nn.BatchNorm1d(80)


@pytest.mark.parametrize("form", ["zip", "legacy", "of a run"])
def test_checkpoints(tmp_path, form):
    """Refused and nothing changed, or loaded to the bit."""
    reader = None
    if form == "of a run":
        pytest.importorskip("lightning")
        from geonorm.training.checkpoints import read_run_checkpoint as reader
    trained = Small(1).state_dict()
    file = tmp_path / "last.ckpt"
    torch.save(
        {"state_dict": trained, "epoch": 3}, file, _use_new_zipfile_serialization=form != "legacy"
    )
    outcomes = Counter()
    for data in broken(file.read_bytes(), 40):
        file.write_bytes(data)
        model, pristine = Small(2), Small(2).state_dict()

        def read(model=model):
            load_checkpoint(model, reader(file) if reader else file)

        what = outcome(read)
        outcomes[what] += 1
        state = model.state_dict()
        expected = trained if what == "read" else pristine
        if form != "legacy":  # which holds no checksums
            assert all(torch.equal(state[key], expected[key]) for key in state)
        assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt"}
    assert outcomes["refused"] >= 20


VIDEOS = {
    "a.mp4": {"codec": "libx264", "options": {"g": "5"}},
    "a.avi": {"codec": "mpeg4", "options": {"g": "5"}},
    "a.mkv": {"codec": "libx264", "options": {"bf": "0"}},
}


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(tmp_path, name, caplog):
    caplog.set_level(logging.CRITICAL)
    file = encode(tmp_path / name, numbered_film(12), **VIDEOS[name])
    whole = file.read_bytes()
    broken_files = []
    outcomes = Counter()
    for number, data in enumerate(broken(whole, 30)):
        path = file.with_stem(str(number))
        path.write_bytes(data)
        broken_files.append(path)
        for info in (None, "probed"):

            def read(path=path, info=info):
                frames = read_frames(path, [0, 7], size=(8, 16), info=info and probe(path))
                assert frames.video.shape == (2, 8, 16, 3)
                assert frames.video.dtype == np.uint8

            outcomes[outcome(read)] += 1
        outcome(decoded_frames, path)
    assert min(outcomes["read"], outcomes["refused"]) >= 5
    check_clips(tmp_path, broken_files, file)


def check_clips(folder, broken_files, good):
    """A dataset of the broken files and a whole one gives a clip for every item, and counts."""
    videos = VideoSet([(path, 0) for path in (*broken_files[:15], good, *broken_files[15:])], "a")
    data = ClipDataset(videos, length=3, size=(8, 16), cache=folder / "cache")
    assert all(data[index].video.shape == (3, 3, 8, 16) for index in range(len(data)))
    reported = {entry.path: entry.kind for entry in data.report()}
    assert len(data) + list(reported.values()).count("left out") == len(videos)
    undecodable = {path for path in broken_files if outcome(read_frames, path, [0]) == "refused"}
    assert undecodable <= reported.keys()
    assert good not in reported
    assert [file.suffix for file in (folder / "cache").iterdir()] == [".json"]


def test_a_broken_index_of_videos_is_made_anew(tmp_path):
    file = encode(tmp_path / "a.mp4", numbered_film(12), codec="libx264")
    videos, cache = [file, tmp_path / "none.mp4"], tmp_path / "cache"
    whole = video_index(videos, cache)
    [kept] = cache.iterdir()
    data = kept.read_bytes()
    for cut in range(0, len(data), 7):
        kept.write_bytes(data[:cut])
        again = video_index(videos, cache)
        assert (again[0], str(again[1])) == (whole[0], str(whole[1]))
        assert kept.read_bytes() == data
