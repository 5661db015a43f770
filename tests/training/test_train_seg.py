"""train_seg.py: its parts by hand, and its documented commands with short limits."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional
from torchmetrics.classification import MulticlassJaccardIndex
from train_seg import main

from geonorm.datasets import RandomRotation, SyntheticStreets, collate_scans
from geonorm.training.cli import CONFIGS, complete
from geonorm.training.cli import option as value_of
from geonorm.training.confusion import read_matrix
from geonorm.training.optimization import Optimization
from geonorm.training.sampler import EpochSampler
from geonorm.training.segmentation.data import ScanData
from geonorm.training.segmentation.folds import table
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.report import ScanScore, SegmentationReport, scan_score
from geonorm.training.segmentation.scores import class_iou, scan_mean_loss
from helpers.browser import shown_report
from helpers.rendering import renders

TOOLS = Path(__file__).resolve().parents[2] / "tools"
TINY = [
    "--data.train.init_args.num_scans=3",
    "--data.val.init_args.num_scans=2",
    "--data.voxel_size=0.8",
    "--data.batch_size=1",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
    "--run_dir=run",
]
# What the tool is made of warns about matters of its own, such as few workers.
as_users_run_it = pytest.mark.filterwarnings("default")


def train_seg(*args, cwd):
    """Run the tool in a process of its own and return what it prints."""
    command = [sys.executable, TOOLS / "train_seg.py", *args]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def random_rows(counts, num_classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    logits = torch.randn(total, num_classes, generator=generator, requires_grad=True)
    labels = torch.randint(0, num_classes, (total,), generator=generator)
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return logits, labels, index


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 3.0])])
def test_loss_is_the_mean_of_each_scans_mean(weights):
    logits, labels, index = random_rows([100, 3, 40])
    labels[::7] = 255
    order = torch.randperm(len(labels))
    loss = scan_mean_loss(logits[order], labels[order], index[order], 3, weights)
    expected = torch.stack([
        functional.cross_entropy(logits[index == i], labels[index == i], weights, ignore_index=255)
        for i in range(3)
    ]).mean()  # fmt: skip
    torch.testing.assert_close(loss, expected)
    whole = functional.cross_entropy(logits, labels, weights, ignore_index=255)
    assert abs(loss - whole) > 1e-3  # the plain mean over rows is something else


def test_scans_of_little_weight_count_as_much_as_others():
    logits, labels, index = random_rows([3, 40])
    weights = torch.linspace(0.01, 0.02, logits.shape[1])
    loss = scan_mean_loss(logits, labels, index, 2, weights)
    each = [functional.cross_entropy(logits[index == i], labels[index == i], weights)
            for i in range(2)]  # fmt: skip
    torch.testing.assert_close(loss, sum(each) / 2)


def test_scans_without_a_label_count_for_nothing():
    logits, labels, index = random_rows([10, 20])
    labels[index == 1] = 255
    loss = scan_mean_loss(logits, labels, index, 3)
    alone = functional.cross_entropy(logits[:10], labels[:10])
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert (logits.grad[10:] == 0).all()


def test_loss_of_nothing_is_zero_with_zero_gradient():
    logits, labels, index = random_rows([5])
    loss = scan_mean_loss(logits, torch.full_like(labels, 255), index, 1)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_iou_by_hand_leaves_absent_classes_out():
    matrix = torch.tensor([[3, 1, 0], [1, 5, 2], [0, 0, 0]])
    iou = class_iou(matrix)
    assert iou[:2].tolist() == pytest.approx([3 / 5, 5 / 9])
    assert math.isnan(iou[2])
    text = table(matrix, ["road", "car", "bus"])
    assert "absent" in text
    assert f"{(3 / 5 + 5 / 9) / 2:.3f}" in text
    assert "mean of the 2 classes present" in text
    rare = table(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 1]]), ["road", "car", "traffic sign"])
    assert rare.splitlines() == [
        "class             IoU      points",
        "road            0.750           4",
        "car            absent           0",
        "traffic sign    1.000           1",
        "mIoU            0.875           5  mean of the 2 classes present",
    ]


def test_iou_equals_torchmetrics_where_every_class_is_present():
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(0, 5, (1000,), generator=generator)
    labels = torch.randint(0, 5, (1000,), generator=generator)
    matrix = torch.bincount(labels * 5 + predicted, minlength=25).view(5, 5)
    expected = MulticlassJaccardIndex(5, average="none")(predicted, labels)
    torch.testing.assert_close(class_iou(matrix).float(), expected)


class CountingDataset:
    def __init__(self, length):
        self.length, self.epoch = length, None

    def __len__(self):
        return self.length

    def set_epoch(self, epoch):
        self.epoch = epoch


def test_a_network_needs_classes():
    batch = collate_scans([SyntheticStreets(1)[0]], voxel_size=0.8, clip_range=None)
    with pytest.raises(ValueError, match="expected classes, for which the network is built"):
        SegmentationModule("PointMLP")(batch)


def test_scans_are_loaded_for_a_trainer():
    data = ScanData(val=lambda: SyntheticStreets(1))
    data.setup("validate")
    with pytest.raises(ValueError, match="share the data; this ScanData has none"):
        data.val_dataloader()


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = EpochSampler(CountingDataset(50), shuffle=True, seed=seed)
        assert sampler.dataset.epoch == 0
        sampler.set_epoch(epoch)
        assert sampler.dataset.epoch == epoch
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert sorted(order(0, 3)) == list(range(50))
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    judged = EpochSampler(CountingDataset(50), shuffle=False)
    before = getattr(judged.dataset, "epoch", None)
    judged.set_epoch(3)
    assert getattr(judged.dataset, "epoch", None) == before != 3
    assert list(judged) == list(range(50))


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_the_indices_without_padding(shuffle):
    samplers = [EpochSampler(CountingDataset(11), shuffle, 0, rank, 3) for rank in range(3)]
    shares = [list(sampler) for sampler in samplers]
    together = [index for share in shares for index in share]
    assert len(set(together)) == len(together)
    assert [len(share) for share in shares] == ([3, 3, 3] if shuffle else [4, 4, 3])
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]


def test_schedules():
    cosine = Optimization(schedule="cosine", warmup=0.2)
    rates = [cosine.factor(done) for done in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert Optimization(schedule="poly", warmup=0).factor(0.75) == pytest.approx(0.25**0.9)
    assert Optimization(schedule="constant", warmup=0).factor(0.99) == 1


def test_optimization_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"no optimizer 'Adamw' in torch.optim; choose one of"):
        Optimization(name="Adamw")
    for warmup in (5, 1, -0.1):
        with pytest.raises(ValueError, match=rf"a part of the run in \[0, 1\); got {warmup}"):
            Optimization(warmup=warmup)


def test_what_the_command_line_may_leave_out(tmp_path, monkeypatch):
    default = Path("streets.yaml")
    assert complete([], default) == ["fit", "--config", "streets.yaml"]
    assert complete(["validate"], default) == ["validate", "--config", "streets.yaml"]
    assert complete(["--model.name", "X"], default)[:3] == ["fit", "--config", "streets.yaml"]
    own = tmp_path / "config.yaml"
    own.touch()
    assert complete(["test", f"--config={own}"], default) == ["test", "--config", str(own)]
    assert complete(["-c", "streets"], default)[2] == str(CONFIGS / "streets.yaml")
    with pytest.raises(ValueError, match=r"--config 'street' is no file; .*mean 'streets'"):
        complete(["--config=street"], default)
    assert value_of(["--a", "1", "--b=2=3", "--bc=4", "--c"], "--b") == "2=3"
    assert value_of(["--a", "1", "--a", "2"], "--a") == "1"
    assert value_of(["--bc=4", "--c"], "--b") is value_of(["--c"], "--c") is None
    assert complete(["fit", "--config"], default)[1:] == ["--config", "streets.yaml", "--config"]
    assert complete(["-c=streets", "--x"], default)[2:] == [str(CONFIGS / "streets.yaml"), "--x"]
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    assert complete(["test", f"--ckpt_path={checkpoint}"], default)[2] == str(
        own
    )
    with pytest.raises(ValueError, match="no configuration beside the checkpoint"):
        complete(["test", "--ckpt_path", "/nowhere/checkpoints/last.ckpt"], default)
    monkeypatch.chdir(tmp_path)
    Path("streets").touch()  # a file comes before a configuration of its name
    assert complete(["test", "-c", "streets"], default) == ["test", "--config", "streets"]


def test_help_comes_at_once(tmp_path):
    text = train_seg("--help", cwd=tmp_path)
    for word in ("fit", "test", "--config semantickitti", "geonorm train-seg", "--model.loss",
                 "--data.votes", "--data.chunk", "EMAWeightAveraging", "accumulate_grad_batches",
                 "LaserMix", "JoinedScans"):  # fmt: skip
        assert word in text


@as_users_run_it
def test_help_of_a_subcommand_shows_the_options(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--data.voxel_size", "--data.batch_size", "--model.name", "--model.norm",
        "--model.optim.lr", "--model.optim.schedule", "--trainer.precision", "--trainer.devices",
        "--model.loss", "--model.class_weights", "--data.augment", "--data.votes", "--data.chunk",
        "--data.overlap", "--trainer.accumulate_grad_batches", "--trainer.callbacks",
        "--run_dir", "--seed_everything",
    ):  # fmt: skip
        assert option in text


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a run without a subcommand or configuration, and what it printed."""
    folder = tmp_path_factory.mktemp("train_seg")
    text = train_seg(*TINY[:-1], cwd=folder)
    return folder / "runs" / "train_seg" / "001", text


def miou(run, stage="val"):
    return json.loads((run / f"{stage}.json").read_text())["miou"]


def test_fit_leaves_a_complete_run(trained):
    run, text = trained
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        "val.json", "val_confusion.png", "curve.png",
    } <= names  # fmt: skip
    assert any(name.startswith("events.out") for name in names)
    assert ("val_scan0.png" in names, "cannot render here" in text) == (renders(), not renders())
    assert "mIoU" in text
    scores = json.loads((run / "val.json").read_text())
    assert scores["miou"] == pytest.approx(np.mean(list(scores["iou"].values())))
    with (run / "metrics.csv").open() as file:
        assert len([row for row in csv.DictReader(file) if row["train/loss"]]) == 3
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["norm"] == "instance"
    matrix, _ = read_matrix(run / "val_confusion.csv")
    with (run / "val_scans.csv").open() as file:
        scans = list(csv.DictReader(file))
    assert sum(int(scan["points"]) for scan in scans) == matrix.sum()
    right = sum(float(scan["accuracy"]) * int(scan["points"]) for scan in scans)
    assert right == pytest.approx(int(matrix.diagonal().sum()))
    assert [scan["picture"] for scan in scans] == ["val_scan0.png", "val_scan1.png"]
    versions = json.loads((run / "versions.json").read_text())
    assert [*versions] == ["fit", "validate"]
    assert versions["fit"]["torch"] == torch.__version__.partition("+")[0]


@as_users_run_it
def test_the_report_of_a_run_opens_in_a_browser(trained):
    run, _ = trained
    figures, pictures, complaints = shown_report(run / "report.html")
    assert complaints == []
    assert figures >= 4  # losses, scores, confusions
    assert pictures == 2 * renders()
    assert (run / "report.html").stat().st_size < 10 * 2**20


def test_the_score_of_a_scan_by_hand():
    predicted, labels = torch.tensor([0, 1, 1, 2, 0, 2]), torch.tensor([0, 0, 1, 1, 255, 255])
    score = scan_score(7, "a", predicted, labels, 4)
    # Class 0: one of two; class 1: one of three; class 2 is predicted but not there.
    assert score == (7, "a", pytest.approx((1 / 2 + 1 / 3) / 2), 0.5, 4)
    nothing = scan_score(0, "b", predicted, torch.full((6,), 255), 4)
    assert nothing.points == 0
    assert math.isnan(nothing.miou)
    assert math.isnan(nothing.accuracy)


def test_the_worst_and_the_best_scans_are_drawn_beside_the_first():
    report = SegmentationReport(Path("run"), num_pictures=1)
    mious = [0.5, 0.9, 0.1, math.nan, 0.4, 0.2, 0.8, 0.6]
    report.scores = [ScanScore(place, str(place), miou, miou, 0 if miou != miou else 9)
                     for place, miou in enumerate(mious)]  # fmt: skip
    assert report._drawn(report.scores) == {0, 2, 5, 1, 6}
    kept = []  # as a validation keeps them, one scan after another
    for score in report.scores:
        drawn = report._drawn([*kept, score])
        kept = [each for each in [*kept, score] if each.place in drawn]
    assert {score.place for score in kept} == {0, 2, 5, 1, 6}
    report.num_pictures = 0
    assert report._drawn(report.scores) == set()


def test_scans_and_their_scores_are_kept_as_they_are_judged():
    report = SegmentationReport(Path("run"), num_pictures=2)
    module = SimpleNamespace(classes=["a", "b"])
    batch = SimpleNamespace(
        names=["one", "two"], point_batch=torch.tensor([1, 0, 1, 0, 1]),
        point_labels=torch.tensor([0, 1, 1, 255, 1]),
        points=torch.arange(15.0).view(5, 3).bfloat16(),
    )  # fmt: skip
    predicted = torch.tensor([0, 1, 0, 0, 1])
    training, testing = (SimpleNamespace(state=SimpleNamespace(fn=fn)) for fn in ("fit", "test"))
    report._keep(training, module, predicted, batch)
    assert report.scores == []
    report._keep(testing, module, predicted, batch)
    one, two = report.scores
    assert one == (0, "one", 1.0, 1.0, 1)
    assert two == (1, "two", pytest.approx((1 / 2 + 1 / 2) / 2), pytest.approx(2 / 3), 3)
    assert report.scans[1].points.tolist() == [[0, 1, 2], [6, 7, 8], [12, 13, 14]]
    assert report.scans[1].predicted.tolist() == [0, 0, 1]
    assert report.scans[0].labels.tolist() == [1, 255]


@pytest.mark.parametrize("first", [True, False])
def test_the_first_process_writes_what_was_judged(tmp_path, capsys, first):
    saved = []
    trainer = SimpleNamespace(state=SimpleNamespace(fn="test"), is_global_zero=first,
                              loggers=[SimpleNamespace(save=lambda: saved.append("log"))])
    module = SimpleNamespace(classes=["a", "b", "c"], title="a network", miou_first_vote=0.25,
                             matrix=torch.tensor([[3, 1, 0], [0, 2, 2], [0, 0, 0]]))  # fmt: skip
    report = SegmentationReport(tmp_path, num_pictures=0)
    report.scores = [ScanScore(0, "one", 0.5, 0.75, 8)]
    report.on_test_end(trainer, module)
    assert report.scores == []
    files = {path.name for path in tmp_path.iterdir()}
    if not first:
        assert files == set()
        return
    assert files == {"test_scans.csv", "test.json", "test_confusion.csv", "test_confusion.png"}
    assert (tmp_path / "test_scans.csv").read_text().split() == [
        "scan,miou,accuracy,points,picture", "one,0.5,0.75,8,"
    ]  # fmt: skip
    assert json.loads((tmp_path / "test.json").read_text()) == {
        "miou": pytest.approx((3 / 4 + 2 / 5) / 2), "iou": {"a": 0.75, "b": 0.4},
        "miou_first_vote": 0.25,
    }  # fmt: skip
    matrix, classes = read_matrix(tmp_path / "test_confusion.csv")
    assert (matrix.tolist(), classes) == (module.matrix.tolist(), module.classes)
    assert "mIoU by the first vote alone, as without voting: 0.250" in capsys.readouterr().out
    assert saved == ["log"]


def test_without_labels_there_are_no_scores(tmp_path, capsys):
    trainer = SimpleNamespace(state=SimpleNamespace(fn="validate"), is_global_zero=True)
    module = SimpleNamespace(classes=["a", "b"], matrix=torch.zeros(2, 2, dtype=torch.long))
    report = SegmentationReport(tmp_path, num_pictures=0)
    report.scores = [ScanScore(0, "one", math.nan, math.nan, 0)]
    report.on_validation_end(trainer, module)
    assert [path.name for path in tmp_path.iterdir()] == ["val_scans.csv"]
    assert "No point has a label: there are no scores" in capsys.readouterr().out


def test_a_short_last_batch_of_scans_is_left_out_of_training_alone():
    def batches(size, world_size=1):
        data = ScanData(lambda: SyntheticStreets(5), lambda: SyntheticStreets(5), batch_size=size,
                        num_workers=0)  # fmt: skip
        data.setup("fit")
        data.trainer = SimpleNamespace(global_rank=0, world_size=world_size)
        return len(data.train_dataloader()), len(data.val_dataloader())

    assert batches(2) == (2, 3)
    assert batches(5) == (1, 1)
    assert batches(6) == (1, 1)
    assert batches(3, world_size=2) == (1, 1)


def test_scans_are_changed_in_training_alone_and_a_checkpoint_tells_their_voxels():
    data = ScanData(lambda: SyntheticStreets(1), lambda: SyntheticStreets(1, seed=1),
                    augment=[RandomRotation()], voxel_size=0.3, clip_range=[-9, -9, -2, 9, 9, 3],
                    features={"position": [1, 2, 4]})  # fmt: skip
    data.setup("fit")
    assert [len(data.datasets[name].transforms) for name in ("train", "val")] == [1, 0]
    assert data.in_channels == 3
    assert data.state_dict() == {"voxel_size": 0.3, "clip_range": [-9, -9, -2, 9, 9, 3],
                                 "features": {"position": [1, 2, 4]}}  # fmt: skip
    assert ScanData(root=Path("a"), label_map="").options == {"root": Path("a")}
    assert [dataset.dataset.seed for dataset in data.datasets.values()] == [0, 1]
    data.setup("test")
    assert data.datasets["test"].dataset.seed == 1  # that of validation, where none is given


def test_domains_are_those_of_the_training_scans_where_there_are_any():
    data = ScanData()
    assert (data.num_domains, data.classes, data.colors) == (1, None, None)
    data.datasets = {"val": SimpleNamespace(num_domains=3)}
    assert data.num_domains == 3
    data.datasets["train"] = SimpleNamespace(num_domains=2)
    assert data.num_domains == 2


@as_users_run_it
@pytest.mark.parametrize(("subcommand", "stage"), [("validate", "val"), ("test", "test")])
def test_a_checkpoint_gives_the_scores_of_the_end_of_training(trained, tmp_path, subcommand, stage):
    run, _ = trained
    last = run / "checkpoints" / "last.ckpt"
    main([subcommand, "--ckpt_path", str(last), "--run_dir", str(tmp_path), "--num_pictures=0"])
    assert not list(tmp_path.glob("*scan*.png"))  # of which `trained` has two
    assert miou(tmp_path, stage) == pytest.approx(miou(run), abs=1e-3)


@pytest.mark.slow
@as_users_run_it
def test_resume_with_more_epochs_goes_on_with_the_schedule(trained, tmp_path):
    run, _ = trained
    last = run / "checkpoints" / "last.ckpt"
    main(["fit", "--ckpt_path", str(last), "--run_dir", str(tmp_path), "--trainer.max_epochs=2",
          "--num_pictures=0"])
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("lr-AdamW")]
    rates = {int(row["step"]): float(row["lr-AdamW"]) for row in rows}
    assert sorted(rates) == [3, 4, 5]
    expected = Optimization(**yaml.safe_load((run / "config.yaml").read_text())["model"]["optim"])
    for step, rate in rates.items():
        assert rate == pytest.approx(expected.lr * expected.factor((step + 0.5) / 6), rel=1e-4)


@as_users_run_it
@pytest.mark.parametrize(
    "options",
    [
        [
            "--model.name=MinkUNet18A", '--model.norm={"default": "instance", "decoder": "batch"}',
            "--model.optim.name=SGD", "--model.optim.options={momentum: 0.9, nesterov: true}",
            "--data.num_workers=0", "--data.clip_range=[-20, -20, -3, 20, 20, 5]",
        ],
        ["--model.name=PointMLP", "--model.optim.schedule=poly", "--data.num_workers=0"],
    ],
    ids=["another MinkUNet, norm and optimizer", "PointMLP"],
)  # fmt: skip
def test_options(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    main(["fit", *TINY, *options, "--num_pictures=0"])
    assert 0 <= miou(tmp_path / "run") < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.name=MinkUNet43C"], "Did you mean 'MinkUNet34C'"),
        (["--model.class_weights=[1, 2]"], "class_weights must be 11 numbers"),
        (
            ["--config", "semantickitti", "--data.root=nothing"],
            "tried nothing/sequences",
        ),
        (["predict"], r"predict is a command of its own: geonorm predict FILE\.ckpt"),
    ],
)
@as_users_run_it
def test_mistakes_are_explained(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        main([*options, "--run_dir=run"])


@as_users_run_it
def test_one_real_scan(tmp_path, monkeypatch, data_root):
    monkeypatch.chdir(tmp_path)
    main([
        "fit", "--config", "semantickitti_one_scan",
        "--data.root", str(data_root / "semantickitti"), "--trainer.max_steps=2",
        "--data.voxel_size=0.8", "--run_dir=run", "--trainer.enable_progress_bar=false",
    ])  # fmt: skip
    assert miou(tmp_path / "run") > 0
