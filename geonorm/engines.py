"""What geonorm knows of each sparse engine: by which attributes its tensors are told, and how the
rows of one are read and replaced. No engine is imported.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from geonorm import checks

MakeLayout = Callable[[Tensor, int], Any]


@dataclass(frozen=True)
class Engine:
    """One kind of tensor of one engine.

    Attributes:
        name: what to call it.
        attributes: a tensor that has all of them is of this kind.
        features: returns the features (N, C) of a tensor.
        layout: given a tensor and what makes a layout of an index (N,) and a number of instances,
            returns that.
        replace: returns the tensor with other features.
    """

    name: str
    attributes: tuple[str, ...]
    features: Callable[[Any], Tensor]
    layout: Callable[[Any, MakeLayout], Any]
    replace: Callable[[Any, Tensor], Any]


# coordinate manager -> coordinate key -> layout; a manager that dies takes its layouts along.
_layouts: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def _minkowski_layout(x: Any, make: MakeLayout) -> Any:
    layouts = _layouts.setdefault(x.coordinate_manager, {})
    field = hasattr(x, "coordinate_field_map_key")
    stride, name = (x.coordinate_field_map_key if field else x.coordinate_map_key).get_key()
    key = (field, tuple(stride), name)
    if key not in layouts:
        index = x.C[:, 0].long()
        known = max((layout.num_instances for layout in layouts.values()), default=0)
        layouts[key] = make(index, max(known, _above(index)))
    return layouts[key]


def _minkowski_sparse(x: Any, features: Tensor) -> Any:
    return type(x)(
        features, coordinate_map_key=x.coordinate_map_key, coordinate_manager=x.coordinate_manager
    )


def _minkowski_field(x: Any, features: Tensor) -> Any:
    return type(x)(
        features,
        coordinate_field_map_key=x.coordinate_field_map_key,
        coordinate_manager=x.coordinate_manager,
        quantization_mode=x.quantization_mode,
    )


def _spconv_layout(x: Any, make: MakeLayout) -> Any:
    index = x.indices[:, 0].long()
    return make(index, checks.num_instances(x.batch_size, index))


def _torchsparse_layout(column: int) -> Callable[[Any, MakeLayout], Any]:
    def layout(x: Any, make: MakeLayout) -> Any:
        index = x.coords[:, column].long()
        return make(index, _above(index))

    return layout


def _geometric_features(x: Any) -> Tensor:
    if x.x is None:
        raise ValueError(
            f"{type(x).__name__} holds no features: its x is None; put them there, (N, C)"
        )
    features: Tensor = x.x
    return features


def _geometric_layout(x: Any, make: MakeLayout) -> Any:
    features = _geometric_features(x)
    if x.batch is None:  # a graph on its own
        return make(torch.zeros(len(features), dtype=torch.int64, device=features.device), 1)
    index = checks.batch_index(x.batch, features)
    ptr = getattr(x, "ptr", None)
    known = _above(index) if ptr is None else len(ptr) - 1
    return make(index, checks.num_instances(known, index))


def _copy_with(name: str) -> Callable[[Any, Tensor], Any]:
    def replace(x: Any, features: Tensor) -> Any:
        x = copy.copy(x)
        setattr(x, name, features)
        return x

    return replace


def _above(index: Tensor) -> int:
    return int(index.max()) + 1 if len(index) else 0


ENGINES = (
    Engine("MinkowskiEngine's TensorField", ("coordinate_manager", "coordinate_field_map_key"),
           lambda x: x.F, _minkowski_layout, _minkowski_field),
    Engine("MinkowskiEngine's SparseTensor", ("coordinate_manager", "coordinate_map_key"),
           lambda x: x.F, _minkowski_layout, _minkowski_sparse),
    Engine("spconv's SparseConvTensor", ("features", "indices", "batch_size", "replace_feature"),
           lambda x: x.features, _spconv_layout, lambda x, rows: x.replace_feature(rows)),
    # torchsparse 2.1 moved the batch index from the last column of the coordinates to the first.
    Engine("torchsparse 2.1's SparseTensor", ("feats", "coords", "stride", "spatial_range"),
           lambda x: x.feats, _torchsparse_layout(0), _copy_with("feats")),
    Engine("torchsparse 1.4's SparseTensor", ("feats", "coords", "stride", "cmaps", "kmaps"),
           lambda x: x.feats, _torchsparse_layout(-1), _copy_with("feats")),
    Engine("torch_geometric's Data", ("x", "batch", "edge_index", "num_nodes"),
           _geometric_features, _geometric_layout, _copy_with("x")),
)


def recognize(x: Any) -> Engine:
    """Return the engine whose tensor x is.

    Raises:
        TypeError: x has the attributes of none; says which were looked for and, where it has half
            of one's or more, which of those it lacks.
    """
    for engine in ENGINES:
        if all(hasattr(x, name) for name in engine.attributes):
            return engine
    lacking = {engine.name: [name for name in engine.attributes if not hasattr(x, name)]
               for engine in ENGINES}
    looked_for = "; ".join(f"{engine.name} ({', '.join(engine.attributes)})" for engine in ENGINES)
    near = min(ENGINES, key=lambda engine: len(lacking[engine.name]) / len(engine.attributes))
    likely = 2 * len(lacking[near.name]) <= len(near.attributes)
    absent = ", ".join(lacking[near.name])
    hint = f", which looks like {near.name} of another version: it has no {absent}"
    raise TypeError(
        f"expected a pair (features, batch_index), geonorm.Packed(features, offsets), or a tensor "
        f"with the attributes in brackets, which were looked for: {looked_for}. Got "
        f"{type(x).__name__}{hint if likely else ''}"
    )
