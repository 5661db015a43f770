"""Agreement among the processes of one run, before they have a process group."""

import os
from collections.abc import Callable
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed.rendezvous import rendezvous

# What the first process chose, for those that Lightning itself starts with its environment.
_CHOSEN = "GEONORM_RUN_DIR"
_KEY = "geonorm/run_dir"
# Kept open to the end: the first process serves the store in which all of them meet again.
_stores: list[Any] = []


def launcher() -> ClusterEnvironment | None:
    """Return what started the processes of this run, in Lightning's order; None for Lightning."""
    kinds = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
    return next((kind() for kind in kinds if kind.detect()), None)


def chosen_by_the_first(choose: Callable[[], str]) -> str:
    """Return what the first process of a run chooses, in every one of its processes.

    Args:
        choose: is called in the first process alone.

    Raises:
        ValueError: this is a further node's process that no launcher started, so nothing tells it
            what the first node chose.
    """
    environment = launcher()
    if environment is not None and environment.world_size() > 1:
        return _shared(environment, choose)
    if os.environ.get("LOCAL_RANK", "0") != "0" and _CHOSEN in os.environ:
        return os.environ[_CHOSEN]
    if os.environ.get("NODE_RANK", "0") != "0":
        raise ValueError(
            f"this is node {os.environ['NODE_RANK']} of a run on several, and nothing tells which "
            "folder the first one chose: give --run_dir FOLDER on all of them, or start the run by "
            "torchrun or SLURM"
        )
    os.environ[_CHOSEN] = chosen = choose()
    return chosen


def _shared(environment: ClusterEnvironment, choose: Callable[[], str]) -> str:
    """Exchange the choice through the store by which the process group will be set up, too."""
    os.environ.setdefault("MASTER_ADDR", environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    rank = environment.global_rank()
    store, _, _ = next(rendezvous("env://", rank, environment.world_size()))
    _stores.append(store)
    if rank == 0:
        store.set(_KEY, choose())
    chosen: str = store.get(_KEY).decode()
    return chosen
