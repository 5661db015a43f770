"""Scans to the voxels of a sparse tensor, and predictions back to every point."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import MinkowskiEngine as ME
import numpy as np
import torch
from torch import Tensor

from geonorm.datasets.scan import EXTRA, IGNORE_INDEX, Scan
from geonorm.names import choices

# Metres that count as one in the features: about the spread of a street scan along each axis.
FEATURE_SCALE = (20.0, 20.0, 2.0)
# What a network sees of each point, by the names of Scan.feature, each divided by its scale.
Features = Mapping[str, float | Sequence[float]]
STREET_FEATURES: Features = {"position": list(FEATURE_SCALE), "intensity": 1.0}
_WIDTHS = {"position": 3, "height": 1, "intensity": 1, **EXTRA}
_LARGEST_COORDINATE = 2**30


class ScanBatch(NamedTuple):
    """Some scans as M voxels and as P points; `inverse` leads from the voxels to the points.

    Attributes:
        coordinates: (M, 4) int32, the number of the scan in the batch and the voxel's x, y, z.
        features: (M, C) float32, mean of the features of the voxel's points.
        labels: (M,) int64, the commonest label among the voxel's points; 255 where none has one.
        inverse: (P,) int64, the voxel of each point.
        points: (P, 3) float32, metres.
        point_features: (P, C) float32, such as x, y, z within the clip range, scaled, and the
            intensity.
        point_labels: (P,) int64, 255 where there is no label.
        point_batch: (P,) int64, number of the scan in the batch.
        names: the scans' names.
        kept: for each scan which points of its file are here, bool; None where all are.
        offsets: for each scan the metres to add to its points for its file's coordinates.
        domains: for each scan the number of its sensor or data set; None where nobody said.
        views: from which the scans are to be predicted, each with the number of the vote and where
            its points stand among all points; None for one look at the whole.
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
    domains: list[int | None]
    views: Iterable[tuple[int, "ScanBatch", Tensor]] | None = None


def collate_scans(
    scans: Sequence[Scan],
    voxel_size: float,
    clip_range: Sequence[float] | None = None,
    features: Features = STREET_FEATURES,
) -> ScanBatch:
    """Put scans into one batch and quantize them with MinkowskiEngine.

    A voxel takes the commonest label of its labelled points (the smaller id on a tie), so that
    voxels on the border between two classes are trained on too.

    Args:
        scans: at least one scan, each with at least one point.
        voxel_size: edge of a voxel in metres.
        clip_range: x, y, z lowest and x, y, z highest in metres. Points outside move to the
            nearest place inside, so each still belongs to a voxel and is still predicted.
        features: what the network sees of each point, by the names of `Scan.feature`, in this
            order, and what counts as 1: one number or one for each of its columns.

    Raises:
        ValueError: no scan, an empty scan, a voxel size that is not positive, a clip range that is
            not six increasing numbers, a point too far away to be counted in voxels, or a feature
            that is unknown or that scans lack (naming them).
    """
    _check(scans, voxel_size, clip_range)
    points = torch.cat([torch.from_numpy(scan.points) for scan in scans])
    lengths = torch.tensor([len(scan) for scan in scans])
    point_batch = torch.arange(len(scans)).repeat_interleave(lengths)
    point_labels = torch.from_numpy(np.concatenate([_labels(scan) for scan in scans]))
    placed = points
    if clip_range is not None:
        low, high = torch.tensor(clip_range, dtype=points.dtype).view(2, 3)
        placed = points.clamp(low, high)
    point_features = _features(scans, placed, features)
    cells = _cells(placed, point_batch, voxel_size, [scan.name for scan in scans])
    coordinates, _, inverse = ME.utils.sparse_quantize(
        cells, return_index=True, return_inverse=True
    )
    inverse = inverse.long()
    counts = torch.bincount(inverse, minlength=len(coordinates))
    sums = point_features.new_zeros(len(coordinates), point_features.shape[1])
    sums.index_add_(0, inverse, point_features)
    return ScanBatch(
        coordinates=coordinates,
        features=sums / counts[:, None],
        labels=_commonest(point_labels, inverse, len(coordinates)),
        inverse=inverse,
        points=points,
        point_features=point_features,
        point_labels=point_labels,
        point_batch=point_batch,
        names=[scan.name for scan in scans],
        kept=[scan.kept for scan in scans],
        offsets=[scan.offset for scan in scans],
        domains=[scan.domain for scan in scans],
    )


def num_channels(features: Features) -> int:
    """Return the number of columns of features.

    Args:
        features: their names and scales.

    Raises:
        ValueError: none, an unknown name, or a scale that is not positive or of another length.
    """
    if not features:
        raise ValueError(f"features must name at least one of {', '.join(_WIDTHS)}; got none")
    for name, scale in features.items():
        if name not in _WIDTHS:
            raise ValueError(f"no feature {name!r}; {choices(name, _WIDTHS)}")
        scales = np.atleast_1d(scale)
        if scales.shape not in ((1,), (_WIDTHS[name],)) or not (scales > 0).all():
            raise ValueError(
                f"the scale of {name} must be a positive number, or {_WIDTHS[name]} of them; "
                f"got {scale}"
            )
    return sum(_WIDTHS[name] for name in features)


def _features(scans: Sequence[Scan], placed: Tensor, features: Features) -> Tensor:
    """Return the features of all points, (P, C); scans that lack one are named."""
    num_channels(features)
    columns = []
    for name, scale in features.items():
        lacking = [scan.name for scan in scans if name not in scan.features]
        if lacking:
            raise ValueError(
                f"the network is to see {name!r}, which scan {', '.join(lacking)} lacks; choose "
                "other features (--data.features), or data that have it"
            )
        values = placed if name == "position" else torch.cat(
            [torch.from_numpy(scan.feature(name)) for scan in scans]
        )
        columns.append(values / torch.tensor(scale))
    return torch.cat(columns, dim=1)


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
