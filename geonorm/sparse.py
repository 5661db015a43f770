"""Which rows belong to which instance, for every kind of sparse tensor, importing no engine."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from geonorm import checks


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


# coordinate manager -> coordinate key -> layout; a manager that dies takes its layouts along.
_layouts: WeakKeyDictionary[Any, dict[Any, Layout]] = WeakKeyDictionary()


def layout_of(x: Any, num_instances: int | None = None) -> Layout:
    """Return which instance each row of x belongs to.

    For MinkowskiEngine tensors it is worked out once per coordinate manager and coordinate key, and
    kept for as long as the manager lives; on CUDA that one time reads the largest batch index.

    Args:
        x: a SparseTensor, a TensorField or a pair (features (N, C), batch_index (N,)).
        num_instances: scans in the batch, to be told where the last ones are empty: an engine knows
            only the largest batch index that occurs.

    Raises:
        TypeError: x is none of these.
        ValueError: a batch index outside [0, num_instances); a pair on CUDA or under torch.compile
            without num_instances.

    >>> layout_of((torch.randn(4, 8), torch.tensor([0, 1, 1, 0]))).counts.tolist()
    [2, 2]
    """
    if _is_pair(x):
        features, index = x
        checks.features(features)
        index = checks.batch_index(index, features)
        return Layout(index, checks.num_instances(num_instances, index))
    layouts = _layouts.setdefault(_manager_of(x), {})
    field = hasattr(x, "coordinate_field_map_key")
    stride, name = (x.coordinate_field_map_key if field else x.coordinate_map_key).get_key()
    key = (field, tuple(stride), name)
    if key not in layouts:
        index = x.C[:, 0].long()
        known = max((layout.num_instances for layout in layouts.values()), default=0)
        layouts[key] = Layout(index, max(known, int(index.max()) + 1 if len(index) else 0))
    layout = layouts[key]
    if num_instances is None or num_instances == layout.num_instances:
        return layout
    if num_instances < layout.num_instances:
        raise ValueError(
            f"num_instances must be at least {layout.num_instances}, one more than the largest "
            f"batch index; got {num_instances}"
        )
    return Layout(layout.index, num_instances)


def features_of(x: Any) -> Tensor:
    """Return the features (N, C) of a SparseTensor, a TensorField or a pair."""
    if _is_pair(x):
        features: Tensor = x[0]
    else:
        _manager_of(x)
        features = x.F
    return features


def with_features(x: Any, features: Tensor) -> Any:
    """Return what x is, a tensor of the same key and manager or a pair, with other features."""
    if _is_pair(x):
        return features, x[1]
    manager = _manager_of(x)
    if hasattr(x, "coordinate_field_map_key"):
        return type(x)(
            features,
            coordinate_field_map_key=x.coordinate_field_map_key,
            coordinate_manager=manager,
            quantization_mode=x.quantization_mode,
        )
    return type(x)(
        features, coordinate_map_key=x.coordinate_map_key, coordinate_manager=manager
    )


def _is_pair(x: Any) -> bool:
    return isinstance(x, tuple) and len(x) == 2


def _manager_of(x: Any) -> Any:
    """Return the coordinate manager of a MinkowskiEngine tensor; refuse anything else."""
    keys = ("coordinate_map_key", "coordinate_field_map_key")
    if hasattr(x, "coordinate_manager") and any(hasattr(x, key) for key in keys):
        return x.coordinate_manager
    raise TypeError(
        "expected a MinkowskiEngine SparseTensor or TensorField (coordinate_manager and "
        "coordinate_map_key or coordinate_field_map_key were looked for) or a pair "
        f"(features, batch_index); got {type(x).__name__}"
    )
