"""train_action.py: its documented commands, on small built-in and class-folder videos."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from train_action import main

from geonorm import attribution
from geonorm.__main__ import main as command
from geonorm.looking.clips import clips
from geonorm.training import ClipPredictor
from geonorm.training.action import report as report_module
from geonorm.training.action.module import ActionModule
from geonorm.training.action.pictures import ShownClip, draw_clips
from geonorm.training.action.report import ActionReport
from geonorm.training.confusion import read_matrix
from helpers.action_runs import FILMS, QUICK, TOOLS, UNKEPT, found
from helpers.browser import shown_report
from helpers.video_files import encode, headers_only, noisy_film, numbered_film

STEADY = [*FILMS, *QUICK, "--model.optim.schedule=constant", "--model.optim.warmup=0"]
# What the tool is made of warns about matters of its own, such as few workers.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Keep films and indices of these tests together, and the folder of one run from the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEONORM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Run each test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEONORM_RUN_DIR", "")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a run without a subcommand or configuration, and what it printed."""
    folder = tmp_path_factory.mktemp("train_action")
    command = [sys.executable, TOOLS / "train_action.py", *FILMS, *QUICK]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "train_action" / "001", done.stdout


@pytest.fixture
def folders(tmp_path):
    """Return class folders of two classes, four films each."""
    root = tmp_path / "films"
    for name in ("noise", "numbers"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            film = noisy_film(12) if name == "noise" else numbered_film(12 + number)
            encode(root / name / f"{number}.mp4", film)
    return root


def losses(run):
    with (run / "metrics.csv").open() as file:
        rows = csv.DictReader(file)
        return {int(row["step"]): row["train/loss"] for row in rows if row["train/loss"]}


def weights(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def test_help_comes_at_once(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    for word in ("fit", "test", "predict", "check-data", "--model.norm", "--data.still only"):
        assert word in text


def test_help_of_a_subcommand_shows_the_options(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--data.clip.length", "--data.clip.fps", "--data.batch_size", "--data.views",
        "--data.train_portion", "--data.still", "--data.shift", "--model.name", "--model.norm",
        "--model.weights", "--model.backbone_lr_factor", "--model.optim.lr", "--run_dir",
    ):  # fmt: skip
        assert option in text


def test_fit_leaves_a_complete_run(trained):
    run, text = trained
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        "val.json", "val_confusion.png", "val_clips.png", "curve.png",
    } <= names  # fmt: skip
    scores = found(run)
    assert scores["videos"] == 12
    assert len(scores["classes"]) == 12
    # The control without motion stands beside the real figure.
    assert f"top-1 {scores['top1']:.3f} 12" in " ".join(text.split())
    assert f"repeated: top-1 {scores['still_top1']:.3f} (by chance 0.083)" in text
    assert len(losses(run)) == 2
    with (run / "val_videos.csv").open() as file:
        videos = list(csv.DictReader(file))
    right = [video["class"] == video["predicted"] for video in videos]
    assert sum(right) / 12 == pytest.approx(scores["top1"])
    matrix, classes = read_matrix(run / "val_confusion.csv")
    assert matrix.sum() == 12
    counted = matrix[classes.index(videos[0]["class"]), classes.index(videos[0]["predicted"])]
    assert counted >= 1
    assert Path(videos[0]["video"]).is_file()
    assert {"val_worst.png", "val_best.png", "versions.json"} <= names


def test_the_report_of_a_run_opens_in_a_browser(trained):
    run, _ = trained
    figures, pictures, complaints = shown_report(run / "report.html")
    assert complaints == []
    assert figures >= 5  # losses, scores, confusions
    assert pictures == 3  # clips spread over the videos, the worst and the best
    assert (run / "report.html").stat().st_size < 10 * 2**20


def test_the_worst_and_the_best_clips_are_kept():
    report = ActionReport(Path("run"), num_clips=1)
    scores = [0.5, 0.9, 0.1, 0.4, 0.2, 0.8, 0.6, 0.3, 0.7]
    for video, score in enumerate(scores):
        for _ in range(2):  # a second view of a video has no place of its own
            report._rank(score, video, ShownClip(torch.full((1,), score), 0, 1, score))
    kept = {name: [(video, clip.video.item()) for _, video, clip in each]
            for name, each in report.extremes.items()}  # fmt: skip
    assert kept["worst"] == [(2, pytest.approx(0.1)), (4, pytest.approx(0.2)),
                             (7, pytest.approx(0.3)), (3, pytest.approx(0.4))]  # fmt: skip
    assert [video for video, _ in kept["best"]] == [1, 5, 8, 6]


@pytest.mark.parametrize(("subcommand", "stage"), [("validate", "val"), ("test", "test")])
def test_a_checkpoint_gives_the_scores_of_the_end_of_training(
    trained, subcommand, stage, monkeypatch
):
    titles = {}

    def draws(*arguments):
        *_, title, path = arguments
        titles[path.name] = title
        draw_clips(*arguments)

    monkeypatch.setattr(report_module, "draw_clips", draws)
    run, _ = trained
    last = run / "checkpoints" / "last.ckpt"
    views = [] if stage == "val" else ["--data.views=3"]
    main([subcommand, "--ckpt_path", str(last), "--run_dir=out", *views])
    scores = found(Path("out"), stage)
    if stage == "val":
        before = found(run)
        assert scores.pop("classes") == pytest.approx(before.pop("classes"))
        assert scores == pytest.approx(before)
    assert scores["clips"] == (12 if stage == "val" else 36)
    told = titles[f"{stage}_clips.png"]
    assert re.fullmatch(rf"{stage}: .+, top-1 {scores['top1']:.3f}", told)
    assert titles == {
        f"{stage}_clips.png": told, f"{stage}_worst.png": f"{told}: the worst clips",
        f"{stage}_best.png": f"{told}: the best clips",
    }  # fmt: skip


def test_still_clips_alone(trained):
    run, _ = trained
    last = run / "checkpoints" / "last.ckpt"
    main(["test", "--ckpt_path", str(last), "--run_dir=out", "--data.still=only",
          "--num_pictures=0"])
    assert not list(Path("out").glob("*clips.png"))  # of which `trained` has one
    assert found(Path("out"), "test")["top1"] == pytest.approx(found(run)["still_top1"])


def test_predict_writes_films_strips_and_a_list(trained, capsys):
    run, _ = trained
    Path("other").mkdir()
    encode(Path("film.mp4"), numbered_film(30))
    encode(Path("other/film.mp4"), noisy_film(9), rotation=90)
    Path("text.mp4").write_text("no video")
    headers_only(Path("empty.mp4"), noisy_film(9))
    last = run / "checkpoints" / "last.ckpt"
    files = ["film.mp4", "other/film.mp4", "text.mp4", "empty.mp4"]
    assert command(["predict", str(last), *files, "--out=out"]) == 1
    out = Path("out")
    assert {path.name for path in out.iterdir()} == {
        "film.mp4", "film.png", "film.scores.json", "film_2.mp4", "film_2.png",
        "film_2.scores.json", "predictions.json",
    }  # fmt: skip
    listed = json.loads((out / "predictions.json").read_text())
    assert list(listed) == ["film.mp4", "other/film.mp4"]
    for scores in listed.values():
        assert len(scores) == 5
        assert sorted(scores.values(), reverse=True) == list(scores.values())
    with av.open(str(out / "film.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 30
    assert frames[0].shape == (350, 480, 3)
    text = capsys.readouterr().out
    assert "2 files could not be read" in text
    assert "left out, met 1 times: text.mp4" in text
    assert "skipped" in text
    for word in ("--resume=true", "--watch=1"):
        refused = command(["predict", str(last), "film.mp4", "--out=none", word])
        assert "--resume and --watch are of scans; the network is of videos" in refused
    assert not Path("none").exists()


def test_predict_writes_what_the_network_looked_at(trained, capsys, monkeypatch):
    monkeypatch.setattr(attribution, "STEPS", (16,))  # the network hardly tells blur
    run, _ = trained
    encode(Path("film.mp4"), numbered_film(30))
    last = run / "checkpoints" / "last.ckpt"
    words = ["--attribution=integrated_gradients", "--target=move up", "--statistics=true"]
    assert command(["predict", str(last), "film.mp4", "--out=out", "--views=1", *words]) == 0
    said = r"attribution of move up in out/film\.attribution\.npz, complete but for \d+\.\d%"
    assert re.search(said, capsys.readouterr().out)
    with np.load("out/film.attribution.npz") as told:
        assert told["values"].shape == (1, 4, 32, 32)
        frames = told["frames"]
        # Of 36 x 72 pixels after resizing, the middle 32 x 32.
        assert told["box"].tolist() == pytest.approx([2 / 36, 20 / 72, 34 / 36, 52 / 72])
    assert frames.tolist() == [[11, 13, 15, 17]]  # the middle view, every other frame
    with np.load("out/film.statistics.npz") as told:
        assert {values.shape[0] for values in told.values()} == {1}
    predictor = ClipPredictor(last, views=1)
    explained = predictor.attribution("film.mp4", "move up")
    with np.load("out/film.attribution.npz") as told:
        np.testing.assert_allclose(explained.values, told["values"], rtol=1e-3, atol=1e-6)
    named = predictor.attribution("film.mp4").target
    assert named == predictor("film.mp4").argmax() != explained.target
    shown = clips([Path("film.mp4")], [Path("out")])[0]
    heat = shown["heat"]
    assert [heat["at"][number] for number in (0, 11, 15, 29)] == [None, 0, 2, None]
    assert len(heat["pictures"]) == 4
    assert shown["statistics"]


@pytest.mark.slow  # 10 s
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(monkeypatch):
    bar = {}
    monkeypatch.setattr(ActionModule, "on_fit_end", raising=False,
                        value=lambda module: bar.update(module.trainer.progress_bar_metrics))
    main(["fit", *STEADY, *UNKEPT, "--trainer.max_epochs=2", "--run_dir=whole"])
    main(["fit", *STEADY, "--run_dir=half"])
    last = "half/checkpoints/last.ckpt"
    main(["fit", "--ckpt_path", last, "--run_dir=rest", "--trainer.max_epochs=2"])
    whole = losses(Path("whole"))
    assert {**losses(Path("half")), **losses(Path("rest"))} == whole
    assert bar["val/top1"] == pytest.approx(found(Path("rest"))["top1"])
    assert len(set(whole.values())) == 4
    main(["fit", *STEADY, *UNKEPT, "--run_dir=other", "--seed_everything=1"])
    # The head starts at zero, so the first loss is log 12 whatever the seed.
    assert losses(Path("other"))[1] != whole[1]


@pytest.mark.slow
def test_fine_tuning_leaves_a_backbone_of_rate_zero_as_it_was(trained, folders, capsys):
    run, _ = trained
    last = run / "checkpoints" / "last.ckpt"
    main([
        "fit", "--config", "ucf101_three_clips", *QUICK,
        "--data.root", str(folders), "--trainer.check_val_every_n_epoch=1", "--run_dir=out",
        "--model.weights", str(last), "--model.backbone_lr_factor=0",
        "--model.norm", '{"default": "instance", "layer3": "none", "layer4": "none"}',
    ])  # fmt: skip
    assert "left as they were 2: fc.weight, fc.bias" in capsys.readouterr().out
    before, after = weights(last), weights("out/checkpoints/last.ckpt")
    changed = [key for key in after if not torch.equal(before[key], after[key])]
    assert changed == ["model.fc.weight", "model.fc.bias"]
    assert after["model.fc.weight"].shape[0] == 2


@pytest.mark.slow
def test_files_that_fail_are_listed_at_the_end(folders, capsys):
    headers_only(folders / "noise" / "1.mp4", noisy_film(9))
    (folders / "numbers" / "2.mp4").write_bytes(b"no video")
    config = ["--config", "ucf101_three_clips"]
    root = ["--data.root", str(folders)]
    main(["fit", *config, *root, *QUICK, "--trainer.check_val_every_n_epoch=1",
          *UNKEPT])
    text = capsys.readouterr().out
    assert "2 files could not be read" in text
    assert f"left out, met 1 times: {folders / 'numbers' / '2.mp4'}" in text
    assert f": {folders / 'noise' / '1.mp4'}" in text
    with Path("out/left_out.csv").open() as file:
        assert {row["file"]: row["what"] for row in csv.DictReader(file)} == {
            str(folders / "numbers/2.mp4"): "left out", str(folders / "noise/1.mp4"): "skipped",
        }  # fmt: skip
    assert str(folders / "numbers/2.mp4") in Path("out/report.html").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["check-data", *config, *root])
    assert ended.value.code == 1
    text = capsys.readouterr().out
    assert "train: 8 videos, 2 classes" in text
    for broken in ("numbers/2.mp4", "noise/1.mp4"):
        assert f"unreadable: {folders / broken}" in text
    assert "2 unreadable, 0 damaged, 0 odd" in text
    assert not Path("runs").exists()


def test_check_data_of_sound_files_ends_well(folders, capsys):
    main(["check-data", "--config", "ucf101_three_clips",
          "--data.root", str(folders)])  # fmt: skip
    assert "0 unreadable" in capsys.readouterr().out


@pytest.mark.slow
def test_a_change_of_appearance_in_testing(trained):
    run, _ = trained
    last = run / "checkpoints" / "last.ckpt"
    main(["test", "--ckpt_path", str(last), "--run_dir=out", "--data.views=1",
          "--data.shift=AppearanceShift", "--data.shift.kind=cast"])  # fmt: skip
    assert found(Path("out"), "test")["videos"] == 12


@pytest.mark.slow
def test_a_corruption_in_testing(trained):
    run, _ = trained
    last = run / "checkpoints" / "last.ckpt"
    options = ["test", "--ckpt_path", str(last), "--run_dir=out", "--data.views=1",
               "--trainer.precision=32-true", "--data.shift=ClipCorruption",
               "--data.shift.name=shot_noise"]  # fmt: skip
    seen = []
    for more in ([], ["--data.shift.severity=0"], ["--data.shift.severity=5"]):
        main([*(options if more else options[:6]), *more])
        assert found(Path("out"), "test")["videos"] == 12
        with (Path("out") / "metrics.csv").open() as file:
            seen.append([row["test/loss"] for row in csv.DictReader(file)])
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.slow
def test_what_training_may_add_is_reached_and_repeats_itself():
    """Twelve films twice make four batches of six, and two steps; the same run gives the same."""
    options = ["--model.mixup=0.8", "--model.cutmix=1.0", "--model.label_smoothing=0.1",
               "--model.layer_decay=0.5", "--data.repeats=2", "--data.clip.rand_augment=9",
               "--trainer.accumulate_grad_batches=2", "--model.input_norm=HW"]  # fmt: skip
    seen = []
    for folder in ("a", "b"):
        main(["fit", *FILMS, *QUICK, *options, f"--run_dir={folder}"])
        seen.append((losses(Path(folder)), weights(Path(folder) / "checkpoints" / "last.ckpt")))
    assert list(seen[0][0]) == [0, 1]
    assert seen[0][0] == seen[1][0]
    assert all(torch.equal(value, seen[1][1][key]) for key, value in seen[0][1].items())
    with (Path("a") / "metrics.csv").open() as file:
        rates = next(row for row in csv.DictReader(file) if row["lr-SGD/pg6"])
    base = float(rates["lr-SGD/pg1"])
    found_rates = [float(rates[f"lr-SGD/pg{group}"]) / base for group in range(2, 7)]
    assert found_rates == pytest.approx([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.name=r3d_81"], "Did you mean 'r3d_18'"),
        (["--model.backbone_lr_factor=-1"], "backbone_lr_factor must be at least 0; got -1"),
        (["predict"], r"predict is a command of its own: geonorm predict FILE\.ckpt"),
        (["test", "--data.clip.crop=80"], "frames must be at least as large as the crop"),
        (
            ["--config", "ucf101", "--data.root=nothing"],
            "expected a folder; nothing is none",
        ),
    ],
)
def test_mistakes_are_explained(options, message):
    films = [] if "--config" in options else FILMS
    with pytest.raises(ValueError, match=message):
        main([*options, *films, "--run_dir=run", "--data.num_workers=0"])
