"""Runs of several processes: one folder for all, each sample once, resumed within an epoch."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer

from geonorm.training import throughput
from geonorm.training.checkpoints import LastCheckpoint, StepCheckpoint, read_run_checkpoint
from geonorm.training.launch import chosen_by_the_first, launcher
from geonorm.training.progress import RunProgressLines
from geonorm.training.sampler import (
    EpochData,
    EpochLoader,
    EpochSampler,
    without_position,
)
from helpers.segmentation_runs import run_config
from helpers.semantickitti_trees import write_labelled

pytestmark = pytest.mark.filterwarnings("default")
STEPS = 5  # in an epoch: ten scans, one at a time, by two processes

# Imports once and becomes all processes of a run, which a launcher would start one by one.
PROCESSES = """if True:
    import json, os, sys
    from torch import distributed
    from geonorm.training.cli import run_folder
    for run in json.loads(sys.argv[1]):
        children = []
        for number, environment in enumerate(run):
            if (child := os.fork()) == 0:
                os.environ.update(environment)
                mine = str(run_folder(None, "tool"))
                distributed.init_process_group("gloo", rank=number, world_size=len(run))
                all_of_them = [None] * len(run)
                distributed.all_gather_object(all_of_them, mine)
                if number == 0:
                    print(json.dumps(all_of_them), flush=True)
                distributed.barrier()
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
    """


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def by_torchrun(processes):
    """Return the variables that torchrun gives each process."""
    port = free_port()
    return [{"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
             "RANK": str(n), "LOCAL_RANK": str(n), "WORLD_SIZE": str(processes)}
            for n in range(processes)]  # fmt: skip


def by_slurm(processes):
    """Return the variables that srun gives each process, on two nodes."""
    port = free_port()
    return [{"SLURM_NTASKS": str(processes), "SLURM_NTASKS_PER_NODE": "2",
             "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n % 2),
             "SLURM_NODEID": str(n // 2), "SLURM_JOB_ID": "71234", "SLURM_JOB_NAME": "training",
             "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": port}
            for n in range(processes)]  # fmt: skip


@pytest.mark.slow
def test_the_processes_of_a_run_share_its_folder(tmp_path):
    """That of another run, which these inherit, is not theirs; nor is a folder taken twice."""
    (tmp_path / "runs/tool/001").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES, json.dumps([by_torchrun(2), by_slurm(4)])], cwd=tmp_path,
        env={**os.environ, "GEONORM_RUN_DIR": "another", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folders = [json.loads(line) for line in done.stdout.splitlines()]
    assert folders == [["runs/tool/002"] * 2, ["runs/tool/003"] * 4]
    assert len(list((tmp_path / "runs/tool").iterdir())) == 3


def test_a_further_node_without_a_launcher_is_told_what_to_do(monkeypatch):
    monkeypatch.setenv("NODE_RANK", "1")
    with pytest.raises(ValueError, match=r"node 1 of a run on several, .* give --run_dir FOLDER"):
        chosen_by_the_first(lambda: "unused")


def loader(rank=0, processes=2, workers=0, batch_size=2, seed=3, samples=23):
    data = list(range(samples))
    sampler = EpochSampler(data, True, seed, rank, processes)
    return EpochLoader(data, batch_size, sampler=sampler, num_workers=workers, drop_last=True)


def batches_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_it_was(workers):
    whole = loader()
    first, second = (batches_of(whole, epoch) for epoch in (4, 5))
    assert len(first) == len(second) == 5
    assert first != second
    stopped = loader()
    stopped.sampler.set_epoch(4)
    begun = iter(stopped)
    assert [next(begun).tolist(), next(begun).tolist()] == first[:2]
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = loader(workers=workers)
    resumed.load_state_dict(state)
    assert len(resumed) == 5  # of the whole epoch, by which a schedule counts
    assert batches_of(resumed, 4) == first[2:]
    assert resumed.state_dict()["batches"] == 5
    assert batches_of(resumed, 5) == second
    resumed.load_state_dict(state)
    assert batches_of(resumed, 5) == second  # another epoch's place is none in this one
    assert batches_of(resumed, 4) == first  # nor is it kept


@pytest.mark.parametrize(
    "other", [{"processes": 3}, {"batch_size": 1}, {"seed": 4}, {"samples": 22}], ids=str
)
def test_an_epoch_divided_in_another_way_is_refused(other):
    begun = loader()
    next(iter(begun))
    message = r"within an epoch, divided by .*'batch_size': 2, .*; got .*Go on as before"
    with pytest.raises(ValueError, match=message):
        loader(**other).load_state_dict(begun.state_dict())
    batches_of(begun, 0)
    loader(**other).load_state_dict(begun.state_dict())  # the epoch was over
    loader(**other).load_state_dict(loader().state_dict())  # nor had this one begun


class Slow:
    """A dataset that takes 10 ms for a sample."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        time.sleep(0.01)
        return index


def test_a_loader_knows_how_long_it_was_waited_for():
    slow = EpochLoader(Slow(), 2, sampler=EpochSampler(Slow(), False))
    assert slow.waited == 0
    begin, waits = time.monotonic(), []
    for _ in slow:
        waits.append(slow.waited)
        time.sleep(0.02)
    assert waits[0] >= 0.02
    assert slow.waited >= waits[1] >= waits[0] + 0.02
    assert slow.waited <= time.monotonic() - begin - 0.04  # what was done with the batches


def test_where_a_run_was_is_forgotten_by_the_next_and_no_part_of_what_is_shared():
    data, begun = EpochData(), loader()
    assert data.state_dict() == {}
    next(iter(begun))
    data.load_state_dict({"position": begun.state_dict(), "votes": 3})
    assert len(batches_of(data.placed(loader()), 0)) == 4
    data.setup("fit")
    assert len(batches_of(data.placed(loader()), 0)) == 5
    data.load_state_dict({"votes": 3})
    assert len(batches_of(data.placed(loader()), 0)) == 5
    assert without_position({"votes": 3, "position": begun.state_dict()}) == {"votes": 3}


def test_speed_is_that_of_all_processes_and_validation_counts_for_nothing(monkeypatch):
    clock, logged = SimpleNamespace(now=100.0), []
    monkeypatch.setattr(throughput.time, "monotonic", lambda: clock.now)
    log = SimpleNamespace(should_update_logs=False)
    trainer = SimpleNamespace(
        train_dataloader=SimpleNamespace(waited=7.0), world_size=3, _logger_connector=log,
        datamodule=SimpleNamespace(unit="points", count=len),
        strategy=SimpleNamespace(
            root_device="cpu",
            reduce=lambda sums, reduce_op: sums + torch.tensor([5, 0, 0]),  # of other processes
        ),
        loggers=[SimpleNamespace(log_metrics=lambda found, step: logged.append((found, step)))],
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=11)),
    )  # fmt: skip
    speed = throughput.Throughput()
    speed.on_train_start(trainer, None)
    clock.now += 4
    speed.on_train_batch_end(trainer, None, None, "abc", 0)
    speed.on_validation_start(trainer, None)
    clock.now += 50
    speed.on_validation_end(trainer, None)
    clock.now += 6
    trainer.train_dataloader.waited += 2.5
    log.should_update_logs = True
    speed.on_train_batch_end(trainer, None, None, "defgh", 1)
    clock.now += 2
    speed.on_train_batch_end(trainer, None, None, "i", 2)
    assert logged == [
        ({"throughput/points_per_s": 13 * 3 / 10, "throughput/waiting_for_data": 0.25}, 11),
        ({"throughput/points_per_s": 6 * 3 / 2, "throughput/waiting_for_data": 0}, 11),
    ]


def test_what_started_a_run_is_told_in_lightnings_order(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)
    assert launcher() is None
    for name, value in by_slurm(2)[0].items():
        monkeypatch.setenv(name, value)
    assert type(launcher()) is SLURMEnvironment
    for name, value in by_torchrun(2)[0].items():
        monkeypatch.setenv(name, value)
    assert type(launcher()) is TorchElasticEnvironment


def test_lines_are_shown_by_the_first_process_alone(capsys):
    """Lightning disables the progress of the others, which must know how."""
    lines = RunProgressLines()
    lines.disable()
    lines.get_metrics = lambda *_: {"train/loss": 0.5}
    trainer = SimpleNamespace(current_epoch=1, global_step=7)
    lines._say(trainer, None)
    assert capsys.readouterr().out == ""
    lines.enable()
    lines._say(trainer, None)
    assert capsys.readouterr().out == "epoch 1, step 7: train/loss 0.500\n"


def test_a_checkpoint_every_no_steps_is_refused():
    with pytest.raises(ValueError, match="--save_every must be at least 1 step; got 0"):
        StepCheckpoint(Path("last.ckpt"), 0)
    assert StepCheckpoint(Path("last.ckpt"), 1).every == 1


def test_checkpoints_are_written_once_at_each_of_their_steps_and_whole():
    """A run that begins at step 6, of which every other batch only adds to the gradient."""
    saved, steps = [], []
    trainer = SimpleNamespace(
        global_step=6, checkpoint_callback=None,
        save_checkpoint=lambda path, weights_only: saved.append(
            (len(steps), path.name, weights_only)
        ),
    )  # fmt: skip
    every = StepCheckpoint(Path("run/last.ckpt"), 3)
    every.on_train_start(trainer, None)
    for step in (6, 7, 7, 8, 8, 9, 9, 10, 11, 12):
        steps.append(step)
        trainer.global_step = step
        every.on_train_batch_end(trainer, None, None, None, 0)
    assert saved == [(6, "last.ckpt", False), (10, "last.ckpt", False)]
    end = LastCheckpoint(Path("run/end.ckpt"))
    end.on_train_end(trainer, None)
    assert len(saved) == 2
    trainer.checkpoint_callback = every
    end.on_train_end(trainer, None)
    assert saved[2:] == [(10, "end.ckpt", False)]


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    root = tmp_path_factory.mktemp("kitti")
    write_labelled(root)
    return root


OPTIONS = [
    "--model.name=PointMLP", "--data.batch_size=1", "--trainer.max_epochs=3",
    "--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=1",
]  # fmt: skip


def end_of(run):
    checkpoint = read_run_checkpoint(run / "checkpoints/last.ckpt")
    assert checkpoint["global_step"] == 3 * STEPS
    (optimizer,) = checkpoint["optimizer_states"]
    moments = {f"{number}.{name}": value for number, state in optimizer["state"].items()
               for name, value in state.items()}  # fmt: skip
    return checkpoint["state_dict"] | moments


def assert_same_bits(run, other):
    ends = end_of(run), end_of(other)
    assert ends[0].keys() == ends[1].keys()
    assert len(ends[0]) > 30
    for name, value in ends[0].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(ends[1][name])), name


def rows(run, column):
    with (run / "metrics.csv").open() as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row[column]}


def test_a_run_stopped_within_an_epoch_goes_on_there(kitti, tmp_path, monkeypatch):
    """With an average of the weights, which must have seen the step that is saved."""
    average = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.9"]
    options = [*OPTIONS, *average, "--data.batch_size=2", "--trainer.logger=CSVLogger",
               "--trainer.logger.save_dir=logs", "--save_every=7"]  # fmt: skip
    saved = {}
    save = Trainer.save_checkpoint

    def save_and_keep(self, path, *rest, **options):
        save(self, path, *rest, **options)
        saved.setdefault(self.global_step, Path(path).read_bytes())

    monkeypatch.setattr(Trainer, "save_checkpoint", save_and_keep)
    run_config("semantickitti", kitti, tmp_path / "whole", *options)
    assert sorted(saved) == [7, 14, 15]
    (tmp_path / "seventh.ckpt").write_bytes(saved[7])
    run_config(
        "semantickitti", kitti, tmp_path / "rest", *options, "--data.num_workers=1",
        f"--ckpt_path={tmp_path / 'seventh.ckpt'}",
    )  # fmt: skip
    assert_same_bits(tmp_path / "whole", tmp_path / "rest")


def torchrun(kitti, cwd, run, *words):
    """Start a training by two processes, as a user does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
               "-m", "geonorm", "train-seg", "fit", "--config=semantickitti",
               f"--data.root={kitti}", *OPTIONS, "--data.num_workers=0",
               "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp",
               "--save_every=3", *([f"--run_dir={run}"] if run else []), *words]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)  # fmt: skip


def child_of_rank(process, rank):
    """Return the process of that rank that torchrun started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
            return int(child)
    raise AssertionError(children)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_one_of_two_processes_is_killed_and_nothing_is_lost(kitti, tmp_path):
    whole = torchrun(kitti, tmp_path, None)  # chooses its folder
    killed = torchrun(kitti, tmp_path, "killed")
    last = tmp_path / "killed/checkpoints/last.ckpt"
    while not last.exists() and killed.poll() is None:
        time.sleep(0.005)
    os.kill(child_of_rank(killed, 1), signal.SIGKILL)
    output = killed.communicate()[0]
    assert killed.returncode not in (0, None), output
    step = read_run_checkpoint(last)["global_step"]
    assert 0 < step < 3 * STEPS
    assert step % STEPS
    resumed = torchrun(kitti, tmp_path, "killed", "--ckpt_path=last", "--data.num_workers=2")
    for process in (whole, resumed):
        output = process.communicate()[0]
        assert process.returncode == 0, output
    run = tmp_path / "runs/train_seg/001"
    assert [path.name for path in run.parent.iterdir()] == ["001"]
    assert_same_bits(run, tmp_path / "killed")
    losses, rest = rows(run, "train/loss"), rows(tmp_path / "killed", "train/loss")
    assert sorted(losses) == list(range(3 * STEPS))
    assert rest == {number: losses[number] for number in range(step, 3 * STEPS)}
    speeds = rows(run, "throughput/points_per_s")
    waits = rows(run, "throughput/waiting_for_data")
    assert len(speeds) == len(waits) == 3 * STEPS
    assert all(0 < wait < 1 for wait in waits.values())
