"""Rows of sparse tensors: the stages of MinkUNet34C in MinkowskiEngine's order, and other sizes."""

from collections.abc import Iterator
from pathlib import Path

import MinkowskiEngine as ME
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Contender
from benchmarks.workload import DEVICE, UNITS, OnReference, Workload, copy, released, timed
from geonorm import SparseInstanceNorm
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_io import read_bin
from geonorm.datasets.synthetic.streets import SyntheticStreets
from geonorm.datasets.voxelize import collate_scans
from geonorm.inputs import read
from geonorm.models import MinkUNet34C
from geonorm.ops import segment_norm as reference

BASELINE = "BatchNorm1d"
EACH = "F.batch_norm per instance"
# rows, channels, instances, order
SIZES = (
    (20_000, 32, 1, "sorted"), (20_000, 256, 8, "sorted"), (20_000, 256, 8, "interleaved"),
    (100_000, 32, 2, "sorted"), (100_000, 32, 2, "interleaved"), (100_000, 96, 4, "sorted"),
    (100_000, 96, 4, "interleaved"), (100_000, 128, 16, "sorted"),
    (100_000, 128, 16, "interleaved"), (500_000, 32, 4, "sorted"), (500_000, 32, 4, "interleaved"),
    (500_000, 64, 1, "sorted"), (102_400, 96, 1, "sorted"), (102_400, 96, 256, "sorted"),
)  # fmt: skip
COMPILED = (100_000, 96, 4, "sorted")  # compiling the reference takes long: at one size only


def workloads(scan: Path | None, dtypes: list[str]) -> Iterator[Workload]:
    """Yield every table of the suite."""
    for name, order, batch, channels, compiled in _shapes(scan):
        for dtype in dtypes:
            for work in UNITS:
                size = len(batch) * channels * getattr(torch, dtype).itemsize
                yield Workload(
                    "sparse", f"{name} {len(batch):,}x{channels}, B={int(batch.max()) + 1}", order,
                    dtype, work, BASELINE, size,
                    lambda b=batch, c=channels, d=dtype, w=work, k=compiled: _contenders(
                        b, c, getattr(torch, d), w, k
                    ),
                )  # fmt: skip


def _shapes(scan: Path | None) -> Iterator[tuple[str, str, Tensor, int, bool]]:
    """Yield name, order, the instance of every row, channels, and whether to compile."""
    source = "street" if scan is None else "scan"
    batches = batch_index_by_stride(four_scans(scan), voxel_size=0.05)
    for stride, channels in stages():
        yield f"{source} stride {stride}", "MinkowskiEngine", batches[stride], channels, False
    room = batch_index_by_stride([room_scan(1_000_000)], voxel_size=0.02)
    for channels in (32, 96):
        yield "room stride 1", "MinkowskiEngine", room[1], channels, False
    for rows, channels, instances, order in SIZES:
        index = torch.arange(rows) * instances // rows
        if order == "interleaved":
            index = index[torch.randperm(rows, generator=torch.Generator().manual_seed(0))]
        yield "rows", order, index, channels, (rows, channels, instances, order) == COMPILED


def four_scans(path: Path | None) -> list[Scan]:
    """Return a batch of four: a scan turned by quarters, or four built-in ones."""
    if path is None:
        streets = SyntheticStreets(num_scans=4, seed=7)
        return [streets[i] for i in range(4)]
    raw = read_bin(path)
    scans = []
    for quarter in range(4):
        scans.append(Scan.from_raw(raw[:, :3], raw[:, 3], None, f"{path} turned {quarter}"))
        raw = np.stack([-raw[:, 1], raw[:, 0], raw[:, 2], raw[:, 3]], axis=1)
    return scans


def room_scan(points: int) -> Scan:
    """Return points all over the inside of a room of 10 m × 8 m × 3 m."""
    rng = np.random.default_rng(0)
    size = np.array([10.0, 8.0, 3.0])
    areas = np.array([size.prod() / size[axis] for axis in range(3)])
    axis = rng.choice(3, points, p=areas / areas.sum())
    xyz = rng.random((points, 3)) * size
    every = np.arange(points)
    xyz[every, axis] = size[axis] * rng.integers(0, 2, points)
    return Scan.from_raw(xyz.astype(np.float32), np.zeros(points, np.float32), None, "room")


def batch_index_by_stride(scans: list[Scan], voxel_size: float) -> dict[int, Tensor]:
    """Return the instance of every row after strided convolutions, as MinkowskiEngine orders it."""
    coordinates = collate_scans(scans, voxel_size).coordinates
    x = ME.SparseTensor(torch.ones(len(coordinates), 1), coordinates)
    manager, key, batches = x.coordinate_manager, x.coordinate_map_key, {}
    for stride in (1, 2, 4, 8, 16):
        batches[stride] = manager.get_coordinates(key)[:, 0].long()
        key = manager.stride(key, 2)
    return batches


def stages() -> list[tuple[int, int]]:
    """Return the stride and the channels of every norm of MinkUNet34C, each pair once."""
    found = set()

    def note(norm: nn.Module, inputs: tuple[ME.SparseTensor], _: object) -> None:
        stride = inputs[0].coordinate_map_key.get_tensor_stride()[0]
        found.add((stride, inputs[0].F.shape[1]))

    model = MinkUNet34C(4, 19, norm="batch").eval()
    for module in model.modules():
        if isinstance(module, ME.MinkowskiBatchNorm):
            module.register_forward_hook(note)
    grid = torch.cartesian_prod(torch.arange(1), *[torch.arange(12)] * 3).int()
    with torch.no_grad():
        model(ME.SparseTensor(torch.ones(len(grid), 4), grid))
    return sorted(found)


def sparse_tensor(batch: Tensor, features: Tensor) -> ME.SparseTensor:
    """Return a sparse tensor whose rows belong to these instances, in this order."""
    within = torch.empty_like(batch)
    order = batch.argsort(stable=True)
    counts = batch.bincount()
    within[order] = torch.arange(len(batch)) - (counts.cumsum(0) - counts)[batch[order]]
    place = [within % 1024, within // 1024 % 1024, within // 1024**2]
    x = ME.SparseTensor(features, torch.stack([batch, *place], 1).int(), device=features.device)
    if not torch.equal(x.C[:, 0].long().cpu(), batch):
        raise RuntimeError("MinkowskiEngine has put unique coordinates into another order")
    return read(x).rebuild(features)  # its own are picked from them, and the picking has a graph


class EachBatchNorm(nn.Module):
    """Instance norm without a library: a batch norm of each instance's rows, which are sorted."""

    def __init__(self, batch: Tensor, channels: int) -> None:
        super().__init__()
        self.counts = batch.bincount().tolist()
        self.weight = nn.Parameter(torch.ones(channels, device=DEVICE))
        self.bias = nn.Parameter(torch.zeros(channels, device=DEVICE))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the rows normalized."""
        each = rows.split(self.counts)
        normalized = [F.batch_norm(x, None, None, self.weight, self.bias, True) for x in each]
        return torch.cat(normalized)


class Tail(nn.Module):
    """A norm with a ReLU, and perhaps a residual before it, in one call or one after the other."""

    def __init__(self, norm: nn.Module, residual: Tensor | None, *, fused: bool) -> None:
        super().__init__()
        self.norm, self.residual, self.fused = norm, residual, fused

    def forward(self, x: ME.SparseTensor) -> ME.SparseTensor:
        """Return relu(norm(x) + residual)."""
        if self.fused:
            return self.norm(x) if self.residual is None else self.norm(x, residual=self.residual)
        out = self.norm(x)
        features = out.F if self.residual is None else out.F + self.residual
        return read(out).rebuild(features.relu())


def _contenders(
    batch: Tensor, channels: int, dtype: torch.dtype, work: str, compiled: bool
) -> list[Contender]:
    generator = torch.Generator().manual_seed(1)
    features, upstream = (
        torch.randn(len(batch), channels, generator=generator).to(DEVICE, dtype) for _ in range(2)
    )
    features.requires_grad_()
    x = sparse_tensor(batch, features)
    ours = SparseInstanceNorm(channels, device=DEVICE)
    fused = SparseInstanceNorm(channels, device=DEVICE, activation="relu")
    batch_norm = nn.BatchNorm1d(channels, device=DEVICE)
    rectified = nn.Sequential(nn.BatchNorm1d(channels, device=DEVICE), nn.ReLU(inplace=True))
    residual = torch.randn(features.shape, generator=generator).to(DEVICE, dtype).requires_grad_()
    entries = [
        copy(features),
        timed(BASELINE, work, batch_norm, features, features, upstream),
        timed(f"{BASELINE} + ReLU", work, rectified, features, features, upstream),
        timed("ours", work, ours, x, features, upstream),
        timed("ours, fused ReLU", work, fused, x, features, upstream),
        *(timed(f"ours, {name}", work, Tail(norm, added, fused=one), x, features, upstream)
          for name, norm, added, one in (
              ("then ReLU", ours, None, False),
              ("fused residual and ReLU", fused, residual, True),
              ("then residual, then ReLU", ours, residual, False))),
        released(timed("our reference", work, OnReference(ours), x, features, upstream)),
    ]
    if int((batch.diff() < 0).sum()) == 0:
        each = EachBatchNorm(batch, channels)
        entries.append(timed(EACH, work, each, features, features, upstream))
        if int(batch.max()) > 0:
            single = sparse_tensor(torch.zeros_like(batch), features)
            entries.append(timed("ours, one instance", work, ours, single, features, upstream))
    else:
        ordered = sparse_tensor(batch.sort().values, features)
        entries.append(timed("ours, rows sorted", work, ours, ordered, features, upstream))
    if dtype == torch.float32:
        theirs = ME.MinkowskiInstanceNorm(channels).to(DEVICE)
        entries.append(timed("MinkowskiInstanceNorm", work, theirs, x, features, upstream))
    if compiled:
        index, instances = batch.to(DEVICE), int(batch.max()) + 1
        weight, bias = ours.weight, ours.bias

        @torch.compile(dynamic=False)
        def plain(rows: Tensor) -> Tensor:
            return reference.forward(
                rows, index, instances, None, weight, bias, channels, 1e-5, "none", 0.0
            )[0]

        parameters = [*ours.parameters()]
        entries.append(
            timed("torch.compile", work, plain, features, features, upstream, parameters)
        )
    return entries
