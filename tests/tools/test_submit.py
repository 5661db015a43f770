"""geonorm submit: jobs of several processes, and what is refused."""

import os
import subprocess
import sys

import pytest

from geonorm.__main__ import main
from geonorm.commands.submit import Training, parser, training_of
from geonorm.commands.submit import __doc__ as documentation
from geonorm.training.checkpoints import read_run_checkpoint
from helpers.semantickitti_trees import write_labelled

pytest.importorskip("submitit")


def test_the_documented_commands_are_trainings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEONORM_RUN_DIR", "")
    lines = [line.split() for line in documentation.splitlines() if line.startswith("  geonorm")]
    first, second = (training_of(parser().parse_args(words[2:])) for words in lines)
    assert first.words == [
        "train-seg", "fit", "--config", "semantickitti", "--save_every", "500",
        f"--run_dir={tmp_path / 'runs/train_seg/001'}", "--trainer.devices=8",
        "--trainer.num_nodes=2", "--trainer.strategy=ddp",
    ]  # fmt: skip
    assert second.run_dir == tmp_path / "runs/train_action/001"
    given = training_of(parser().parse_args(["train-seg", "--run_dir", "mine"]))
    assert given.run_dir == tmp_path / "mine"
    assert given.checkpoint().function is given  # the same again


@pytest.mark.parametrize("words", ["", "predict a.ckpt b.bin", "train-seg test --ckpt_path a.ckpt",
                                   "train-action validate"])  # fmt: skip
def test_what_is_no_training_is_refused(words):
    said = main(["submit", *words.split()])
    assert said.startswith("geonorm submit: expected a training, geonorm submit ... train-seg fit")
    assert said.endswith(f"got {words or 'none'}")


def test_a_training_that_fails_fails_its_job(tmp_path, monkeypatch):
    """In the environment that submitit makes for the only process of a local job."""
    told = {"EXECUTOR": "local", "LOCAL_JOB_ID": "1", "LOCAL_NTASKS": "1", "LOCAL_NODEID": "0",
            "LOCAL_JOB_NUM_NODES": "1", "LOCAL_GLOBALID": "0", "LOCAL_LOCALID": "0"}  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)
    with pytest.raises(RuntimeError, match=r"-m geonorm no-training ended with 1; see its log"):
        Training(["no-training"], tmp_path)()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_job_of_two_processes_and_its_continuation(tmp_path):
    write_labelled(tmp_path / "kitti")
    command = [
        sys.executable, "-m", "geonorm", "submit", "--cluster=local", "--tasks=2", "--gpus=0",
        "--wait", "train-seg", "fit", "--config=semantickitti", f"--data.root={tmp_path / 'kitti'}",
        "--run_dir=run", "--model.name=PointMLP", "--data.batch_size=1", "--data.num_workers=0",
        "--trainer.accelerator=cpu", "--trainer.limit_val_batches=0",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for epochs in (1, 2):
        done = subprocess.run([*command, f"--trainer.max_epochs={epochs}"], cwd=tmp_path,
                              env=environment, capture_output=True, text=True,
                              check=False)  # fmt: skip
        logs = "".join(path.read_text() for path in (tmp_path / "run/jobs").glob("*log.*"))
        assert done.returncode == 0, done.stdout + done.stderr + logs
        last = read_run_checkpoint(tmp_path / "run/checkpoints/last.ckpt")
        assert last["global_step"] == 5 * epochs  # ten scans, by two processes
    assert "Restoring states from the checkpoint" in logs
    assert "MEMBER: 2/2" in logs
