"""Which rows of a sparse tensor lie side by side."""

from typing import Any

import torch
from torch import Tensor


def of_voxels(coordinates: Tensor, stride: Any) -> Tensor:
    """Return the pairs of voxels that are one stride apart along one axis, each pair once.

    Args:
        coordinates: integers, the instance first; no voxel twice.
        stride: of all axes, or of each.

    Shape:
        (N, 1 + D) -> (2, P), row numbers
    """
    places = coordinates.long()
    number, axes = len(places), places.shape[1] - 1
    lengths = torch.as_tensor(stride, device=places.device).expand(axes)
    pairs = []
    for axis, length in enumerate(lengths, start=1):
        beyond = places.clone()
        beyond[:, axis] += length
        known = torch.cat([places, beyond]).unique(dim=0, return_inverse=True)[1]
        row_of = known.new_full((2 * number,), -1)
        row_of[known[:number]] = torch.arange(number, device=places.device)
        other = row_of[known[number:]]
        here = (other >= 0).nonzero().flatten()
        pairs.append(torch.stack([here, other[here]]))
    return torch.cat(pairs, 1)


def of_edges(edges: Tensor | None) -> Tensor:
    """Return the pairs of different nodes that edges of either direction join, each pair once.

    Shape:
        (2, E) -> (2, P)

    Raises:
        ValueError: there are no edges.
    """
    if edges is None:
        raise ValueError("expected a graph with edges; its edge_index is None: put them there")
    pairs = edges.sort(0).values
    unique: Tensor = pairs[:, pairs[0] < pairs[1]].unique(dim=1)
    return unique
