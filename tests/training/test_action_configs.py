"""The configurations of train_action.py: each reads its dataset, and the small ones learn."""

import json
import time
from pathlib import Path

import av
import pytest
import yaml
from train_action import main

from geonorm.__main__ import main as command
from geonorm.training.cli import CONFIGS
from helpers.action_runs import QUICK, UNKEPT, found, layout

THREE_CLIPS = ["--config", "ucf101_three_clips"]
CHANCE = 1 / 12
# What the tool is made of warns about matters of its own, such as few workers.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Run each test in a folder, and with a cache, of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GEONORM_RUN_DIR", "")


@pytest.mark.parametrize("config", [
    "ucf101", *(pytest.param(name, marks=pytest.mark.slow)
                for name in ("hmdb51", "kinetics", "kinetics_torchvision", "ssv2")),
])  # fmt: skip
def test_every_configuration(tmp_path, config):
    root, lists = layout(tmp_path, config)
    file = CONFIGS / f"{config}.yaml"
    labels = [f"--data.{fold}.init_args.labels={tmp_path / 'lists' / 'labels'}"
              for fold in ("train", "val") if config == "ssv2"]  # fmt: skip
    main([
        "fit", "--config", str(file), "--data.root", str(root), *labels,
        f"--data.train.init_args.annotations={lists}", f"--data.val.init_args.annotations={lists}",
        *QUICK, "--model.weights=null", "--trainer.check_val_every_n_epoch=1", *UNKEPT,
    ])  # fmt: skip
    scores = found(Path("out"))
    assert scores["videos"] == (2 if config == "hmdb51" else 6)
    optim = yaml.safe_load(file.read_text())["model"]["optim"]
    assert optim["options"]["momentum"] == 0.9


def test_three_real_clips(data_root):
    main([
        "fit", *THREE_CLIPS, "--data.root", str(data_root / "ucf101"), *QUICK,
        "--trainer.max_steps=2", "--trainer.check_val_every_n_epoch=2",
        "--trainer.max_epochs=-1", "--run_dir=run",
    ])  # fmt: skip
    main(["test", "--ckpt_path=run/checkpoints/last.ckpt", "--run_dir=out"])
    assert found(Path("out"), "test")["clips"] >= 30


@pytest.mark.long
def test_three_real_clips_are_told_apart(data_root):
    """Trained on the first half of each, judged on windows of the second."""
    root = data_root / "ucf101"
    main(["fit", *THREE_CLIPS, "--data.root", str(root), "--run_dir=run"])
    last = "run/checkpoints/last.ckpt"
    main(["test", f"--ckpt_path={last}", "--run_dir=out"])
    scores = found(Path("out"), "test")
    assert scores["clips"] >= 30
    assert scores["clip_top1"] >= 0.9
    clip = next(root.glob("Basketball/*.avi"))
    assert not command(["predict", last, str(clip), "--out=out/predictions"])
    listed = json.loads(Path("out/predictions/predictions.json").read_text())
    assert next(iter(listed[str(clip)])) == "Basketball"
    with av.open(f"out/predictions/{clip.stem}.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) > 100
    assert Path(f"out/predictions/{clip.stem}.png").stat().st_size > 10_000


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_motion_of_built_in_videos_is_learnt():
    start = time.monotonic()
    main(["fit", "--run_dir=run", "--trainer.enable_progress_bar=false"])
    print(f"{(time.monotonic() - start) / 60:.1f} minutes, with drawing and the last validation")
    scores = found(Path("run"))
    assert scores["top1"] >= 0.80
    assert scores["still_top1"] <= 2 * CHANCE
