"""`make demo`: its tables and pictures, from trainings as short as they can be."""

import re

import demo
import pytest

from helpers.action_runs import FILMS, QUICK

TINY_SCANS = [
    "--data.train.init_args.num_scans=2",
    "--data.val.init_args.num_scans=1",
    "--data.batch_size=1",
    "--model.name=PointMLP",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]


def test_quick_limits_hold_for_every_training() -> None:
    assert {command[0] for command, _ in demo.RUNS.values()} == set(demo.QUICK)


@pytest.mark.long  # CI runs `make demo QUICK=1` itself
def test_one_table_shows_scans_and_videos(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path / "cache"))
    short = {"train_seg.py": TINY_SCANS, "train_action.py": [*FILMS, *QUICK]}
    runs = {title: ([*command, *short[command[0]]], names)
            for title, (command, names) in demo.RUNS.items() if "MLP" not in title}  # fmt: skip
    monkeypatch.setattr(demo, "RUNS", runs)
    demo.main()
    said = capfd.readouterr().out
    assert "r3d_18" in said[: said.index("=== 1 of 2")]  # the table of the invariances comes first
    assert (tmp_path / "runs/demo/001/invariance.png").exists()
    table = said.splitlines()[-7:-4]
    assert said.endswith(f"\n\n{demo.WHY}\n")
    minutes = r"0\.\d{3} +\d+\.\d min   runs/demo/001"
    assert re.fullmatch(rf"scans: MinkUNet, .* mIoU {minutes}/1-train_seg", table[0])
    assert re.fullmatch(rf"videos: 3D-ResNet, .* top-1 {minutes}/2-train_action", table[1])
    assert re.fullmatch(r" +one frame repeated: top-1 0\.\d{3}", table[2])
    assert (tmp_path / "runs/demo/001/2-train_action/val_clips.png").exists()
