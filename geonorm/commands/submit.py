"""Run a training on the nodes of a SLURM cluster, or in several processes of this machine.

  geonorm submit --nodes 2 --tasks 8 train-seg fit --config semantickitti --save_every 500
  geonorm submit --cluster local --tasks 2 --gpus 0 train-action fit --trainer.accelerator cpu

What follows the options is a training's own command line; the number of devices and nodes and the
strategy are added to it. The job's logs are in the run's folder, in jobs. A job that SLURM ends for
want of time, or takes its nodes from, is put into the queue again and goes on from the last
checkpoint; so does one that is submitted again with the same --run_dir.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TRAININGS = {"train-seg": "train_seg", "train-action": "train_action"}


class Training:
    """One process of a training, as submitit starts it.

    Args:
        words: the command line of geonorm.
        run_dir: folder of the run.
    """

    def __init__(self, words: Sequence[str], run_dir: Path) -> None:
        self.words, self.run_dir = list(words), run_dir

    def __call__(self) -> None:
        """Train, from the last checkpoint if there is one.

        Raises:
            RuntimeError: the training failed.
        """
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        job, place = JobEnvironment(), TorchDistributedEnvironment()
        # As torchrun would say it; Lightning looks for that before it looks for SLURM.
        told = {
            "TORCHELASTIC_RUN_ID": job.job_id, "MASTER_ADDR": place.master_addr,
            "MASTER_PORT": place.master_port, "RANK": place.rank, "LOCAL_RANK": place.local_rank,
            "WORLD_SIZE": place.world_size, "GROUP_RANK": job.node,
        }  # fmt: skip
        environment = os.environ | {name: str(value) for name, value in told.items()}
        last = self.run_dir / "checkpoints" / "last.ckpt"
        resume = [f"--ckpt_path={last}"] if last.is_file() else []
        command = [sys.executable, "-m", "geonorm", *self.words, *resume]
        done = subprocess.run(command, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}; see its log")

    def checkpoint(self, *_: Any) -> Any:
        """Return what submitit is to submit when the time is over: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser("geonorm submit", description=__doc__, formatter_class=raw)
    made.add_argument("--cluster", choices=("slurm", "local"), default="slurm", help="(slurm)")
    made.add_argument("--nodes", type=int, default=1, help="(1)")
    made.add_argument("--tasks", type=int, default=1, help="processes on each node (1)")
    made.add_argument("--gpus", type=int, help="on each node (one for each process)")
    made.add_argument("--cpus", type=int, default=8, help="for each process (8)")
    made.add_argument("--hours", type=float, default=24.0, help="(24)")
    made.add_argument("--partition", help="of the cluster")
    made.add_argument("--wait", action="store_true", help="until the job ends")
    made.add_argument("training", nargs=argparse.REMAINDER, help="train-seg ..., train-action ...")
    return made


def training_of(options: argparse.Namespace) -> Training:
    """Return what each process of the job does.

    Raises:
        ValueError: the command is no training.
    """
    words = list(options.training)
    if not words or words[0] not in TRAININGS or (words[1:2] and words[1] in ("validate", "test")):
        raise ValueError(
            f"expected a training, geonorm submit ... train-seg fit ... or train-action fit ...; "
            f"got {' '.join(words) or 'none'}"
        )
    from geonorm.training.cli import option, run_folder

    given = option(words, "--run_dir")
    run_dir = run_folder(None if given is None else Path(given), TRAININGS[words[0]]).absolute()
    of_the_job = [f"--run_dir={run_dir}", f"--trainer.devices={options.tasks}",
                  f"--trainer.num_nodes={options.nodes}", "--trainer.strategy=ddp"]  # fmt: skip
    return Training([*words, *of_the_job], run_dir)


def main(arguments: Sequence[str]) -> int | str:
    """Submit; return the exit status, or what was wrong with the input."""
    options = parser().parse_args(arguments)
    import submitit

    try:
        training = training_of(options)
    except ValueError as error:
        return f"geonorm submit: {error}"
    executor = submitit.AutoExecutor(training.run_dir / "jobs", cluster=options.cluster)
    gpus = options.tasks if options.gpus is None else options.gpus
    parameters = {
        "name": training.words[0], "nodes": options.nodes, "tasks_per_node": options.tasks,
        "gpus_per_node": gpus, "cpus_per_task": options.cpus,
        "timeout_min": round(60 * options.hours), "slurm_partition": options.partition,
    }  # fmt: skip
    executor.update_parameters(**{k: v for k, v in parameters.items() if v is not None})
    job = executor.submit(training)
    print(f"job {job.job_id}: run in {training.run_dir}, logs in {training.run_dir / 'jobs'}")
    if options.wait:
        job.results()  # of every process; raises where one failed
    return 0
