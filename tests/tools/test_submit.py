"""geonorm submit: jobs of several processes, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.parametrize("words", ["", "predict a.ckpt b.bin", "train-seg test --ckpt_path a.ckpt",
                                   "train-action validate"])  # fmt: skip
def test_what_is_no_training_is_refused(words):
    said = main(["submit", *words.split()])
    assert said.startswith("geonorm submit: expected a training, geonorm submit ... train-seg fit")
    assert said.endswith(f"got {words or 'none'}")


class Recorder:
    """Stands for submitit's executor: keeps what it is told."""

    waited = False

    def __init__(self, folder, cluster):
        self.folder, self.cluster, self.job_id = folder, cluster, "7"
        Recorder.last = self

    def update_parameters(self, **parameters):
        self.parameters = parameters

    def submit(self, training):
        self.training = training
        return self

    def results(self):
        self.waited = True


def test_what_is_asked_of_the_cluster(tmp_path, monkeypatch, capsys):
    import submitit

    monkeypatch.setattr(submitit, "AutoExecutor", Recorder)
    run = f"--run_dir={tmp_path / 'run'}"
    assert main(["submit", "--tasks=3", "train-action", "fit", run]) == 0
    told = Recorder.last
    assert (told.folder, told.cluster) == (tmp_path / "run/jobs", "slurm")
    assert told.parameters == {"name": "train-action", "nodes": 1, "tasks_per_node": 3,
                               "gpus_per_node": 3, "cpus_per_task": 8,
                               "timeout_min": 1440}  # fmt: skip
    assert told.training.run_dir == tmp_path / "run"
    assert not told.waited
    assert capsys.readouterr().out.startswith(f"job 7: run in {tmp_path / 'run'}, logs in ")
    words = ["--nodes=2", "--tasks=4", "--gpus=0", "--cpus=5", "--hours=0.51", "--partition=p",
             "--wait"]  # fmt: skip
    assert main(["submit", "--cluster=local", *words, "train-seg", run]) == 0
    told = Recorder.last
    assert (told.cluster, told.waited) == ("local", True)
    assert told.parameters == {"name": "train-seg", "nodes": 2, "tasks_per_node": 4,
                               "gpus_per_node": 0, "cpus_per_task": 5, "timeout_min": 31,
                               "slurm_partition": "p"}  # fmt: skip


def test_a_process_of_a_job_knows_its_place_and_goes_on(tmp_path, monkeypatch):
    import submitit
    from submitit import helpers

    job = SimpleNamespace(job_id="12", node=1)
    place = SimpleNamespace(master_addr="here", master_port=80, rank=5, local_rank=2, world_size=6)
    monkeypatch.setattr(submitit, "JobEnvironment", lambda: job)
    monkeypatch.setattr(helpers, "TorchDistributedEnvironment", lambda: place)
    started = []

    def run(command, env, check):
        started.append((command[1:], env))
        return SimpleNamespace(returncode=len(started) // 2)

    monkeypatch.setattr(subprocess, "run", run)
    training = Training(["train-seg", "fit"], tmp_path)
    training()
    command, environment = started[0]
    assert command == ["-m", "geonorm", "train-seg", "fit"]
    told = {
        "TORCHELASTIC_RUN_ID": "12", "MASTER_ADDR": "here", "MASTER_PORT": "80", "RANK": "5",
        "LOCAL_RANK": "2", "WORLD_SIZE": "6", "GROUP_RANK": "1", "PATH": os.environ["PATH"],
    }  # fmt: skip
    assert environment.items() >= told.items()
    last = Path(tmp_path / "checkpoints/last.ckpt")
    last.parent.mkdir()
    last.touch()
    with pytest.raises(RuntimeError, match=r"train-seg fit --ckpt_path=.* ended with 1; see"):
        training()
    assert started[1][0][-1] == f"--ckpt_path={last}"


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
