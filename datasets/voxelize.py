"""Scans to the voxels of a sparse tensor, and predictions back to every point."""

from collections.abc import Sequence
from typing import NamedTuple

import MinkowskiEngine as ME
import numpy as np
import torch
from torch import Tensor

from geonorm.datasets.scan import IGNORE_INDEX, Scan

# Metres that count as one in the features: about the spread of a street scan along each axis.
FEATURE_SCALE = (20.0, 20.0, 2.0)
_LARGEST_COORDINATE = 2**30


class ScanBatch(NamedTuple):
    """Some scans as M voxels and as P points; `inverse` leads from the voxels to the points.

    Attributes:
        coordinates: (M, 4) int32, the number of the scan in the batch and the voxel's x, y, z.
        features: (M, 4) float32, mean of the features of the voxel's points.
        labels: (M,) int64, the commonest label among the voxel's points; 255 where none has one.
        inverse: (P,) int64, the voxel of each point.
        points: (P, 3) float32, metres.
        point_features: (P, 4) float32, x, y, z within the clip range, scaled, and the intensity.
        point_labels: (P,) int64, 255 where there is no label.
        point_batch: (P,) int64, number of the scan in the batch.
        names: the scans' names.
        kept: for each scan which points of its file are here, bool; None where all are.
        offsets: for each scan the metres to add to its points for its file's coordinates.
    """

    coordinates: Tensor
    features: Tensor
    labels: Tensor
    inverse: Tensor
    points: Tensor
    point_features: Tensor
    point_labels: Tensor
    point_batch: Tensor
    names: list[str]
    kept: list[np.ndarray | None]
    offsets: list[tuple[float, float, float]]


def collate_scans(
    scans: Sequence[Scan], voxel_size: float, clip_range: Sequence[float] | None = None
) -> ScanBatch:
    """Put scans into one batch and quantize them with MinkowskiEngine.

    A voxel takes the commonest label of its labelled points (the smaller id on a tie), so that
    voxels on the border between two classes are trained on too.

    Args:
        scans: at least one scan, each with at least one point.
        voxel_size: edge of a voxel in metres.
        clip_range: x, y, z lowest and x, y, z highest in metres. Points outside move to the
            nearest place inside, so each still belongs to a voxel and is still predicted.

    Raises:
        ValueError: no scan, an empty scan, a voxel size that is not positive, a clip range that is
            not six increasing numbers, or a point too far away to be counted in voxels.
    """
    _check(scans, voxel_size, clip_range)
    points = torch.cat([torch.from_numpy(scan.points) for scan in scans])
    lengths = torch.tensor([len(scan) for scan in scans])
    point_batch = torch.arange(len(scans)).repeat_interleave(lengths)
    point_labels = torch.from_numpy(np.concatenate([_labels(scan) for scan in scans]))
    intensity = torch.cat([torch.from_numpy(scan.intensity) for scan in scans])
    placed = points
    if clip_range is not None:
        low, high = torch.tensor(clip_range, dtype=points.dtype).view(2, 3)
        placed = points.clamp(low, high)
    point_features = torch.cat([placed / torch.tensor(FEATURE_SCALE), intensity[:, None]], dim=1)
    cells = _cells(placed, point_batch, voxel_size, [scan.name for scan in scans])
    coordinates, _, inverse = ME.utils.sparse_quantize(
        cells, return_index=True, return_inverse=True
    )
    inverse = inverse.long()
    counts = torch.bincount(inverse, minlength=len(coordinates))
    features = torch.zeros(len(coordinates), 4).index_add_(0, inverse, point_features)
    return ScanBatch(
        coordinates=coordinates,
        features=features / counts[:, None],
        labels=_commonest(point_labels, inverse, len(coordinates)),
        inverse=inverse,
        points=points,
        point_features=point_features,
        point_labels=point_labels,
        point_batch=point_batch,
        names=[scan.name for scan in scans],
        kept=[scan.kept for scan in scans],
        offsets=[scan.offset for scan in scans],
    )


def _cells(
    points: Tensor, point_batch: Tensor, voxel_size: float, names: Sequence[str]
) -> np.ndarray:
    """Return the number of the scan and the voxel of each point, (P, 4) int32."""
    voxels = (points.double() / voxel_size).floor()
    if voxels.abs().max() > _LARGEST_COORDINATE:
        far = int(voxels.abs().amax(dim=1).argmax())
        raise ValueError(
            f"scan {names[int(point_batch[far])]} has a point at {points[far].tolist()} m, "
            f"too far for voxels of {voxel_size} m; give a clip_range"
        )
    # As an array: on a tensor, sparse_quantize calls numpy in a way that numpy 2 deprecates.
    cells: np.ndarray = torch.cat([point_batch[:, None], voxels], dim=1).int().numpy()
    return cells


def _check(
    scans: Sequence[Scan], voxel_size: float, clip_range: Sequence[float] | None
) -> None:
    if not scans:
        raise ValueError("collate_scans needs at least one scan; got none")
    for scan in scans:
        if len(scan) == 0:
            raise ValueError(f"scan {scan.name} is empty; expected at least one point")
    if not voxel_size > 0:
        raise ValueError(f"voxel_size must be a positive number of metres; got {voxel_size}")
    if clip_range is not None and (
        len(clip_range) != 6
        or any(low >= high for low, high in zip(clip_range[:3], clip_range[3:], strict=True))
    ):
        raise ValueError(
            "clip_range must be x, y, z lowest then x, y, z highest, in metres, such as "
            f"[-35.2, -35.2, -4, 35.2, 35.2, 2]; got {list(clip_range)}"
        )


def _labels(scan: Scan) -> np.ndarray:
    if scan.labels is None:
        return np.full(len(scan), IGNORE_INDEX, dtype=np.int64)
    return scan.labels


def _commonest(labels: Tensor, inverse: Tensor, num_voxels: int) -> Tensor:
    """Return each voxel's commonest label, ignoring 255 unless there is nothing else."""
    known = labels != IGNORE_INDEX
    result = torch.full((num_voxels,), IGNORE_INDEX, dtype=torch.int64)
    if not known.any():
        return result
    num_labels = int(labels[known].max()) + 1
    votes = torch.bincount(
        inverse[known] * num_labels + labels[known], minlength=num_voxels * num_labels
    ).view(num_voxels, num_labels)
    most, label = votes.max(dim=1)
    return torch.where(most > 0, label, result)
