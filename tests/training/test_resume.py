"""Runs that are killed: resumed they end with the same bits, and no checkpoint is half written."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("lightning")
from lightning.pytorch import Trainer
from train_seg import main

from geonorm.training.checkpoints import LastCheckpoint, WholeCheckpoints, read_run_checkpoint
from geonorm.training.sampler import EpochLoader, EpochSampler

TOOLS = Path(__file__).resolve().parents[2] / "tools"
RUN = [
    "fit", "--model.name=MinkUNetSlim", "--data.train.init_args.num_scans=4",
    "--data.val.init_args.num_scans=1", "--data.voxel_size=0.8", "--data.batch_size=2",
    "--data.num_workers=0", "--data.augment+=RandomRotation", "--data.augment+=RandomJitter",
    "--trainer.max_epochs=3", "--trainer.max_time=null", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1",
    "--num_pictures=0",
]  # fmt: skip
STEPS_PER_EPOCH = 2
of_four_runs = pytest.mark.slow  # 40 s to make them


def started(script, *args, cwd):
    """Start Python on a script, with one thread: MinkowskiEngine's gradients vary with more."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TOOLS)}
    command = [sys.executable, "-c", script, *args]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(process):
    output = process.communicate()[0].decode()
    assert process.returncode == 0, output


def killed_after_an_epoch(run, cwd):
    """Start a run, kill it as soon as it has kept a checkpoint, and return that."""
    script = "import sys, train_seg; train_seg.main(sys.argv[1:])"
    process = started(script, *RUN, f"--run_dir={run}", cwd=cwd)
    last = cwd / run / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    output = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, output
    return last


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder of four runs: undisturbed, of another seed, killed, and resumed."""
    folder = tmp_path_factory.mktemp("resume")
    last = killed_after_an_epoch("killed", folder)
    assert read_run_checkpoint(last)["epoch"] < 2
    script = """if True:
        import sys, train_seg
        train_seg.main([*sys.argv[1:], "--run_dir=undisturbed"])
        train_seg.main([*sys.argv[1:], "--run_dir=other", "--seed_everything=1"])
        """
    both = started(script, *RUN, cwd=folder)
    script = "import sys, train_seg; train_seg.main(sys.argv[1:])"
    # With a worker: it fetches ahead, and must do so in the order of the right epoch.
    resume = ["fit", f"--ckpt_path={last}", "--run_dir=resumed", "--data.num_workers=1"]
    finished(started(script, *resume, cwd=folder))
    finished(both)
    return folder


def final(folder, run):
    checkpoint = read_run_checkpoint(folder / run / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 3 * STEPS_PER_EPOCH
    (optimizer,) = checkpoint["optimizer_states"]
    moments = [state[name] for state in optimizer["state"].values() for name in sorted(state)]
    return checkpoint["state_dict"], moments


@of_four_runs
def test_a_run_killed_and_resumed_ends_with_the_same_bits(runs):
    weights, moments = final(runs, "undisturbed")
    resumed_weights, resumed_moments = final(runs, "resumed")
    assert weights.keys() == resumed_weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, resumed_weights[name]), name
    assert len(moments) == len(resumed_moments) > 100
    assert all(map(torch.equal, moments, resumed_moments))


@of_four_runs
def test_another_seed_ends_elsewhere(runs):
    weights, other = final(runs, "undisturbed")[0], final(runs, "other")[0]
    kernels = [name for name in weights if name.endswith("kernel")]
    assert kernels
    assert not any(torch.equal(weights[name], other[name]) for name in kernels)


@of_four_runs
def test_the_resumed_run_took_only_the_steps_that_were_missing(runs):
    def losses(run):
        with (runs / run / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["train/loss"]]
        return {int(row["step"]): row["train/loss"] for row in rows}

    whole, rest = losses("undisturbed"), losses("resumed")
    assert sorted(whole) == list(range(3 * STEPS_PER_EPOCH))
    assert min(rest) >= STEPS_PER_EPOCH
    assert rest == {step: whole[step] for step in rest}


@pytest.mark.parametrize("kind", [EpochLoader, DataLoader])
def test_workers_fetch_nothing_before_the_epoch_is_known(kind):
    data = list(range(40))
    sampler = EpochSampler(data, shuffle=True)
    batches = iter(kind(data, 4, sampler=sampler, num_workers=1))
    sampler.set_epoch(1)  # as Lightning does with a resumed run
    fetched = [index for batch in batches for index in batch.tolist()]
    assert (fetched == list(sampler)) == (kind is EpochLoader)


def damaged(path, target):
    """Write a copy in which one bit of a weight is changed."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    return target


@of_four_runs
def test_a_corrupted_checkpoint_is_refused_and_another_offered(runs, tmp_path):
    whole = runs / "undisturbed" / "checkpoints" / "last.ckpt"
    last = damaged(whole, tmp_path / "last.ckpt")
    torch.load(last, weights_only=True)  # which does not notice
    refusal = r"last.ckpt' cannot be read as a checkpoint: .*fails its checksum.*"
    with pytest.raises(ValueError, match=refusal + "There is no whole one beside it"):
        read_run_checkpoint(last)
    damaged(whole, tmp_path / "newer.ckpt")
    (tmp_path / "best.ckpt").write_bytes(whole.read_bytes())
    for name, age in (("best.ckpt", 100), ("newer.ckpt", 50)):
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    offer = r"newest whole one beside it: --ckpt_path .*best.ckpt \(epoch 3\)"
    config = runs / "undisturbed" / "config.yaml"
    for subcommand in ("fit", "test"):
        with pytest.raises(ValueError, match=refusal + offer):
            main([subcommand, f"--config={config}", f"--ckpt_path={last}"])
    with pytest.raises(ValueError, match=refusal + offer):
        WholeCheckpoints().load_checkpoint(last)


def test_the_newest_whole_checkpoint_is_offered_whatever_its_name(tmp_path):
    last = tmp_path / "last.ckpt"
    # Neither the order of names nor that of epochs nor that of writing is the order of ages.
    ages = {"b": (7, 300), "d": (9, 100), "a": (8, 200), "c": (6, 50), "e": (5, 400)}
    for name, (epoch, age) in ages.items():
        file = tmp_path / f"{name}.ckpt"
        torch.save({"epoch": epoch, "state_dict": {"weight": torch.ones(2)}}, file)
        os.utime(file, (1e9 - age,) * 2)
    for name in (".hidden.ckpt", "newest.txt"):
        (tmp_path / name).write_bytes(file.read_bytes())
    last.write_bytes((tmp_path / "c.ckpt").read_bytes()[:-60])
    for name, epoch in (("c", 6), ("d", 9), ("a", 8), ("b", 7), ("e", 5)):
        offer = rf"newest whole one beside it: --ckpt_path \S*/{name}\.ckpt \(epoch {epoch}\)"
        with pytest.raises(ValueError, match=offer):
            read_run_checkpoint(last)
        torch.save({"weight": torch.ones(2)}, tmp_path / f"{name}.ckpt")  # no run's, and newest
    with pytest.raises(ValueError, match="There is no whole one beside it in "):
        read_run_checkpoint(last)


def test_a_file_of_weights_alone_is_no_checkpoint_of_a_run(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match="is no checkpoint of a run: it has no state_dict"):
        read_run_checkpoint(tmp_path / "weights.ckpt")
    for told in ({"state_dict": {}}, {"epoch": 3}, ["state_dict", "epoch"]):
        torch.save(told, tmp_path / "weights.ckpt")
        with pytest.raises(ValueError, match="is no checkpoint of a run: it has no state_dict"):
            read_run_checkpoint(tmp_path / "weights.ckpt")


def test_who_wants_no_checkpoints_gets_none_at_the_end(tmp_path):
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False,
                      enable_progress_bar=False, default_root_dir=tmp_path)  # fmt: skip
    LastCheckpoint(tmp_path / "last.ckpt").on_train_end(trainer, None)
    assert not (tmp_path / "last.ckpt").exists()


def test_storage_options_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"storage_options must be None .* got \{'a': 1\}"):
        WholeCheckpoints().save_checkpoint({}, tmp_path / "last.ckpt", {"a": 1})


def test_a_checkpoint_makes_its_folder_and_sweeps_what_its_own_writer_left(tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 3, "state_dict": {}}, str(path))
    for name in (".last.0123abcd.part.ckpt", ".best.0123abcd.part.ckpt"):
        path.with_name(name).write_bytes(b"half")
    WholeCheckpoints().save_checkpoint({"epoch": 4, "state_dict": {}}, path)
    assert read_run_checkpoint(path)["epoch"] == 4
    assert {file.name for file in path.parent.iterdir()} == {
        "last.ckpt", ".best.0123abcd.part.ckpt"}  # fmt: skip


# The child may write no file beyond 1 MiB and dies in the middle of the checkpoint.
DIES_WRITING = """if True:
    import os, resource, signal, sys, torch
    from geonorm.training.checkpoints import WholeCheckpoints
    saves = {"whole": WholeCheckpoints().save_checkpoint, "plain": torch.save}
    for name, save in saves.items():
        folder = os.path.join(sys.argv[1], name)
        save({"epoch": 1, "state_dict": {"weight": torch.ones(2**19)}}, folder + "/last.ckpt")
        if os.fork() == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
            save({"epoch": 2, "state_dict": {"weight": torch.ones(2**19)}}, folder + "/last.ckpt")
        print(os.WTERMSIG(os.wait()[1]), end=" ")
    """


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_process_that_dies_while_writing_leaves_the_checkpoint_before(tmp_path):
    for name in ("whole", "plain"):
        (tmp_path / name).mkdir()
    process = started(DIES_WRITING, str(tmp_path), cwd=tmp_path)
    output = process.communicate()[0].decode()
    assert re.findall(r"\d+", output) == [str(int(signal.SIGXFSZ))] * 2, output
    assert read_run_checkpoint(tmp_path / "whole" / "last.ckpt")["epoch"] == 1
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_run_checkpoint(tmp_path / "plain" / "last.ckpt")
    (left,) = (tmp_path / "whole").glob(".last.*.part.ckpt")
    WholeCheckpoints().save_checkpoint({"epoch": 3, "state_dict": {}}, left.with_name("last.ckpt"))
    assert [file.name for file in left.parent.iterdir()] == ["last.ckpt"]
