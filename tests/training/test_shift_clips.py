"""Videos in evaluate-shift: what is judged, under which corruption, and mPC and rPC of it."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from train_action import main as train

from geonorm.__main__ import main as command
from geonorm.datasets import ClassFolders, ClipCorruption, ClipDataset, ClipTransform, clip_codecs
from geonorm.datasets.clip_corruptions import MINI_KINETICS_C
from geonorm.datasets.video_io import write_video
from geonorm.training.shift.bootstrap import resamples
from geonorm.training.shift.cells import Cells
from geonorm.training.shift.clips import ClipTask
from geonorm.training.shift.evaluate import evaluate
from geonorm.training.shift.measures import Scores, mean_over, measure
from helpers.action_runs import QUICK

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}
NAMES = ["contrast", "brightness", "saturate", "shot_noise"]


@pytest.fixture
def films(tmp_path):
    """Return films of two classes: red above 90 on average, and below."""
    rng = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / "films" / ("bright" if number % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        middle = 70 + 40 * (number % 2) - 3 * number
        film = (middle + 30 * rng.standard_normal((12, 40, 48, 3))).clip(0, 255).astype(np.uint8)
        write_video(folder / f"{number}.mp4", film)
    return ClassFolders(tmp_path / "films")


def clips(films, tmp_path, shift=None, **options):
    transform = ClipTransform(32, train=False, shift=shift, **PLAIN)
    return ClipDataset(films, length=4, sampling="uniform", transform=transform,
                       cache=tmp_path / "cache", **options)  # fmt: skip


def by_red(video: torch.Tensor) -> torch.Tensor:
    """Tell the classes, bright and dark, by the mean of red."""
    red = video[:, 0].mean((1, 2, 3))
    return torch.stack([red - 0.3, 0.3 - red], 1)


def by_contrast(video: torch.Tensor) -> torch.Tensor:
    """Tell them, badly, by the spread."""
    spread = video.flatten(1).std(1)
    return torch.stack([spread - 0.117, 0.117 - spread], 1)


def test_a_corrupted_clip_is_the_one_that_a_dataset_with_the_shift_holds(films, tmp_path):
    task = ClipTask([by_red], clips(films, tmp_path), seed=3)
    rate = 25 * 4 / 12
    for name, level in (("shot_noise", 4), ("rain", 2), ("frame_rate", 5), ("h264_crf", 3)):
        for item in (0, 5):
            got = task.corrupt(task.read(item), item, name, level).video
            shift = ClipCorruption(name, level, fps=rate)
            expected = clips(films, tmp_path, shift, seed=3)[item].video
            assert torch.equal(task.transform(got, (3, 0, item)), expected)


def test_scores_and_mpc_and_rpc_are_those_of_a_loop(films, tmp_path):
    """Two networks, every clip on its own: the share right, its mean over levels and over all."""
    networks = [by_red, by_contrast]
    task = ClipTask(networks, clips(films, tmp_path))
    kept = [Cells(tmp_path / "kept", {"network": number}) for number in range(2)]
    found, left_out = evaluate(task, kept, range(8), NAMES, draws=200)
    assert not left_out

    def share(network, shift=None):
        data = clips(films, tmp_path, shift)
        return np.mean([int(network(data[i].video[None]).argmax()) == data[i].label
                        for i in range(8)])  # fmt: skip

    for network, scores in zip(networks, found, strict=True):
        clean = share(network)
        assert scores.clean[0] == clean
        levels = np.array([
            [share(network, ClipCorruption(name, level, fps=25 * 4 / 12)) for level in range(1, 6)]
            for name in NAMES
        ])  # fmt: skip
        assert [[scores.corrupted[name][level][0] for level in range(1, 6)]
                for name in NAMES] == levels.tolist()  # fmt: skip
        means = mean_over([*measure(scores).values()])
        assert means.score[0] == pytest.approx(levels.mean())
        assert means.retained[0] == pytest.approx(levels.mean() / clean)
    assert found[0].clean[0] > found[1].clean[0] > 0
    assert len({found[0].corrupted["brightness"][level][0] for level in range(1, 6)}) > 1


def test_resamples_draw_whole_clips(films, tmp_path):
    task = ClipTask([by_contrast], clips(films, tmp_path))
    [scores], _ = evaluate(
        task, [Cells(tmp_path / "kept", {})], range(8), ["contrast"], draws=200, seed=1
    )
    right = np.array([task.count(0, task.read(item))[0] for item in range(8)])
    weights = resamples(8, 200, 1)
    assert scores.clean == pytest.approx(weights @ right / weights.sum(1))
    assert scores.clean[1:].std() > 0


def test_without_a_transform_clips_are_judged_as_they_are_decoded(films, tmp_path):
    data, seen = ClipDataset(films, length=4, sampling="uniform", cache=tmp_path / "cache"), []
    task = ClipTask([lambda video: seen.append(video) or by_red(video / 1.0)], data)
    sample = task.read(2)
    assert task.count(0, sample).tolist()[1] == 1
    assert torch.equal(seen[0], sample.video[None])


def test_published_rpc():
    """3D ResNet-18 on Mini Kinetics-C: mPC 53.3 of 66.2 is rPC 80.5 %."""
    scores = Scores(np.array([0.662]), {
        name: {None: np.array([0.533])} for name in MINI_KINETICS_C
    })
    means = mean_over([*measure(scores).values()])
    assert means.score[0] == pytest.approx(0.533)
    assert means.retained[0] == pytest.approx(0.805, abs=5e-4)
    assert ClipTask.standard == MINI_KINETICS_C
    assert ClipTask.corruptions[:12] == MINI_KINETICS_C


def test_clips_that_cannot_be_decoded_are_left_out(films, tmp_path, monkeypatch):
    task = ClipTask([by_red], clips(films, tmp_path))
    monkeypatch.setattr(clip_codecs, "without_packets", lambda stream, share, rng: b"")
    lost = task.corrupt(task.read(0), 0, "packet_loss", 5)
    assert lost.video is None
    assert task.corrupt(lost, 0, "fog", 1).video is None
    assert task.count(0, lost).tolist() == [0, 0]
    assert task.count(0, task.read(0)._replace(label=-1)).tolist() == [0, 0]
    assert task.score(np.array([[3, 4], [0, 0]])).tolist()[0] == 0.75
    assert np.isnan(task.score(np.array([[3, 4], [0, 0]]))[1])
    films.videos[0][0].write_bytes(films.videos[0][0].read_bytes()[:1])  # damaged since it opened
    assert task.read(0).video is None
    assert task.read(1).video is not None
    films.videos[7][0].write_bytes(films.videos[7][0].read_bytes()[:1])
    assert task.read(7).video is None


def test_what_cannot_be_judged_is_refused(films, tmp_path):
    transform = ClipTransform(32, train=False)
    dense = ClipDataset(films, length=4, sampling="dense", views=2, transform=transform,
                        cache=tmp_path / "cache")  # fmt: skip
    with pytest.raises(ValueError, match="expected one clip of each of 8 videos; got 16 clips"):
        ClipTask([by_red], dense)
    shapes = [(1, 3), (1, 1), (2, 2), (2,)]
    networks = [lambda video, shape=shape: torch.zeros(shape) for shape in shapes]
    task = ClipTask(networks, clips(films, tmp_path))
    sample = task.read(0)
    for number, shape in enumerate(shapes):
        told = rf"for each of 2 classes, \(1, 2\); got {re.escape(str(shape))}"
        with pytest.raises(ValueError, match=told):
            task.count(number, sample)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_command_judges_a_checkpoint_of_videos(films, tmp_path, monkeypatch, capsys):
    """Its clean score is that of validation; a clip beside one of scans is refused."""
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GEONORM_RUN_DIR", "")
    monkeypatch.chdir(tmp_path)
    train(["fit", "--config", "ucf101_three_clips", f"--data.root={tmp_path / 'films'}", *QUICK,
           "--run_dir=run"])  # fmt: skip
    checkpoint = "run/checkpoints/last.ckpt"
    options = ["--samples=all", "--corruptions", "contrast", "gain", "--resamples=100"]
    assert command(["evaluate-shift", checkpoint, *options]) == 0
    said = capsys.readouterr().out
    assert "8 of 8 videos" in said
    with (tmp_path / "shift" / "scores.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert {row["corruption"] for row in rows} >= {"clean", "contrast", "gain"}
    assert [row["level"] for row in rows if row["corruption"] == "gain"] == list("12345")
    [clean] = [float(row["score"]) for row in rows if row["corruption"] == "clean"]
    assert clean == pytest.approx(json.loads((tmp_path / "run/val.json").read_text())["top1"])
    assert (tmp_path / "shift" / "heat_map.png").stat().st_size > 1000
    said = command(["evaluate-shift", checkpoint, "--beams=32"])
    assert "--beams and --domain are of scans" in str(said)
    state = torch.load(checkpoint, weights_only=True)
    state["ClipData"]["clip"]["flip"] = 0.5  # in training alone
    torch.save(state, "run/checkpoints/flipped.ckpt")
    both = ["evaluate-shift", checkpoint, "run/checkpoints/flipped.ckpt", *options]
    assert command(both) == 0
    state["ClipData"]["clip"]["length"] += 1
    torch.save(state, "run/checkpoints/flipped.ckpt")
    told = r"/flipped\.ckpt was trained on clips of another form than run/checkpoints/last\.ckpt;"
    assert re.search(told, command(both))
    state["ScanData"] = state.pop("ClipData")
    torch.save(state, "run/checkpoints/scans.ckpt")
    said = command(["evaluate-shift", checkpoint, "run/checkpoints/scans.ckpt"])
    assert re.search(r"scans\.ckpt does not say .* of geonorm train-action", str(said))
