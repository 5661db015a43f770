"""Every convolution of MinkUNet34C, and whole steps: MinkowskiEngine's, plain torch and ours."""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import MinkowskiEngine as ME
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Contender, forward_backward
from benchmarks.sparse import four_scans, room_scan
from benchmarks.workload import DEVICE, Workload
from geonorm.datasets.scan import Scan
from geonorm.datasets.voxelize import collate_scans
from geonorm.kernel_maps import KernelMap, of_minkowski
from geonorm.models import MinkUNet14A, MinkUNet18, MinkUNet34C
from geonorm.sparse_convolution import SparseConvolution, SparseConvolutionTranspose

BASELINE = "MinkowskiEngine"
WORKS = 3  # products of the same size: the output, and two gradients
VOXELS = (0.1, 0.05)
ROOM_POINTS, ROOM_VOXEL = 500_000, 0.02
CLASSES = 19


class Layer(NamedTuple):
    """A convolution of a network, and what goes into it."""

    name: str
    module: Any
    x: ME.SparseTensor
    out_key: ME.CoordinateMapKey
    joined: KernelMap | None  # None for a 1x1 kernel, a matrix product
    count: int

    @property
    def flops(self) -> int:
        """Return the operations of one product."""
        rows = len(self.x.F) if self.joined is None else self.joined.pairs.shape[1]
        return 2 * rows * self.module.in_channels * self.module.out_channels


def workloads(scan: Path | None, dtypes: list[str]) -> Iterator[Workload]:
    """Yield a table for each kind of convolution of each input, then one for each network."""
    place = "street" if scan is None else "scan"
    one = four_scans(scan)[0]
    for title, source, voxel in (
        *((f"{place} {voxel} m", one, voxel) for voxel in VOXELS),
        (f"room {ROOM_VOXEL} m", room_scan(ROOM_POINTS), ROOM_VOXEL),
    ):
        for layer in _layers(source, voxel):
            yield Workload(
                "conv", f"{title}, {layer.name}", f"{layer.count} of them", "float32",
                "forward+backward", BASELINE, layer.x.F.nbytes,
                lambda layer=layer: _contenders(layer, dtypes), WORKS * layer.flops,
            )  # fmt: skip
    batch = collate_scans([one], VOXELS[0])
    for network in (MinkUNet14A, MinkUNet18, MinkUNet34C):
        yield Workload(
            "conv", f"{network.__name__}, {len(batch.features):,} voxels", "whole step",
            "float32", "step", BASELINE, batch.features.nbytes,
            lambda network=network: _steps(network, batch, dtypes),
        )  # fmt: skip


def _layers(scan: Scan, voxel: float) -> list[Layer]:
    """Run MinkUNet34C once and return each kind of convolution with its input."""
    batch = collate_scans([scan], voxel)
    found: dict[str, Layer] = {}

    def note(module: Any, inputs: tuple[Any, ...], out: ME.SparseTensor) -> None:
        (x, *_), generator = inputs, module.kernel_generator
        joined, size = None, module.kernel_generator.kernel_size[0]
        if not module.use_mm:
            joined = of_minkowski(x.coordinate_manager, x.coordinate_map_key,
                                  out.coordinate_map_key, generator, module.is_transpose)
        strides = tuple(each.coordinate_map_key.get_tensor_stride()[0] for each in (x, out))
        rows = len(x.F) if joined is None else joined.pairs.shape[1]
        name = (f"{size}x{size}x{size}, stride {strides[0]} to {strides[1]}, {rows:,} pairs, "
                f"{module.in_channels} to {module.out_channels}")
        count = found[name].count + 1 if name in found else 1
        found[name] = Layer(name, module, x, out.coordinate_map_key, joined, count)

    model = MinkUNet34C(4, CLASSES, norm="none")
    for module in model.modules():
        if isinstance(module, SparseConvolution | SparseConvolutionTranspose):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(ME.SparseTensor(batch.features, batch.coordinates, device=DEVICE))
    return [*found.values()]


def _contenders(layer: Layer, dtypes: list[str]) -> list[Contender]:
    entries = [Contender(BASELINE, _called(layer, torch.float32, "minkowski")),
               Contender("ours", _called(layer, torch.float32))]
    if layer.joined is not None:
        entries.append(Contender("torch on its maps", _by_torch(layer, layer.joined)))
    entries.append(Contender("its matrix product", _product(layer, torch.float32)))
    if "bfloat16" in dtypes:
        entries += [Contender("ours, bfloat16", _called(layer, torch.bfloat16)),
                    Contender("its matrix product, bfloat16", _product(layer, torch.bfloat16))]
    return entries


def _leaves(layer: Layer, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return features and kernel that require gradients, and a gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    module = layer.module
    rows = layer.x.coordinate_manager.size(layer.out_key)
    shapes = layer.x.F.shape, module.kernel.shape, (rows, module.out_channels)
    features, kernel, upstream = (
        torch.randn(tuple(shape), generator=generator).to(DEVICE, dtype) for shape in shapes
    )
    return features.requires_grad_(), kernel.requires_grad_(), upstream


def _called(layer: Layer, dtype: torch.dtype, engine: str = "geonorm") -> Any:
    """Return a module's work, forward and backward."""
    features, kernel, upstream = _leaves(layer, dtype)
    module = type(layer.module)(
        layer.module.in_channels, layer.module.out_channels,
        kernel_generator=layer.module.kernel_generator, dimension=layer.module.dimension,
    ).to(DEVICE, dtype)
    module.kernel = nn.Parameter(kernel.detach())
    module.engine = engine
    x = ME.SparseTensor(features, coordinate_map_key=layer.x.coordinate_map_key,
                        coordinate_manager=layer.x.coordinate_manager)
    return forward_backward(lambda x: module(x, layer.out_key), x, [features, module.kernel],
                            upstream)


def _by_torch(layer: Layer, joined: KernelMap) -> Any:
    """Return the work of gathering, multiplying and adding each offset's rows in plain torch."""
    features, kernel, upstream = _leaves(layer, torch.float32)
    pairs, bounds = joined.pairs, [*pairwise(joined.offsets.tolist())]

    def run() -> object:
        with torch.no_grad():
            out = upstream.new_zeros(upstream.shape)
            grad_features, grad_kernel = torch.zeros_like(features), torch.zeros_like(kernel)
            for (begin, end), matrix in zip(bounds, kernel, strict=True):
                source, target = pairs[:, begin:end]
                out.index_add_(0, target, features.index_select(0, source).mm(matrix))
            for (begin, end), matrix, grad in zip(bounds, kernel, grad_kernel, strict=True):
                source, target = pairs[:, begin:end]
                above = upstream.index_select(0, target)
                grad_features.index_add_(0, source, above.mm(matrix.T))
                torch.mm(features.index_select(0, source).T, above, out=grad)
        return out, grad_features, grad_kernel

    return run


def _product(layer: Layer, dtype: torch.dtype) -> Any:
    """Return the work of torch's own product of as many rows, and of its two gradients."""
    rows = layer.flops // (2 * layer.module.in_channels * layer.module.out_channels)
    left = torch.randn(rows, layer.module.in_channels).to(DEVICE, dtype)
    right = torch.randn(layer.module.in_channels, layer.module.out_channels).to(DEVICE, dtype)
    upstream = torch.randn(rows, layer.module.out_channels).to(DEVICE, dtype)
    return lambda: (left.mm(right), upstream.mm(right.T), left.T.mm(upstream))


def _steps(network: type[nn.Module], batch: Any, dtypes: list[str]) -> list[Contender]:
    """Return whole training steps with MinkowskiEngine's convolutions and with ours."""
    entries = []
    for name, engine, half in ((BASELINE, "minkowski", False), ("ours", "auto", False),
                               ("ours, bfloat16", "auto", True)):
        if half and "bfloat16" not in dtypes:
            continue
        torch.manual_seed(0)
        model: Any = network(4, CLASSES, convolution=engine).to(DEVICE).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

        def run(model: Any = model, optimizer: Any = optimizer, half: bool = half) -> object:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(DEVICE, torch.bfloat16) if half else nullcontext():
                x = ME.SparseTensor(batch.features, batch.coordinates, device=DEVICE)
                logits = model(x).F.float()
            target = torch.arange(len(logits), device=logits.device) % CLASSES
            F.cross_entropy(logits, target).backward()
            return optimizer.step()

        entries.append(Contender(name, run))
    return entries
