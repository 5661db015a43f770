"""geonorm evaluate-shift: what it writes, that it goes on after a kill, and bad input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from train_seg import main as train

from geonorm.__main__ import main as command
from geonorm.training.shift.tasks import data_section, judged_on
from helpers.browser import shown_report

pytestmark = pytest.mark.filterwarnings("default")  # as users run it
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run of two steps on built-in streets."""
    folder = tmp_path_factory.mktemp("shift") / "run"
    train([
        "fit", "--data.train.init_args.num_scans=2", "--data.val.init_args.num_scans=3",
        "--data.voxel_size=0.8", "--data.batch_size=1", "--data.num_workers=0",
        "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--model.name=MinkUNetSlim",
        "--trainer.enable_progress_bar=false", f"--run_dir={folder}",
    ])  # fmt: skip
    return folder


FEW = ["--samples=2", "--corruptions", "fog", "density", "--resamples=100"]


def test_the_command_writes_scores_tables_and_a_heat_map(run, tmp_path, capsys):
    best, last = (run / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    assert command(["evaluate-shift", str(best), str(last), *FEW, f"--out={tmp_path}",
                    f"--baseline={last}", "--names", "best", "last"]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "2 of 3 scans" in said
    assert (tmp_path / "table.md").read_text() in said
    entry = json.loads((tmp_path / "scores.json").read_text())
    assert entry["baseline"] == "last"
    last_errors = entry["networks"]["last"]["groups"]["Robo3D"]["corruptions"]["fog"]["error"]
    assert last_errors == [1, 1, 1]
    assert entry["checkpoints"]["best"]["file"] == str(best)
    assert (entry["samples"], entry["of"], entry["beams"]) == (2, 3, 32)
    assert (entry["score"], entry["scans"], entry["seed"], entry["domain"]) == ("mIoU", 3, 0, None)
    assert entry["data"]["val"]["init_args"]["num_scans"] == 3
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 2 * (1 + 3 + 5)
    one = entry["networks"]["best"]["groups"]["others"]["corruptions"]["density"]["levels"]["5"]
    row = next(row for row in rows if (row["network"], row["corruption"], row["level"])
               == ("best", "density", "5"))  # fmt: skip
    assert [float(row[name]) for name in ("score", "low", "high")] == one
    assert one[1] <= one[0] <= one[2]
    assert best.read_bytes() != last.read_bytes()
    assert len([*(tmp_path / "cells").iterdir()]) == 2  # none is taken for another
    assert (tmp_path / "heat_map.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    fog = entry["networks"]["best"]["groups"]["Robo3D"]["corruptions"]["fog"]["levels"]
    told = [f"{fog[level][0]:.1%}" for level in "123"]
    assert f'"text": {json.dumps([*told, "", ""])[:-1]}' in page.replace("[[", "[")
    figures, _, complaints = shown_report(tmp_path / "report.html")
    assert (figures, complaints) == (2, [])
    # What was written is summarized to the same table, but for the intervals.
    assert command(["evaluate-shift", f"--summarize={tmp_path / 'scores.csv'}"]) == 0
    summary = re.findall(r"^\| \*\*(mean of .*?)\*\*", capsys.readouterr().out, re.MULTILINE)
    assert summary == ["mean of Robo3D (1 of 8)", "mean of others (1)"]


def test_what_a_checkpoint_is_judged_on(run):
    judged = judged_on([run / "checkpoints" / "last.ckpt"], beams=40, domain=1, seed=4,
                       words=["--data.val.init_args.num_scans=5"])  # fmt: skip
    assert (judged.score, judged.total, judged.samples) == ("mIoU", 5, 16)
    assert judged.titles == ["MinkUNetSlim, instance norm"]
    assert (judged.task.beams, judged.task.seed) == (40, 4)
    (network,) = judged.task.networks
    assert network.domain == 1
    assert {name: value for name, value in judged.facts.items() if name != "data"} == {
        "scans": 5, "beams": 40, "domain": 1, "seed": 4}  # fmt: skip


@pytest.mark.slow  # 20 s
def test_a_killed_run_goes_on_and_a_changed_option_begins_anew(run, tmp_path):
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    words = ["evaluate-shift", checkpoint, "--samples=3", "--corruptions", "motion_blur"]
    process = subprocess.Popen(
        [sys.executable, "-m", "geonorm", *words, f"--out={tmp_path / 'killed'}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until, lines = time.monotonic() + 200, 0
    while lines < 3 and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
        lines = sum(len(file.read_bytes().splitlines()) for file in tmp_path.rglob("*.jsonl"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    file, = tmp_path.rglob("*.jsonl")
    before = file.read_bytes().rpartition(b"\n")[0]
    assert before.count(b"\n") >= 2
    assert not [*tmp_path.rglob("scores.csv")]
    for name in ("killed", "undisturbed"):
        assert command([*words, f"--out={tmp_path / name}"]) == 0
    assert file.read_bytes().startswith(before)
    assert len(file.read_bytes().splitlines()) == 1 + 3 * 4
    csvs = [(tmp_path / name / "scores.csv").read_bytes() for name in ("killed", "undisturbed")]
    assert csvs[0] == csvs[1]
    assert command([*words, "--seed=1", f"--out={tmp_path / 'killed'}"]) == 0
    assert len([*(tmp_path / "killed/cells").iterdir()]) == 2
    assert (tmp_path / "killed/scores.csv").read_bytes() != csvs[0]


@pytest.mark.parametrize("text", ["[]", "data: [1]", "model: {}", "3"])
def test_a_configuration_without_data_is_refused(tmp_path, text):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml has no section `data`"):
        data_section(tmp_path / "a.ckpt", str(file))
    checkpoint = tmp_path / "run" / "checkpoints" / "a.ckpt"
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("data: {seed: 7}")
    assert data_section(checkpoint, None) == {"seed": 7}


def test_beams_and_domains_are_of_scans(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "a.ckpt"
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("data: {seed: 7}")
    torch.save({"ClipData": {}, "state_dict": {}, "epoch": 0}, checkpoint)
    for option in ({"beams": 32}, {"domain": 0}):
        with pytest.raises(ValueError, match=r"--beams and --domain are of scans"):
            judged_on([checkpoint], **option)


def test_bad_input_of_the_command(run, tmp_path):
    good = str(run / "checkpoints" / "last.ckpt")
    alone = tmp_path / "alone.ckpt"
    shutil.copy(good, alone)
    (tmp_path / "none.yaml").write_text("model: {}\n")
    other = tmp_path / "other.yaml"
    other.write_text("data: {val: {class_path: geonorm.datasets.S3DIS}}\n")
    bad = {
        r"expected checkpoints of geonorm train-seg or train-action, or --summarize": [],
        r"none\.ckpt": [str(tmp_path / "none.ckpt")],
        r"no configuration beside the checkpoint .*alone\.ckpt.*as --config": [str(alone)],
        r"none\.yaml has no section `data`": [good, f"--config={tmp_path / 'none.yaml'}"],
        r"--config 'streats' is no file.*'streets'": [good, "--config=streats"],
        r"no corruption 'frog'.*Did you mean 'fog'": [good, "--corruptions", "frog"],
        r"each checkpoint must be given once": [good, good],
        r"--names must be 1 different names.*got a, b": [good, "--names", "a", "b"],
        r"--baseline must be a CSV file.*got 'other'": [good, "--baseline=other"],
        r"no file .*none\.csv": [good, f"--baseline={tmp_path / 'none.csv'}"],
        r"--samples must be 1 or more, or all; got 0": [good, "--samples=0"],
        r"--seed must be 0 or more; got -1": [good, "--seed=-1"],
        r"--resamples must be 100 or more.*got 99": [good, "--resamples=99"],
        r"beams must be the rings of the sensor.*got 4": [good, "--beams=4"],
        r"--data\.root needs a value": [good, "--data.root"],
        r"unexpected keyword argument 'root'.*leave the option out": [good, "--data.root=a"],
    }
    for message, words in bad.items():
        said = command(["evaluate-shift", *words, f"--out={tmp_path / 'out'}"])
        assert isinstance(said, str), words
        assert re.search(message, said), said
        assert said.startswith("geonorm evaluate-shift: ")
    assert not (tmp_path / "out").exists()


def test_checkpoints_of_other_classes_or_trainings_are_refused(run, tmp_path):
    good = run / "checkpoints" / "last.ckpt"
    state = torch.load(good, weights_only=True)
    state["hyper_parameters"]["classes"] = [*reversed(state["hyper_parameters"]["classes"])]
    shutil.copy(run / "config.yaml", tmp_path)
    (tmp_path / "checkpoints").mkdir()
    other = tmp_path / "checkpoints" / "other.ckpt"
    torch.save(state, other)
    said = command(["evaluate-shift", str(other), f"--out={tmp_path / 'out'}"])
    assert re.search(r"other\.ckpt knows the classes .*; the data have .*road", said)
    del state["ScanData"]
    torch.save(state, other)
    said = command(["evaluate-shift", str(other), f"--out={tmp_path / 'out'}"])
    assert re.search(r"other\.ckpt does not say what it was trained on", said)
