"""Clips: every stage of r3d_18 at 8 clips of 16×112², in both memory formats."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.measure import Contender
from benchmarks.workload import DEVICE, UNITS, OnReference, Workload, copy, released, timed
from geonorm import BatchNorm, SpatioTemporalInstanceNorm
from geonorm.models import r3d_18
from geonorm.ops import axis_norm as reference

BASELINE = "BatchNorm3d"
CLIPS = (8, 3, 16, 112, 112)
FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last_3d": torch.channels_last_3d,
}
COMPILED = "layer2"  # compiling the reference takes long: at one stage only


def workloads(dtypes: list[str]) -> Iterator[Workload]:
    """Yield every table of the suite."""
    for stage, shape in stages().items():
        for layout in FORMATS:
            for dtype in dtypes:
                for work in UNITS:
                    size = shape.numel() * getattr(torch, dtype).itemsize
                    yield Workload(
                        "video", f"{stage} {'x'.join(map(str, shape))}", layout, dtype, work,
                        BASELINE, size,
                        lambda s=shape, f=layout, d=dtype, w=work, k=stage == COMPILED: _contenders(
                            s, FORMATS[f], getattr(torch, d), w, k
                        ),
                    )  # fmt: skip


def stages() -> dict[str, torch.Size]:
    """Return the shape of what r3d_18 normalizes in each stage."""
    found: dict[str, torch.Size] = {}
    with torch.device("meta"):
        model = r3d_18(norm="batch")
        for name, module in model.named_modules():
            if isinstance(module, BatchNorm):
                stage = name.partition(".")[0]
                module.register_forward_pre_hook(
                    lambda _, inputs, stage=stage: found.update({stage: inputs[0].shape})
                )
        model(torch.empty(CLIPS))
    return {stage: shape for stage, shape in found.items() if stage != "layer1"}  # as the stem's


def _contenders(
    shape: torch.Size, memory_format: torch.memory_format, dtype: torch.dtype, work: str,
    compiled: bool,
) -> list[Contender]:
    generator = torch.Generator().manual_seed(1)
    x, upstream = (
        torch.randn(shape, generator=generator).to(DEVICE, dtype, memory_format=memory_format)
        for _ in range(2)
    )
    x.requires_grad_()
    channels = shape[1]
    ours = SpatioTemporalInstanceNorm(channels, device=DEVICE)
    modules = {
        BASELINE: nn.BatchNorm3d(channels),
        f"{BASELINE} + ReLU": nn.Sequential(nn.BatchNorm3d(channels), nn.ReLU(inplace=True)),
        "InstanceNorm3d": nn.InstanceNorm3d(channels, affine=True),
        "GroupNorm(C, C)": nn.GroupNorm(channels, channels),
        "ours": ours,
        "ours, fused ReLU": SpatioTemporalInstanceNorm(channels, activation="relu"),
    }
    entries = [copy(x)]
    for name, module in modules.items():
        entries.append(timed(name, work, module.to(DEVICE), x, x, upstream))
    entries.append(released(timed("our reference", work, OnReference(ours), x, x, upstream)))
    if compiled:
        axes, weight, bias = [2, 3, 4], ours.weight, ours.bias

        @torch.compile(dynamic=False)
        def plain(clips: Tensor) -> Tensor:
            return reference.forward(clips, axes, weight, bias, 1e-5, "none", 0.0)[0]

        entries.append(timed("torch.compile", work, plain, x, x, upstream, [*ours.parameters()]))
    return entries
