"""Whole training steps of MinkUNet18 and r3d_18 with batch norm, others' instance norm and ours."""

from collections.abc import Callable, Iterator
from pathlib import Path

import MinkowskiEngine as ME
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.measure import Contender
from benchmarks.sparse import four_scans
from benchmarks.workload import DEVICE, Workload
from geonorm import InstanceNorm
from geonorm.datasets.voxelize import collate_scans
from geonorm.models import MinkUNet18, r3d_18

BASELINE = "batch"
CLIPS = (2, 3, 16, 112, 112)
SCANS, VOXEL_SIZE = 2, 0.4


def workloads(scan: Path | None) -> Iterator[Workload]:
    """Yield a table for each network."""
    batch = collate_scans(four_scans(scan)[:SCANS], VOXEL_SIZE)
    yield Workload(
        "train", f"MinkUNet18, {len(batch.features):,} voxels", "MinkowskiEngine", "float32",
        "step", BASELINE, batch.features.nbytes,
        lambda: _steps(
            lambda norm: MinkUNet18(4, 19, norm=norm),
            {"batch": "batch", "MinkowskiInstanceNorm": ME.MinkowskiInstanceNorm,
             "ours": "instance", "ours, ReLUs apart": apart},
            lambda: ME.SparseTensor(batch.features, batch.coordinates, device=DEVICE),
        ),
    )  # fmt: skip
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        clips = torch.randn(CLIPS).to(DEVICE, memory_format=layout)
        yield Workload(
            "train", f"r3d_18, {'x'.join(map(str, CLIPS))}", str(layout).partition(".")[2],
            "float32", "step", BASELINE, clips.nbytes,
            lambda clips=clips, layout=layout: _steps(
                lambda norm: r3d_18(101, norm=norm).to(memory_format=layout),
                {"batch": "batch", "ours": "instance",
                 "InstanceNorm3d": lambda channels: nn.InstanceNorm3d(channels, affine=True)},
                lambda: clips,
            ),
        )  # fmt: skip


def apart(channels: int) -> nn.Module:
    """Return instance norm as a norm of another library, after which the network adds its ReLU."""
    return Apart(InstanceNorm(channels))


class Apart(nn.Module):
    """A norm that says nothing of activations."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: ME.SparseTensor) -> ME.SparseTensor:
        """Return the norm of x."""
        return self.norm(x)


def _steps(
    build: Callable[[object], nn.Module], norms: dict[str, object], batch: Callable[[], object]
) -> list[Contender]:
    entries = []
    for name, norm in norms.items():
        torch.manual_seed(0)
        model = build(norm).to(DEVICE).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        entries.append(Contender(name, step(model, optimizer, batch)))
    return entries


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Callable[[], object]
) -> Callable[[], object]:
    def run() -> object:
        optimizer.zero_grad(set_to_none=True)
        out = model(batch())
        logits = getattr(out, "F", out)
        target = torch.arange(len(logits), device=logits.device) % logits.shape[1]
        F.cross_entropy(logits, target).backward()
        return optimizer.step()

    return run
