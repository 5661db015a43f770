"""Which rows belong to which instance, for every kind of sparse tensor, importing no engine."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from geonorm import checks, engines


@dataclass(frozen=True)
class Layout:
    """The instance of every row: ``index`` int64 (N,) with values in [0, ``num_instances``)."""

    index: Tensor
    num_instances: int

    @cached_property
    def counts(self) -> Tensor:
        """The rows of each instance, int64 (B,), counted without synchronization."""
        empty = self.index.new_zeros(self.num_instances)
        return empty.index_add(0, self.index, torch.ones_like(self.index))


@dataclass(frozen=True)
class Packed:
    """Rows sorted by instance, and where each instance starts: an input of every norm.

    A pair (features, batch_index) cannot be told from a pair (features, offsets) where both have as
    many entries, so offsets come under their own name.

    Args:
        features: one row per point or voxel.
        offsets: int64 or int32, from 0 to N: where each instance starts, and N at the end.

    Shape:
        features (N, C), offsets (B + 1,)

    Raises:
        ValueError, TypeError: where it is used, for offsets that do not fit the features.

    >>> layout_of(Packed(torch.randn(4, 8), torch.tensor([0, 1, 1, 4]))).counts.tolist()
    [1, 0, 3]
    """

    features: Tensor
    offsets: Tensor


def layout_of(x: Any, num_instances: int | None = None) -> Layout:
    """Return which instance each row of x belongs to.

    For MinkowskiEngine tensors it is worked out once per coordinate manager and coordinate key, and
    kept for as long as the manager lives; on CUDA that one time reads the largest batch index.
    torchsparse tensors, and PyTorch Geometric batches without `ptr`, are read every time.

    Args:
        x: a MinkowskiEngine SparseTensor or TensorField, an spconv SparseConvTensor, a torchsparse
            SparseTensor, a torch_geometric Data or Batch, a pair (features (N, C), batch_index
            (N,)), or `Packed` rows.
        num_instances: scans in the batch, to be told where the last ones are empty: an engine knows
            only the largest batch index that occurs.

    Raises:
        TypeError: x is none of these (saying which attributes were looked for).
        ValueError: a batch index outside [0, num_instances); a pair on CUDA or under torch.compile
            without num_instances.

    >>> layout_of((torch.randn(4, 8), torch.tensor([0, 1, 1, 0]))).counts.tolist()
    [2, 2]
    """
    if isinstance(x, Packed):
        checks.features(x.features)
        return Layout(*checks.offsets(x.offsets, num_instances, x.features))
    if _is_pair(x):
        features, index = x
        checks.features(features)
        index = checks.batch_index(index, features)
        return Layout(index, checks.num_instances(num_instances, index))
    engine = engines.recognize(x)
    checks.features(engine.features(x))
    known: Layout = engine.layout(x, Layout)
    if num_instances is None or num_instances == known.num_instances:
        return known
    if num_instances < known.num_instances:
        raise ValueError(
            f"num_instances must be at least {known.num_instances}, one more than the largest "
            f"batch index; got {num_instances}"
        )
    return Layout(known.index, num_instances)


def features_of(x: Any) -> Tensor:
    """Return the features (N, C) of any kind of sparse tensor, pair or `Packed` rows."""
    if isinstance(x, Packed):
        return x.features
    features: Tensor = x[0] if _is_pair(x) else engines.recognize(x).features(x)
    return features


def with_features(x: Any, features: Tensor) -> Any:
    """Return what x is, of the same coordinates and the same kind, with other features."""
    if isinstance(x, Packed):
        return Packed(features, x.offsets)
    if _is_pair(x):
        return features, x[1]
    return engines.recognize(x).replace(x, features)


def _is_pair(x: Any) -> bool:
    return isinstance(x, tuple) and len(x) == 2
