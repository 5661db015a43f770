"""Find the input elements that an output element of a norm depends on, by running the norm.

Every panel of a figure is the gradient of one output element with respect to a whole input, so a
figure shows what the code does and not what someone thinks it does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import MinkowskiEngine as ME
import torch
from torch import Tensor, nn

import geonorm
from geonorm.inputs import read

INSTANCES, CHANNELS, FRAMES, PLACES = 3, 4, 5, (2, 4)
CLIPS = (INSTANCES, CHANNELS, FRAMES, *PLACES)  # (B, C, T, H, W)
IMAGES = (INSTANCES, CHANNELS, FRAMES, 8)  # (B, C, H, W), of as many places
AXES = {5: "Clips: each block has the frames downwards and the places of a frame, H and W, across.",
        4: "Images: each block has H downwards and W across."}  # fmt: skip
SCANS = [0, 1, 2, 1, 0, 2, 1, 1, 0, 2, 0, 1]  # the instance of each row
PLACE_OF_ROW = [1, 4, 2, 0, 3, 7, 5, 7, 2, 6, 6, 3]  # on a line, for norms with a window
DOMAINS = [0, 1, 1]  # of each instance
ELEMENT, ROW = (1, 1, 2, 3), 6  # the output elements: of dense tensors, and of rows
DRAWS = 3  # one random input may have a zero derivative by accident, several have not
SMALLEST = 1e-9  # what counts as a derivative, relative to the largest one


@dataclass(frozen=True)
class Panel:
    """One input of a norm and the elements of it that an output element depends on.

    Attributes:
        title: which norm, and what is special.
        cells: whether the output depends on each element, (B, C, rows, columns) or (N, C).
        chosen: the output element, where the input has one at the same place.
        labels: of each instance (dense) or of each row.
        axes: what lies along the rows and columns of each block of a dense tensor.
    """

    title: str
    cells: Tensor
    chosen: tuple[int, ...] | None
    labels: tuple[str, ...]
    axes: str = ""


def dependent(
    function: Callable[..., Tensor], shapes: list[tuple[int, ...]], element: tuple[int, ...]
) -> list[Tensor]:
    """Return for each input of a function which elements one element of its output depends on."""
    generator = torch.Generator().manual_seed(0)
    found = [torch.zeros(shape, dtype=torch.bool) for shape in shapes]
    for _ in range(DRAWS):
        inputs = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
                  for shape in shapes]
        gradients = torch.autograd.grad(function(*inputs)[element], inputs)
        largest = max(float(gradient.abs().max()) for gradient in gradients)
        for known, gradient in zip(found, gradients, strict=True):
            known |= gradient.abs() > SMALLEST * largest
    return found


def dense(title: str, norm: Any, shape: tuple[int, ...] = CLIPS, channel: int = 1) -> Panel:
    """Return the panel of a norm on a dense tensor, its places flattened to columns."""
    instance, _, row, column = ELEMENT
    chosen = (instance, channel, row, column)
    rest = torch.unravel_index(torch.tensor(column), shape[3:])
    element = (*chosen[:3], *(int(number) for number in rest))
    cells = dependent(norm.double(), [shape], element)[0]
    labels = tuple(f"instance {number}" for number in range(INSTANCES))
    return Panel(title, cells.flatten(3), chosen, labels, AXES[len(shape)])


def rows(title: str, norm: Any, channel: int = 1) -> Panel:
    """Return the panel of a norm on rows of three instances in mixed order."""
    index = torch.tensor(SCANS)
    cells = dependent(
        lambda features: read(norm.double()(geonorm.Rows(features, index))).features,
        [(len(index), CHANNELS)],
        (ROW, channel),
    )[0]
    return Panel(title, cells, (ROW, channel), tuple(f"instance {number}" for number in SCANS))


def voxels(title: str, norm: Any) -> Panel:
    """Return the panel of a norm on voxels along a line in MinkowskiEngine's tensor."""
    places = torch.tensor([*zip(SCANS, PLACE_OF_ROW, strict=True)], dtype=torch.int32)

    def run(features: Tensor) -> Tensor:
        return read(norm.double()(ME.SparseTensor(features, places))).features

    cells = dependent(run, [(len(places), CHANNELS)], (ROW, 1))[0]
    labels = tuple(f"instance {number}, x = {x}" for number, x in places.tolist())
    return Panel(title, cells, (ROW, 1), labels)


def styled() -> list[Panel]:
    """Return the panels of adaptive instance norm: a content, and a style of another kind."""
    norm, index = geonorm.AdaptiveInstanceNorm(CHANNELS), torch.tensor(SCANS)
    element = (*ELEMENT[:3], *(int(n) for n in torch.unravel_index(torch.tensor(3), PLACES)))
    content, style = dependent(
        lambda content, style: norm(content, geonorm.Rows(style, index)),
        [CLIPS, (len(index), CHANNELS)], element,
    )
    names = tuple(f"instance {number}" for number in range(INSTANCES))
    return [Panel("content: clips", content.flatten(3), ELEMENT, names, AXES[5]),
            Panel("style: rows of scans", style, None,
                  tuple(f"instance {number}" for number in SCANS))]  # fmt: skip


def in_domains(norm: nn.Module) -> nn.Module:
    """Return a domain norm that knows the domain of each instance."""
    geonorm.set_domain(norm, DOMAINS)
    return norm


def _with_domains(panel: Panel) -> Panel:
    labels = tuple(f"{label}, domain {DOMAINS[int(label[-1])]}" for label in panel.labels)
    return replace(panel, labels=labels)


FIGURES: dict[str, Callable[[], list[Panel]]] = {
    "instance_norm": lambda: [
        dense("InstanceNorm, clips", geonorm.InstanceNorm(CHANNELS)),
        rows("SparseInstanceNorm, rows in any order", geonorm.SparseInstanceNorm(CHANNELS)),
    ],
    "axis_instance_norm": lambda: [
        *(dense(f'SpatioTemporalInstanceNorm, axes="{axes}"',
                geonorm.SpatioTemporalInstanceNorm(CHANNELS, axes=axes))
          for axes in ("THW", "HW", "T")),
        dense('AxisInstanceNorm, layout="BCTHW", axes="W"',
              geonorm.AxisInstanceNorm(CHANNELS, layout="BCTHW", axes="W")),
    ],
    "adaptive_instance_norm": styled,
    "instance_batch_norm": lambda: [
        dense("channel 1, under instance norm", geonorm.InstanceBatchNorm(CHANNELS)),
        dense("channel 2, under batch norm", geonorm.InstanceBatchNorm(CHANNELS), channel=2),
    ],
    "batch_norm": lambda: [
        dense("BatchNorm in training, clips", geonorm.BatchNorm(CHANNELS)),
        dense("BatchNorm in evaluation, clips", geonorm.BatchNorm(CHANNELS).eval()),
        rows("BatchNorm in training, rows", geonorm.BatchNorm(CHANNELS)),
    ],
    "domain_norm": lambda: [_with_domains(panel) for panel in (
        dense("DomainBatchNorm in training, clips",
              in_domains(geonorm.DomainBatchNorm(CHANNELS, num_domains=2))),
        dense("DomainInstanceNorm, clips",
              in_domains(geonorm.DomainInstanceNorm(CHANNELS, num_domains=2))),
        rows("DomainBatchNorm in training, rows",
             in_domains(geonorm.DomainBatchNorm(CHANNELS, num_domains=2))),
    )],
    "group_norm": lambda: [
        dense("GroupNorm, 2 groups, clips", geonorm.GroupNorm(CHANNELS, num_groups=2)),
        rows("GroupNorm, 2 groups, rows", geonorm.GroupNorm(CHANNELS, num_groups=2)),
    ],
    "layer_norm": lambda: [
        dense("LayerNorm, clips", geonorm.LayerNorm(CHANNELS)),
        rows("LayerNorm, rows", geonorm.LayerNorm(CHANNELS)),
    ],
    "divisive_norm": lambda: [
        dense("DivisiveNorm, window of 3, images",
              geonorm.DivisiveNorm(CHANNELS, kernel_size=3), IMAGES),
        voxels("DivisiveNorm, window of 3, voxels", geonorm.DivisiveNorm(CHANNELS, kernel_size=3)),
        dense("DivisiveNorm, window of 3, 2 groups, images",
              geonorm.DivisiveNorm(CHANNELS, kernel_size=3, num_groups=2), IMAGES),
        dense("DivisiveNorm without a window, images",
              geonorm.DivisiveNorm(CHANNELS, kernel_size=None), IMAGES),
    ],
    # A high floor, as the inputs that are drawn here are negative by half.
    "retinex_norm": lambda: [
        dense('RetinexNorm, surround="mean", clips',
              geonorm.RetinexNorm(CHANNELS, surround="mean", floor=99)),
        dense("RetinexNorm, a surround, contrast as it is, clips",
              geonorm.RetinexNorm(CHANNELS, surround=2.0, contrast=False, floor=99)),
        voxels("RetinexNorm, a surround, contrast as it is, voxels",
               geonorm.RetinexNorm(CHANNELS, surround=2.0, contrast=False, floor=99)),
    ],
}  # fmt: skip
