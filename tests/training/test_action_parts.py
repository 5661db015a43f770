"""Parts of the training on videos, by hand: scores, weights, rates, pictures of predict."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from geonorm import InstanceNorm
from geonorm.datasets import FileReport
from geonorm.files import written_whole
from geonorm.style import StyleStatistics
from geonorm.training.action.attribution import blurred, middle_box
from geonorm.training.action.data import ClipData
from geonorm.training.action.module import ActionModule
from geonorm.training.action.networks import NETWORKS, build
from geonorm.training.action.predict import annotate, top_classes
from geonorm.training.action.report import (
    ActionReport,
    FailedFiles,
    summary,
    table,
    video_rows,
)
from geonorm.training.action.scores import VideoScores
from geonorm.training.attributions import (
    Explanation,
    number_of,
    read_statistics,
    write_statistics,
)
from geonorm.training.optimization import Optimization
from helpers.memory import kept_bytes


def logits_of(rows):
    """Return logits whose softmax is the given probabilities."""
    return torch.tensor(rows).log()


@pytest.fixture
def scores():
    """Three videos of two views and one without a label, over six classes, of which one absent."""
    judge = VideoScores(4, 6)
    # The views of video 0 disagree, and the surer one is right; video 1 is right, 2 is wrong.
    sure, unsure = [0.9, 0.02, 0.02, 0.02, 0.02, 0.02], [0.1, 0.3, 0.2, 0.2, 0.1, 0.1]
    judge.update(logits_of([sure, unsure]), torch.tensor([0, 0]), torch.tensor([0, 0]))
    wrong = [0.5, 0.1, 0.1, 0.1, 0.15, 0.05]
    judge.update(
        logits_of([unsure, unsure, wrong, wrong, sure]),
        torch.tensor([1, 1, 5, 5, -1]),
        torch.tensor([1, 1, 2, 2, 3]),
    )
    return judge


def test_scores_of_videos_are_means_over_their_views(scores):
    result = scores.compute()
    assert (result.videos, result.clips) == (3, 6)
    assert result.top1 == pytest.approx(2 / 3)
    assert result.clip_top1 == pytest.approx(3 / 6)
    assert result.top5 == pytest.approx(2 / 3)  # class 5 comes sixth in video 2
    chosen = [0.9, 0.1, 0.3, 0.3, 0.05, 0.05]
    assert result.loss == pytest.approx(-np.log(chosen).mean(), rel=1e-5)
    expected = torch.zeros(6, 6, dtype=torch.long)
    expected[0, 0] = expected[1, 1] = expected[5, 0] = 1
    assert torch.equal(result.matrix, expected)
    assert (result.numbers.tolist(), result.labels.tolist()) == ([0, 1, 2], [0, 1, 5])
    assert result.scores[:, [0, 1]].flatten().tolist() == pytest.approx(
        [0.5, 0.16, 0.1, 0.3, 0.5, 0.1]
    )
    rows = video_rows(result, ["a", "b", "c", "d"], "UVWXYZ")
    assert [(name, kind, round(score, 6), guess) for name, kind, score, guess in rows] == [
        ("a", "U", 0.5, "U"), ("b", "V", 0.3, "V"), ("c", "Z", 0.05, "U"),
    ]  # fmt: skip


def test_a_video_is_scored_by_the_mean_of_its_views_probabilities():
    """Sums of logits and votes of the views would each get one of the two videos wrong."""
    judge = VideoScores(2, 2)
    views = [[1e-6, 1 - 1e-6], [0.8, 0.2], [0.8, 0.2]]  # logits sum to class 1
    judge.update(logits_of(views[:1]), torch.tensor([0]), torch.tensor([0]))
    judge.update(logits_of(views[1:]), torch.tensor([0, 0]), torch.tensor([0, 0]))
    views = [[0.01, 0.99], [0.6, 0.4], [0.6, 0.4]]  # two of three votes are for class 0
    judge.update(logits_of(views), torch.tensor([1, 1, 1]), torch.tensor([1, 1, 1]))
    means = torch.tensor([[1.6 + 1e-6, 1.4 - 1e-6], [1.21, 1.79]])
    torch.testing.assert_close(judge.sums, means)
    result = judge.compute()
    assert (result.top1, result.top5, result.clip_top1) == (1, 1, 0.5)
    assert result.matrix.tolist() == [[1, 0], [0, 1]]


def test_scores_of_two_processes_are_those_of_one():
    whole, parts = VideoScores(3, 2), [VideoScores(3, 2), VideoScores(3, 2)]
    views = torch.tensor([[0.5, 2.0], [1.0, -1.0], [0.25, 0.0]])
    labels, videos = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 2])
    whole.update(views, labels, videos)
    for part, rows in zip(parts, ([0], [1, 2]), strict=True):
        part.update(views[rows], labels[rows], videos[rows])
    parts[0].merge_state(parts[1])
    one, other = whole.compute(), parts[0].compute()
    for value, again in zip(one, other, strict=True):
        torch.testing.assert_close(torch.as_tensor(again), torch.as_tensor(value))
    assert (one.videos, one.clips, one.labels.tolist()) == (2, 3, [0, 1])


def test_five_best_are_more_than_one_and_fewer_than_six():
    judge = VideoScores(6, 7)
    row = torch.tensor([0.3, 0.2, 0.16, 0.12, 0.1, 0.07, 0.05]).log()
    places = torch.tensor([0, 0, 1, 4, 5, 6])  # of the true class: first, first, second, fifth, ...
    judge.update(row.expand(6, 7), places, torch.arange(6))
    result = judge.compute()
    assert (result.top1, result.clip_top1) == pytest.approx((2 / 6, 2 / 6))
    assert result.top5 == pytest.approx(4 / 6)
    assert result.matrix[:, 0].tolist() == [2, 1, 0, 0, 1, 1, 1]
    assert result.matrix.sum() == 6


def test_absent_classes_are_said_to_be_absent(scores):
    result, classes = scores.compute(), list("abcdef")
    assert math.isnan(result.class_accuracy()[2])
    text = table(result, classes)
    rows = [line.split() for line in text.splitlines()[1:7]]
    assert [row[:2] for row in rows] == [
        ["a", "1.000"], ["b", "1.000"], ["c", "absent"], ["d", "absent"], ["e", "absent"],
        ["f", "0.000"],
    ]  # fmt: skip
    last = [line.split() for line in text.splitlines()[7:]]
    assert last == [["top-1", "0.667", "3"], ["top-5", "0.667", "3"], ["clips", "0.500", "6"]]
    found = summary([result, result._replace(top1=0.25)], classes)
    assert (found["top1"], found["top5"]) == (result.top1, result.top5)
    assert (found["clip_top1"], found["videos"], found["clips"]) == (0.5, 3, 6)
    assert "still_top1" not in summary([result], classes)
    assert found["classes"] == {"a": 1.0, "b": 1.0, "f": 0.0}
    assert found["still_top1"] == 0.25
    assert "NaN" not in json.dumps(found)


def test_of_five_classes_and_one_view_the_table_has_no_more_than_top_1():
    judge = VideoScores(2, 5)
    judge.update(torch.eye(5)[:2], torch.tensor([0, 3]), torch.tensor([0, 1]))
    (last,) = [line.split() for line in table(judge.compute(), list("abcde")).splitlines()[6:]]
    assert last == ["top-1", "0.500", "2"]


def test_clips_of_some_videos_are_kept_for_pictures(tmp_path):
    """Of five videos the first, the middle and the last; the extremes of those with a label."""
    testing = SimpleNamespace(state=SimpleNamespace(fn="test"))
    module = SimpleNamespace(scores=[SimpleNamespace(labels=torch.zeros(5))])
    videos, labels = torch.tensor([0, 1, 2, 2, 4]), torch.tensor([1, 0, -1, -1, 1])
    logits = logits_of([[0.25, 0.75], [0.4, 0.6], [0.9, 0.1], [0.2, 0.8], [0.8, 0.2]])
    batch = SimpleNamespace(video=torch.arange(5.0), label=labels, video_index=videos)

    def keeping(number, trainer=testing, kind=0):
        report = ActionReport(tmp_path, number)
        report._keep(trainer, module, logits, batch, kind)
        kept = {name: [video for _, video, _ in each] for name, each in report.extremes.items()}
        return report.clips, kept

    clips, kept = keeping(3)
    told = {video: (float(clip.video), *clip[1:3]) for video, clip in clips.items()}
    assert told == {0: (0, 1, 1), 2: (2, -1, 0), 4: (4, 1, 0)}
    assert [round(clip.score, 4) for clip in clips.values()] == [0.75, 0.9, 0.8]
    assert kept == {"worst": [4, 1, 0], "best": [0, 1, 4]}
    nothing = ({}, {"worst": [], "best": []})
    assert keeping(0) == keeping(3, kind=1) == nothing
    assert keeping(3, SimpleNamespace(state=SimpleNamespace(fn="fit"))) == nothing


@pytest.mark.parametrize("first", [True, False])
def test_the_first_process_writes_what_was_judged(tmp_path, capsys, scores, first):
    saved = []
    clips = SimpleNamespace(videos=[(Path(f"{name}.mp4"), 0) for name in "abcd"])
    asked = []
    data = SimpleNamespace(judged=lambda stage: asked.append(stage) or [clips],
                           clip=SimpleNamespace(mean=(0.5,) * 3, std=(0.5,) * 3))  # fmt: skip
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn="validate"), is_global_zero=first, datamodule=data,
        loggers=[SimpleNamespace(save=lambda: saved.append("log"))],
    )  # fmt: skip
    result = scores.compute()
    module = SimpleNamespace(classes=list("uvwxyz"), title="a network",
                             results=[result, result._replace(top1=0.25)])  # fmt: skip
    report = ActionReport(tmp_path, 0)
    report.on_validation_end(trainer, module)
    files = {path.name for path in tmp_path.iterdir()}
    if not first:
        assert (files, asked) == (set(), [])
        return
    assert files == {"val.json", "val_videos.csv", "val_confusion.csv", "val_confusion.png"}
    assert (saved, asked) == (["log"], ["validate"])
    told = "middle frame alone, repeated: top-1 0.250 (by chance 0.167)"
    assert told in capsys.readouterr().out
    assert json.loads((tmp_path / "val.json").read_text())["still_top1"] == 0.25
    lines = (tmp_path / "val_videos.csv").read_text().split()
    assert lines[0] == "video,class,score,predicted"
    assert [line.split(",")[::3] for line in lines[1:]] == [
        ["a.mp4", "u"], ["b.mp4", "v"], ["c.mp4", "u"]]  # fmt: skip


def test_data_of_other_classes_than_the_network_are_refused():
    module = ActionModule("resnet3d_slim", classes=["a", "b"])
    kinds = [SimpleNamespace(videos=range(5)), SimpleNamespace(videos=range(3))]
    data = SimpleNamespace(classes=["a", "b"], judged=lambda stage: kinds[: len(stage) - 2])
    module._trainer = SimpleNamespace(datamodule=data)
    module.setup("fit")
    assert [scores.sums.shape for scores in module.scores] == [(5, 2)]
    module.setup("test")
    assert [scores.sums.shape for scores in module.scores] == [(5, 2), (3, 2)]
    for classes in (["b", "a"], ["a"], ["a", "b", "c"], ["a", "a"]):
        data.classes = classes
        with pytest.raises(ValueError, match="the checkpoint knows the classes"):
            module.setup("test")


def test_each_file_that_failed_is_listed_once(tmp_path, capsys):
    first, second = FileReport(Path("a"), "skipped", 3), FileReport(Path("b"), "left out", 1)
    data = ClipData()
    data.datasets = {"train": SimpleNamespace(report=lambda: [first, second]),
                     "val": SimpleNamespace(report=lambda: [second])}  # fmt: skip
    assert data.failures() == [first, second]
    listing = FailedFiles(tmp_path)
    trainer = SimpleNamespace(datamodule=data, is_global_zero=True)
    listing.teardown(trainer, None, "fit")
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == [
        "2 files could not be read, or not in full:",
        "  skipped, met 3 times: a", "  left out, met 1 times: b",
    ]  # fmt: skip
    damaged = FileReport(Path("a"), "damaged", 2)
    data.datasets["test"] = SimpleNamespace(report=lambda: [damaged])
    listing.teardown(trainer, None, "test")
    said = capsys.readouterr().out.splitlines()
    assert said[2:] == ["  damaged, met 2 times: a"]
    rows = (tmp_path / "left_out.csv").read_text().split()
    assert rows == ["file,what,times", "a,skipped,3", "b,left", "out,1", "a,damaged,2"]
    (tmp_path / "other").mkdir()
    trainer.is_global_zero = False
    FailedFiles(tmp_path / "other").teardown(trainer, None, "fit")
    assert (capsys.readouterr().out, [*(tmp_path / "other").iterdir()]) == ("", [])


def test_options_reach_the_layers_of_the_network():
    options = {"input_norm": "HW", "input_eps": 0.2, "padding_mode": "replicate"}
    model = ActionModule("resnet3d_slim", classes=["a", "b"], **options).model
    assert (model.input_norm.axes, model.input_norm.eps, model.input_norm.affine) == (
        "HW", 0.2, False)  # fmt: skip
    assert model.conv1.padding_mode == "replicate"
    assert ActionModule(backbone_lr_factor=0.0, layer_decay=1.0).model is None


def test_blurred_frames_are_spread_by_a_16th_of_the_shorter_side():
    spot = torch.zeros(1, 2, 32, 48)
    spot[0, 1, 16, 20] = 1
    frames = blurred(spot)
    assert (frames[0, 0] == 0).all()
    row = frames[0, 1].sum(0).double()
    assert (row > 0).nonzero()[:, 0].tolist() == [*range(14, 27)]  # three deviations
    places = torch.arange(48.0).double() - 20
    assert float((row * places**2).sum()) == pytest.approx(4, rel=0.03)
    small = blurred(torch.eye(5)[None, None])
    assert (small[0, 0, 0] > 0).tolist() == [True, True, True, False, False]


def test_the_box_of_a_crop_is_told_by_shares_of_the_frame():
    assert middle_box((40, 80), (20, 16)) == (10 / 40, 32 / 80, 30 / 40, 48 / 80)


def test_statistics_of_frames_are_written_as_their_means(tmp_path):
    rows = torch.tensor([[1.0, 2.0, 3.0]])
    frames = torch.arange(12.0).view(1, 2, 3, 2)
    removed = {"bn": StyleStatistics(rows, rows / 8),
               "layer.bn": StyleStatistics(frames, frames**2)}  # fmt: skip
    assert read_statistics(tmp_path / "a.b") == []
    write_statistics(tmp_path / "a.b", removed)
    with np.load(tmp_path / "a.b.statistics.npz") as told:
        assert told["bn.mean"].tolist() == [[1, 2, 3]]
        assert told["layer.bn.mean"].tolist() == [[2.5, 8.5]]
        assert told["layer.bn.std"].tolist() == [pytest.approx([55 / 6, 451 / 6])]
    first, second = read_statistics(tmp_path / "a.b")
    assert first == {"name": "bn", "mean": [[1, 2, 3]], "std": [[0.125, 0.25, 0.375]]}
    assert (second["name"], second["std"]) == ("layer.bn", [pytest.approx([9.1667, 75.1667])])


def test_the_class_of_an_attribution():
    assert number_of(None, ["a", "b"]) is None
    assert number_of("b", ["a", "b"]) == 1
    with pytest.raises(ValueError, match=r"no class 'c'"):
        number_of("c", ["a", "b"])
    assert number_of("a", ["a", "b"]) == 0
    assert Explanation("integrated_gradients", "b").target == "b"
    with pytest.raises(ValueError, match="target 'b' is the class of an attribution: give one"):
        Explanation(target="b")


def test_statistics_are_recorded_where_they_are_wanted():
    network = nn.Sequential(nn.Conv1d(2, 3, 1), InstanceNorm(3))
    for wanted, names in ((True, ["1"]), (False, [])):
        with Explanation(statistics=wanted).recorded(network) as removed:
            network(torch.randn(4, 2, 9))
        assert [*removed] == names


def test_nothing_to_judge_is_an_error():
    judge = VideoScores(2, 3)
    judge.update(torch.zeros(2, 3), torch.tensor([-1, -1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="not one video has a label; use predict"):
        judge.compute()


def test_a_network_needs_classes():
    with pytest.raises(ValueError, match="expected classes, for which the network is built"):
        ActionModule()(torch.zeros(1, 3, 4, 32, 32))


def test_clips_are_loaded_for_a_trainer():
    with pytest.raises(ValueError, match="share the data; this ClipData has none"):
        ClipData().val_dataloader()


def test_a_network_that_is_there_is_kept():
    """As one from a checkpoint, which a trainer is then asked to judge."""
    module = ActionModule("resnet3d_10", classes=["a", "b"])
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(classes=["a", "b"]))
    before = module.model
    module.configure_model()
    assert module.model is before is not None
    module.model = None
    module.configure_model()
    assert isinstance(module.model, type(before))


def test_every_network_by_name():
    sized = [f"resnet3d_{depth}" for depth in (10, 18, 34, 50, 101, 152, 200)]
    assert list(NETWORKS) == ["r3d_18", "mc3_18", "r2plus1d_18", *sized, "resnet3d_slim"]
    with torch.device("meta"):
        assert all(build(name, "instance", 7).fc.out_features == 7 for name in NETWORKS)
        slim, whole = (build(name, "instance", 7) for name in ("resnet3d_slim", "resnet3d_10"))
    assert [each.layer1[0].conv1.out_channels for each in (slim, whole)] == [32, 64]
    assert [len(slim.layer1), len(slim.layer4)] == [1, 1]


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("r3d18", None, "Did you mean 'r3d_18'"),
        ("resnet3d_10", "KINETICS400_V1", "weights of resnet3d_10 must be a file"),
        ("r3d_18", "KINETICS", "weights of r3d_18 must be one of"),
    ],
)
def test_networks_that_are_not_to_be_had(name, weights, message):
    with pytest.raises(ValueError, match=message):
        build(name, "instance", 5, weights)


def test_weights_for_other_classes_leave_the_last_layer_new(tmp_path, capsys):
    trained = build("resnet3d_10", "batch", 9)
    torch.save({"arch": "resnet-10", "state_dict": trained.state_dict()}, tmp_path / "hara.pth")
    network = build("resnet3d_10", "instance", 5, str(tmp_path / "hara.pth"))
    assert torch.equal(network.layer3[0].conv1.weight, trained.layer3[0].conv1.weight)
    assert network.fc.out_features == 5
    assert "fc.weight, fc.bias" in capsys.readouterr().out


def test_channels_last_gives_the_same_scores():
    video = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs = {}
    for last in (False, True):
        torch.manual_seed(1)
        module = ActionModule("resnet3d_10", channels_last=last, classes=list("abc"))
        weight = module.model.layer1[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last_3d) == last
        outputs[last] = module(video)
    torch.testing.assert_close(outputs[True], outputs[False], rtol=1e-4, atol=1e-5)


def test_rate_falls_tenfold_at_milestones():
    step = Optimization(schedule="step", warmup=0.1, milestones=(0.5, 0.9))
    rates = [step.factor(done) for done in (0.05, 0.1, 0.49, 0.5, 0.95)]
    assert rates == pytest.approx([0.5, 1, 1, 0.1, 0.01])
    for wrong in ({"schedule": "step"}, {"milestones": (0.5,)}):
        with pytest.raises(ValueError, match="schedule 'step' needs milestones"):
            Optimization(**wrong)


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_steps_beyond_the_end_learn_nothing(schedule):
    optim = Optimization(schedule=schedule, warmup=0.1)
    assert [optim.factor(done) for done in (1.0, 1.5)] == [0, 0]


def test_what_is_no_class_of_torch_optim_is_no_optimizer():
    with pytest.raises(ValueError, match=r"no optimizer 'lr_scheduler' .* one of ASGD, Ada\w+, "):
        Optimization("lr_scheduler")


def test_a_resumed_schedule_is_that_of_the_new_options():
    then, now = Rates(), Rates()
    before = Optimization("SGD", 0.5, schedule="poly", warmup=0).configure(then)
    for _ in range(3):
        before["optimizer"].step()
        before["lr_scheduler"]["scheduler"].step()
    parts = [(0.25, now.backbone.parameters())]
    after = Optimization("SGD", 0.2, schedule="cosine", warmup=0).configure(now, parts)
    state = before["lr_scheduler"]["scheduler"].state_dict()
    after["lr_scheduler"]["scheduler"].load_state_dict(state | {"base_lrs": [0.2, 0.05]})
    here = (1 + math.cos(math.pi * 0.35)) / 2  # the fourth of ten steps, at its middle
    found = [group["lr"] for group in after["optimizer"].param_groups]
    assert found == pytest.approx([0.2 * here, 0.05 * here])


class Rates(LightningModule):
    """A module of two layers and a trainer of ten steps, as far as Optimization looks."""

    trainer = type("T", (), {"estimated_stepping_batches": 10, "callbacks": ()})()

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(3, 3), nn.Linear(3, 2)


def test_a_backbone_learns_at_its_own_rate():
    module = Rates()
    optim = Optimization(lr=0.5, warmup=0, schedule="constant")
    slow = optim.configure(module, [(0.1, module.backbone.parameters())])["optimizer"].param_groups
    assert [group["lr"] for group in slow] == pytest.approx([0.5, 0.05])
    assert {id(p) for p in slow[1]["params"]} == {id(p) for p in module.backbone.parameters()}
    optim = Optimization("SGD", 0.5, 0.25, {"momentum": 0.9}, "poly", 0)
    (group,) = optim.configure(module, [(0.1, [])])["optimizer"].param_groups
    assert (group["weight_decay"], group["momentum"]) == (0.25, 0.9)
    assert group["lr"] == pytest.approx(0.5 * 0.95**0.9)  # in the middle of the first step of ten
    assert optim.configure(module)["lr_scheduler"]["interval"] == "step"
    fallen = Optimization(lr=0.5, warmup=0, schedule="step", milestones=(0.5,))
    assert fallen.factor(0.0) == 1
    (alike,) = optim.configure(module)["optimizer"].param_groups
    assert len(alike["params"]) == 4


def fail_half_way(path):
    with written_whole(path) as aside:
        aside.write_text("sec")
        raise RuntimeError("half way")


def test_files_appear_complete_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    with written_whole(path) as aside:
        aside.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(path)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_highest_classes_come_first():
    classes = list("abcdefg")
    top = top_classes(np.array([0.1, 0.3, 0.05, 0.3, 0.15, 0.06, 0.04]), classes)
    assert [name for _, name, _ in top] == ["b", "d", "e", "a", "f"]
    assert len(top_classes(np.array([0.4, 0.6]), classes)) == 2


def test_each_part_of_a_film_shows_its_own_scores():
    frames = np.full((9, 31, 101, 3), 7, np.uint8)
    scores = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    film = annotate(frames, scores, [(0, "up", 0.5), (1, "down", 0.5)])
    assert film.shape == (9, 76, 102, 3)  # 31 and two rows of 22, made even
    assert annotate(frames[:, :30, :100], scores, [(1, "down", 0.5)]).shape == (9, 52, 100, 3)
    assert np.array_equal(film[:, :31, :101], frames)
    # The length of the first bar, in a row of pixels above its text.
    lengths = [(picture[34, :, 2] > 100).sum() for picture in film]
    assert lengths[0] == lengths[1] == lengths[2] > 95
    assert 45 < lengths[3] == lengths[5] < 55
    assert lengths[6] == lengths[8] <= 1
    lower = [(picture[56, :, 2] > 100).sum() for picture in film]
    assert lower[0] == lengths[6]
    assert (lower[3], lower[8]) == (lengths[3], lengths[0])
    turned = annotate(frames, scores, [(1, "down", 0.5), (0, "up", 0.5)])
    assert [(picture[34, :, 2] > 100).sum() for picture in turned] == lower


def test_a_network_that_recomputes_keeps_less_and_learns_the_same() -> None:
    clips, kept, gradients = torch.randn(1, 3, 8, 32, 32), [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = ActionModule("resnet3d_10", recompute=recompute, classes=["a", "b"])
        kept.append(kept_bytes(module.model, clips))
        loss = module.model(clips).square().sum()
        gradients.append(torch.autograd.grad(loss, [*module.parameters()]))
    assert kept[1] < 0.8 * kept[0]
    assert all(map(torch.equal, *gradients))
