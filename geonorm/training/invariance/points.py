"""Point clouds: what duplicating points does to each norm, from the op to a file on disk."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import MinkowskiEngine as ME
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import geonorm
from geonorm.datasets.scan import Scan
from geonorm.datasets.semantickitti import SemanticKITTI
from geonorm.datasets.voxelize import FEATURE_SCALE
from geonorm.functional import instance_norm
from geonorm.inputs import read
from geonorm.models import MinkUNet14A
from geonorm.models.norm import Norm
from geonorm.training.invariance.table import MOVES, Row, change, seeded

VOXEL_SIZE = 0.3
CHANNELS = 32
LAYER_TOLERANCE, LOGIT_TOLERANCE = 1e-5, 1e-4
LARGEST_MULTIPLICITY = 6
NETWORK_POINTS = 25_000  # points of all scans together that the networks are shown


class PointLayerNorm(nn.Module):
    """Layer norm of each row over its channels, the norm that looks at no other row."""

    def forward(self, x: ME.SparseTensor | ME.TensorField) -> ME.SparseTensor | ME.TensorField:
        given = read(x)
        return given.rebuild(F.layer_norm(given.features, given.features.shape[1:]))


@dataclass
class Points:
    """Points of several scans: features (N, C), scaled places (N, 3) in voxels, scan (N,)."""

    features: Tensor
    places: Tensor
    scan: Tensor

    def repeated(self, counts: Tensor) -> "Points":
        """Return each point as often as counts (N,) says, copies side by side."""
        return Points(*(t.repeat_interleave(counts, 0) for t in vars(self).values()))

    def to(self, device: torch.device | str) -> "Points":
        """Return the points on a device."""
        return Points(*(t.to(device) for t in vars(self).values()))

    def field(self, features: Tensor) -> ME.TensorField:
        """Return the points, every duplicate kept, with these features."""
        return ME.TensorField(features, torch.cat([self.scan[:, None].float(), self.places], 1))


def gather(scans: Sequence[Scan]) -> Points:
    """Return the points of scans: features are scaled x, y, z and intensity."""
    xyz = torch.cat([torch.from_numpy(scan.points) for scan in scans])
    intensity = torch.cat([torch.from_numpy(scan.feature("intensity")) for scan in scans])
    lengths = torch.tensor([len(scan) for scan in scans])
    scan = torch.arange(len(scans)).repeat_interleave(lengths)
    features = torch.cat([xyz / torch.tensor(FEATURE_SCALE), intensity], 1)
    return Points(features, xyz / VOXEL_SIZE, scan)


def thinned(scans: Sequence[Scan]) -> list[Scan]:
    """Keep every k-th point of each scan, k so that a network can be run fifty times in a minute.

    Says so where k is not 1.
    """
    whole = sum(map(len, scans))
    step = math.ceil(whole / NETWORK_POINTS)
    parts = [replace(s.take(np.arange(0, len(s), step)), labels=None) for s in scans]
    if step > 1:
        print(f"op and layer: all {whole:,} points; MinkUNet and file to logits: one in "
              f"{step}, {sum(map(len, parts)):,} in all")  # fmt: skip
    return parts


def patterns(scan: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield each way of duplicating points and how often every point then stands."""
    for k in (2, 3, 7):
        yield f"all scans x{k}", torch.full_like(scan, k)
    for k in (2, 3, 7):
        yield f"one scan x{k}", torch.where(scan == scan.max(), k, 1)
    # Later points of a scan stand more often: a pattern that follows the scene, so that a norm
    # without weights cannot average it away.
    counts = torch.randint(1, 3, scan.shape, generator=seeded(0))
    position = torch.arange(len(scan)) - torch.searchsorted(scan, scan)
    share = position / torch.bincount(scan)[scan]
    yield "each point its own", counts + (share * (LARGEST_MULTIPLICITY - 1)).long()


# An output of the network or layer for each point, given the points and, where the norm takes them,
# the weight of each.
Run = Callable[[Points, Tensor | None], Tensor]


def rows_of(level: str, runs: dict[str, Run | None], points: Points, tolerance: float,
            device: torch.device | str) -> Iterator[Row]:
    """Yield a row for each pattern; the first run is ours and is given the weights."""
    ours = next(iter(runs))
    befores: dict[tuple[str, bool], Tensor] = {}

    def moved(name: str, repeated: Points, first: Tensor, weights: Tensor | None) -> float | None:
        run = runs[name]
        if run is None:
            return None
        key = name, weights is not None
        if key not in befores:
            ones = torch.ones(len(points.scan), device=device) if key[1] else None
            befores[key] = run(points.to(device), ones)
        weights = None if weights is None else weights.to(device)
        return change(befores[key], run(repeated.to(device), weights)[first.to(device)])

    for pattern, counts in patterns(points.scan):
        repeated = points.repeated(counts)
        weights = (1 / counts.float()).repeat_interleave(counts)
        first = counts.cumsum(0) - counts
        uneven = pattern.startswith("each")
        changes = {
            name: moved(name, repeated, first, weights if uneven and name == ours else None)
            for name in runs
        }
        controls = ("batch",) if pattern.startswith("one") else ()
        if uneven:
            changes["ours, no weights"] = moved(ours, repeated, first, None)
            controls = ("ours, no weights",)
        yield Row(level, pattern, changes, (ours,), tolerance, controls)


def op_level(points: Points, norm: Run, device: torch.device | str) -> Iterator[Row]:
    """The op on rows (N, C) with an instance index."""
    lift = torch.randn(points.features.shape[1], CHANNELS, generator=seeded(1))
    lifted = Points(points.features @ lift, points.places, points.scan)

    def minkowski(p: Points, _: Tensor | None) -> Tensor:
        # Coordinates of their own keep duplicated rows from being merged.
        own = torch.arange(len(p.scan), dtype=torch.int32, device=device)[:, None].expand(-1, 3)
        x = ME.SparseTensor(p.features, torch.cat([p.scan[:, None].int(), own], 1).contiguous())
        out: Tensor = ME.MinkowskiInstanceNorm(CHANNELS).to(device)(x).F
        return out

    runs: dict[str, Run | None] = {
        "ours": norm,
        "ME's IN": minkowski,
        "batch": lambda p, _: F.batch_norm(p.features, None, None, training=True),
        "layer": lambda p, _: F.layer_norm(p.features, p.features.shape[1:]),
        "none": lambda p, _: p.features,
    }
    return rows_of("op", runs, lifted, LAYER_TOLERANCE, device)


def layer_level(points: Points, make_norm: Callable[[int], nn.Module],
                device: torch.device | str) -> Iterator[Row]:
    """The layer on a TensorField that keeps duplicated rows; ME's own refuses a TensorField."""
    channels = points.features.shape[1]

    def on_field(module: nn.Module) -> Run:
        module.to(device)

        def run(p: Points, weights: Tensor | None) -> Tensor:
            x = p.field(p.features)
            out = module(x) if weights is None else module(x, point_weights=weights)
            rows: Tensor = out.F
            return rows

        return run

    runs = {
        "ours": on_field(make_norm(channels)),
        "ME's IN": None,
        "batch": on_field(ME.MinkowskiBatchNorm(channels)),
        "layer": on_field(PointLayerNorm()),
        "none": on_field(nn.Identity()),
    }
    return rows_of("layer", runs, points, LAYER_TOLERANCE, device)


def network_runs(make_norm: Callable[[int], nn.Module], device: torch.device | str
                 ) -> dict[str, Run | None]:
    """Return MinkUNets, alike but for the norm, whose stem sees the points before the voxels."""
    norms: dict[str, Norm] = {
        "ours": make_norm, "batch": "batch", "layer": lambda _: PointLayerNorm(), "none": "none",
    }  # fmt: skip

    def on_points(network: nn.Module) -> Run:
        def run(p: Points, weights: Tensor | None) -> Tensor:
            logits: Tensor = network(p.field(p.features), point_weights=weights).F
            return logits

        return run

    runs: dict[str, Run | None] = {}
    for name, norm in norms.items():
        torch.manual_seed(0)
        network = MinkUNet14A(4, 8, norm=norm, point_stem=CHANNELS).to(device)
        runs[name] = on_points(network)
    # ME's IN takes no TensorField, and gives wrong numbers on what TensorField.sparse() makes.
    return {"ours": runs.pop("ours"), "ME's IN": None, **runs}


def network_level(points: Points, make_norm: Callable[[int], nn.Module],
                  device: torch.device | str) -> Iterator[Row]:
    """Logits of a MinkUNet whose per-point stem sees the points before they become voxels."""
    runs = network_runs(make_norm, device)
    return rows_of("MinkUNet", runs, points, LOGIT_TOLERANCE, device)


def file_level(scans: Sequence[Scan], make_norm: Callable[[int], nn.Module],
               device: torch.device | str) -> Iterator[Row]:
    """The same from files: written, read by the dataset, made into voxels, carried back."""
    points = gather(scans)

    def through_files(p: Points) -> Points:
        with tempfile.TemporaryDirectory() as folder:
            sequence = Path(folder) / "sequences" / "11"
            (sequence / "velodyne").mkdir(parents=True)
            for number in range(len(scans)):
                mine = p.scan == number
                xyz = p.places[mine] * VOXEL_SIZE
                raw = torch.cat([xyz, p.features[mine, 3:]], 1).numpy().astype(np.float32)
                raw.tofile(sequence / "velodyne" / f"{number:06d}.bin")
            written = SemanticKITTI(folder, ["11"])
            return gather([written[number] for number in range(len(written))])

    def from_files(run: Run) -> Run:
        return lambda p, weights: run(through_files(p.to("cpu")).to(device), weights)

    networks = network_runs(make_norm, device)
    runs = {name: run and from_files(run) for name, run in networks.items()}
    return rows_of("file to logits", runs, points, LOGIT_TOLERANCE, device)


def point_rows(scans: Sequence[Scan], norm: str = "instance",
               device: torch.device | str = "cpu") -> list[Row]:
    """Measure every level on some scans.

    Args:
        scans: two or more scans.
        norm: "instance", or "batch" to see the tool fail with batch norm in the place of ours.
        device: where the norms and networks run.
    """
    layer, network = {
        "instance": (geonorm.SparseInstanceNorm, geonorm.SparseInstanceNorm),
        "batch": (UnweightedBatchNorm, UnweightedBatchNorm),
    }[norm]

    def op(p: Points, weights: Tensor | None) -> Tensor:
        if norm == "batch":
            return F.batch_norm(p.features, None, None, training=True)
        out: Tensor = instance_norm(p.features, p.scan, len(scans), point_weights=weights)
        return out

    points, few = gather(scans), thinned(scans)
    with torch.no_grad():
        return [*op_level(points, op, device), *layer_level(points, layer, device),
                *network_level(gather(few), network, device),
                *file_level(few, network, device)]  # fmt: skip


class UnweightedBatchNorm(ME.MinkowskiBatchNorm):
    """Batch norm that takes weights and has no use for them: the mutant the tool must catch."""

    def forward(self, x: ME.SparseTensor, point_weights: Tensor | None = None) -> ME.SparseTensor:
        return super().forward(x)


__all__ = ["MOVES", "point_rows"]
