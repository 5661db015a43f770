"""Training with less memory: outputs of norms computed again, beside torch's checkpointing."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import MinkowskiEngine as ME
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.measure import Contender
from benchmarks.sparse import four_scans
from benchmarks.train import step
from benchmarks.workload import DEVICE, Workload
from geonorm.datasets.voxelize import collate_scans
from geonorm.models import MinkUNet18, MinkUNet34C, r3d_18
from geonorm.models.minkunet import BasicBlock
from geonorm.models.video_resnet import ResidualBlock
from geonorm.recompute import recompute_activations

BASELINE = "ordinary"
CLIPS = (8, 3, 16, 112, 112)


def workloads(scan: Path | None) -> Iterator[Workload]:
    """Yield, for each network, a table of a forward whose graph is held and one of a step."""
    for network, count, voxel_size in ((MinkUNet18, 2, 0.1), (MinkUNet34C, 1, 0.05)):
        voxels = collate_scans(four_scans(scan)[:count], voxel_size)
        # One tensor for all steps: MinkowskiEngine's maps of its voxels are made once.
        x = ME.SparseTensor(voxels.features, voxels.coordinates, device=DEVICE)
        yield from _tables(
            f"{network.__name__}, {len(voxels.features):,} voxels",
            "MinkowskiEngine",
            voxels.features.nbytes,
            partial(network, 4, 19),
            BasicBlock,
            lambda x=x: x,
        )
    clips = torch.randn(CLIPS).to(DEVICE)
    yield from _tables(
        f"r3d_18, {'x'.join(map(str, CLIPS))}", "contiguous", clips.nbytes,
        lambda: r3d_18(101), ResidualBlock, lambda: clips,
    )  # fmt: skip


def _tables(
    shape: str,
    layout: str,
    input_bytes: int,
    build: Callable[[], nn.Module],
    block: type[nn.Module],
    batch: Callable[[], object],
) -> Iterator[Workload]:
    for work in ("forward, held", "step"):
        yield Workload(
            "memory", shape, layout, "float32", work, BASELINE, input_bytes,
            partial(_contenders, build, block, batch, work),
        )  # fmt: skip


def _contenders(
    build: Callable[[], nn.Module], block: type[nn.Module], batch: Callable[[], object], work: str
) -> list[Contender]:
    entries = []
    for name in (BASELINE, "recompute_activations", "torch.utils.checkpoint of each block"):
        torch.manual_seed(0)
        model = build().to(DEVICE).train()
        if name == "recompute_activations":
            recompute_activations(model)
        elif name != BASELINE:
            for module in model.modules():
                if isinstance(module, block):
                    module.forward = partial(checkpoint, module.forward, use_reentrant=False)
        if work == "step":
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
            entries.append(Contender(name, step(model, optimizer, batch)))
        else:
            entries.append(Contender(name, lambda model=model: model(batch())))
    return entries
