"""With instance norm, what a scan contributes does not depend on the scans beside it.

Gradients of two processes with half the batch each, and of micro-batches accumulated, equal those
of one process with the whole batch; with batch norm they do not.
"""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import relative_error
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from geonorm.training.segmentation.scores import scan_mean_loss
from helpers.minkunet_cases import ME, MinkUNet14A

SIZES = (400, 900, 250, 1300)  # points of each scan: no two alike
CLASSES = 5
EXACT, MOVES = 1e-10, 1e-2


def scan(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return coordinates, features and labels of one scan, a function of its number."""
    generator = torch.Generator().manual_seed(number)
    places = torch.rand(SIZES[number], 3, generator=generator) * torch.tensor([48, 48, 8])
    places = places.int().unique(dim=0)
    features = torch.randn(len(places), 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (len(places),), generator=generator)
    return places, features * (1 + number) + number, labels


def batch(numbers: list[int]) -> tuple[ME.SparseTensor, Tensor]:
    places, features, labels = zip(*map(scan, numbers), strict=True)
    coordinates = ME.utils.batched_coordinates(list(places), dtype=torch.int32)
    return ME.SparseTensor(torch.cat(features), coordinates), torch.cat(labels)


def network(norm: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return MinkUNet14A(3, CLASSES, norm=norm).double()


def loss_of(model: torch.nn.Module, numbers: list[int]) -> Tensor:
    x, labels = batch(numbers)
    logits = model(x)
    return scan_mean_loss(logits.F, labels, logits.C[:, 0].long(), len(numbers))


def gradient(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def whole_batch(norm: str) -> Tensor:
    model = network(norm)
    loss_of(model, [0, 1, 2, 3]).backward()
    return gradient(model)


def distributed_rank(rank: int, norm: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = DistributedDataParallel(network(norm))
    loss_of(model, [[0, 1], [2, 3]][rank]).backward()
    if rank == 0:
        torch.save(gradient(model), f"{folder}/gradient.pt")
    dist.destroy_process_group()


def distributed(norm: str, folder: Path) -> Tensor:
    mp.spawn(distributed_rank, (norm, str(folder)), nprocs=2)
    return torch.load(folder / "gradient.pt")


def accumulated(norm: str, folder: Path) -> Tensor:
    model = network(norm)
    for number in range(len(SIZES)):
        (loss_of(model, [number]) / len(SIZES)).backward()
    return gradient(model)


# Two processes take 11 s.
splits = pytest.mark.parametrize(
    "split", [pytest.param(distributed, marks=pytest.mark.slow), accumulated]
)


@splits
def test_gradients_of_parts_are_those_of_the_whole(split, tmp_path) -> None:
    error = relative_error(split("instance", tmp_path), whole_batch("instance"))
    assert error <= EXACT


@splits
def test_batch_norm_fails_the_same_comparison(split, tmp_path) -> None:
    assert relative_error(split("batch", tmp_path), whole_batch("batch")) > MOVES


@pytest.mark.parametrize(("norm", "independent"), [("instance", True), ("batch", False)])
def test_a_scan_alone_or_among_others(norm, independent) -> None:
    model = network(norm)  # in training mode, where batch norm looks at its batch
    with torch.no_grad():
        among = model(batch([0, 1, 2, 3])[0])
        alone = model(batch([1])[0])
    mine = among.F[among.C[:, 0] == 1]
    error = relative_error(mine, alone.F)
    assert error <= EXACT if independent else error > MOVES
