"""Read whatever a norm is given: dense tensors, rows with an index, tensors of sparse engines.

No engine is imported: its tensors are told by their attributes, once per type. Each call of a norm
reads its input once, into an `Input`, and rebuilds the same kind from it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geonorm import checks, neighbours

Layout = tuple[Tensor | None, int]  # the instance of every row, (N,) int64, and how many there are


@dataclass(frozen=True)
class Kind:
    """One type that norms take.

    Attributes:
        name: what to call it in messages.
        attributes: a tensor that has all of them is of this kind.
        read: returns features, index (N,) or None for dense tensors, and the number of instances.
        replace: returns the same tensor with other features.
        place: returns what two tensors with the same rows have in common; None where that is
            not known.
        neighbours: returns the pairs of rows that lie side by side, (2, P), each once; None where
            that is not known.
    """

    name: str
    attributes: tuple[str, ...]
    read: Callable[[Any], tuple[Tensor, Tensor | None, int]]
    replace: Callable[[Any, Tensor], Any]
    place: Callable[[Any], Any] = lambda x: None
    neighbours: Callable[[Any], Tensor] | None = None


class Input(NamedTuple):
    """One input of a norm, read.

    Attributes:
        features: (N, C) rows, or (B, C, …) dense.
        instance: that of every row, int64 (N,); None for a dense tensor.
        num_instances: instances in the batch, empty ones included.
        source: what was given.
        kind: how to rebuild it.
    """

    features: Tensor
    instance: Tensor | None
    num_instances: int
    source: Any
    kind: Kind

    def rebuild(self, features: Tensor) -> Any:
        """Return what was given, with other features."""
        return self.kind.replace(self.source, features)

    def with_features(self, features: Tensor) -> "Input":
        """Return the same positions with other features."""
        return self._replace(features=features)

    def spread(self, values: Tensor) -> Tensor:
        """Return values (B, C) of the instances at every position: (N, C), or (B, C, 1, …)."""
        if self.instance is not None:
            return values.index_select(0, self.instance)
        return values.reshape(*values.shape, *(1,) * (self.features.ndim - 2))

    def with_residual(self, given: Any) -> tuple[Tensor, Tensor]:
        """Return this input's features and those of what is to be added, of one dtype.

        That is the dtype which a sum of both has in torch.

        Raises:
            TypeError: it is neither a tensor nor of the input's kind, or not floating point.
            ValueError: it has another shape or device, or other coordinates.
        """
        features: Tensor = given
        if not isinstance(given, Tensor):
            if type(given) is not type(self.source):
                raise TypeError(
                    f"residual must be a tensor or, as the input, {self.kind.name}; got "
                    f"{type(given).__name__}"
                )
            if self.kind.place(given) != self.kind.place(self.source):
                raise ValueError(
                    "residual must have the input's coordinates in the same order, that is its "
                    "coordinate key and manager; add it to the norm's output instead"
                )
            features = self.kind.read(given)[0]
        return promoted(self.features, features)


class Rows:
    """Rows and the instance of each, for what takes one argument, such as `nn.Sequential`.

    Norms take and return it; `norm(features, batch_index)` needs no container.

    Args:
        features: floating point, one row per point or voxel.
        batch_index: the instance of each row, int64 or int32 in [0, num_instances), in any order.
        offsets: instead, for rows sorted by instance: where each instance starts, and the number of
            rows at the end.
        num_instances: instances in the batch, empty ones included. By default one more than the
            largest index, which must be given on CUDA and under torch.compile.

    Shape:
        features (N, C), batch_index (N,) or offsets (B + 1,)

    Raises:
        ValueError, TypeError: for features, an index or offsets that do not fit each other.

    >>> rows = Rows(torch.randn(4, 8), offsets=torch.tensor([0, 1, 1, 4]))
    >>> rows.num_instances, rows.batch_index.tolist()
    (3, [0, 2, 2, 2])
    """

    def __init__(
        self,
        features: Tensor,
        batch_index: Tensor | None = None,
        *,
        offsets: Tensor | None = None,
        num_instances: int | None = None,
    ) -> None:
        checks.features(features)
        if batch_index is not None and offsets is None:
            index, instances = checks.batch_index(batch_index, num_instances, features)
        elif offsets is not None and batch_index is None:
            index, instances = checks.offsets(offsets, num_instances, features)
        else:
            given = "neither" if offsets is None else "both"
            raise ValueError(f"give exactly one of batch_index and offsets; got {given}")
        self.features, self.batch_index, self.num_instances = features, index, instances

    def replace(self, features: Tensor) -> "Rows":
        """Return the same rows with other features, of any number of channels."""
        checks.features(features)
        if features.shape[0] != self.features.shape[0]:
            raise ValueError(
                f"features must have {len(self.features)} rows as before; got {len(features)}"
            )
        rows = object.__new__(Rows)
        rows.features, rows.batch_index = features, self.batch_index
        rows.num_instances = self.num_instances
        return rows

    def __repr__(self) -> str:
        shape = tuple(self.features.shape)
        return f"Rows({shape}, {self.num_instances} instances, {self.features.dtype})"


def promoted(features: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and residual, known to fit, in the dtype that their sum has in torch."""
    checks.residual(residual, features)
    if residual.dtype != features.dtype:
        dtype = torch.promote_types(residual.dtype, features.dtype)
        features, residual = features.to(dtype), residual.to(dtype)
    return features, residual


def read(
    x: Any,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    norm: Any = None,
) -> Input:
    """Read the input of a norm.

    Args:
        x: a dense tensor (B, C, …) of 3 or more dimensions; rows (N, C) with `batch_index`; `Rows`;
            a MinkowskiEngine SparseTensor or TensorField, an spconv SparseConvTensor, a torchsparse
            SparseTensor, a torch_geometric Data or Batch.
        batch_index: the instance of each row of a matrix x, (N,).
        num_instances: instances in the batch, to be told where the last ones are empty: an index
            tells only the largest that occurs. Of a matrix on CUDA it must be given.
        norm: the module that asks; its `num_features` is compared.

    Raises:
        TypeError: x is of no known kind (saying what was looked for), or not floating point.
        ValueError: another number of channels or dimensions, an index that does not fit.

    The layout of a MinkowskiEngine tensor is worked out once per coordinate manager and key, and
    kept for as long as the manager lives; on CUDA that one time reads the largest batch index.
    """
    if batch_index is not None:
        given = _indexed(x, batch_index, num_instances)
    else:
        kind = _KINDS.get(type(x)) or _recognize(x)
        features, index, instances = kind.read(x)
        if num_instances is not None and num_instances != instances:
            instances = _more(num_instances, instances, index)
        given = Input(features, index, instances, x, kind)
    features = given.features
    if not features.is_floating_point():
        raise TypeError(
            f"features must be floating point; got {features.dtype}. Convert them: x.float()"
        )
    if norm is not None and features.shape[1] != norm.num_features:
        _refuse_channels(given, norm)
    return given


def _indexed(x: Any, batch_index: Tensor, num_instances: int | None) -> Input:
    """Read a matrix of rows and its index."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"batch_index goes with rows, a tensor (N, C); {type(x).__name__} has its own"
        )
    checks.features(x)
    return Input(x, *checks.batch_index(batch_index, num_instances, x), x, DENSE)


def _more(asked: int, known: int, index: Tensor | None) -> int:
    """Return the number of instances that was asked for, if there can be so many."""
    if index is None:
        raise ValueError(f"a dense tensor has as many instances as its first axis, {known}; got "
                         f"num_instances={asked}")
    if asked < known:
        raise ValueError(
            f"num_instances must be at least {known}, one more than the largest batch index; got "
            f"{asked}"
        )
    return asked


def _refuse_channels(given: Input, norm: Any) -> None:
    rows, found = given.instance is not None, given.features.shape[1]
    shape = f"(N, {norm.num_features})" if rows else f"(B, {norm.num_features}, …)"
    raise ValueError(
        f"features must be {shape}; got {tuple(given.features.shape)}. Did you mean "
        f"{type(norm).__name__}({found})?"
    )


def _read_dense(x: Tensor) -> tuple[Tensor, None, int]:
    if x.ndim < 3:
        raise ValueError(
            f"a dense tensor must be (B, C, …) with 3 or more dimensions; got {tuple(x.shape)}. "
            "For rows (N, C) say which instance each belongs to: norm(features, batch_index)"
        )
    return x, None, x.shape[0]


def _read_sparse(x: Any) -> tuple[Tensor, Tensor, int]:
    stride, name = x.coordinate_map_key.get_key()
    key = (*stride, name)
    layouts = x.coordinate_manager.__dict__.get("geonorm_layouts", {})
    return x.F, *(layouts.get(key) or _new_layout(x, key))


def _read_field(x: Any) -> tuple[Tensor, Tensor, int]:
    stride, name = x.coordinate_field_map_key.get_key()
    key = ("field", *stride, name)
    layouts = x.coordinate_manager.__dict__.get("geonorm_layouts", {})
    return x.F, *(layouts.get(key) or _new_layout(x, key))


def _new_layout(x: Any, key: Any) -> tuple[Tensor, int]:
    """Work out which instance each row belongs to, and keep it with the coordinate manager."""
    layouts = x.coordinate_manager.__dict__.setdefault("geonorm_layouts", {})
    index = x.C[:, 0].long()
    known = max((instances for _, instances in layouts.values()), default=0)
    layout = index, max(known, _above(index))
    layouts[key] = layout
    return layout


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


def _read_spconv(x: Any) -> tuple[Tensor, Tensor, int]:
    checks.features(x.features)
    return x.features, *checks.batch_index(x.indices[:, 0], x.batch_size, x.features)


def _read_torchsparse(column: int) -> Callable[[Any], tuple[Tensor, Tensor, int]]:
    def read(x: Any) -> tuple[Tensor, Tensor, int]:
        index = x.coords[:, column].long()
        checks.features(x.feats)
        return x.feats, index, _above(index)

    return read


def _read_geometric(x: Any) -> tuple[Tensor, Tensor, int]:
    if x.x is None:
        raise ValueError(
            f"{type(x).__name__} holds no features: its x is None; put them there, (N, C)"
        )
    features: Tensor = x.x
    checks.features(features)
    if x.batch is None:  # a graph on its own
        return features, features.new_zeros(features.shape[0], dtype=torch.int64), 1
    ptr = getattr(x, "ptr", None)
    known = _above(x.batch) if ptr is None else ptr.shape[0] - 1
    return features, *checks.batch_index(x.batch, known, features)


def _copy_with(name: str) -> Callable[[Any, Tensor], Any]:
    def replace(x: Any, features: Tensor) -> Any:
        x = copy.copy(x)
        setattr(x, name, features)
        return x

    return replace


def _above(index: Tensor) -> int:
    return int(index.max()) + 1 if index.shape[0] else 0


def _itself(x: Any, features: Tensor) -> Tensor:
    return features


DENSE = Kind("a tensor", (), _read_dense, _itself)
ENGINES = (
    Kind("MinkowskiEngine's TensorField", ("coordinate_manager", "coordinate_field_map_key"),
         _read_field, _minkowski_field,
         lambda x: (id(x.coordinate_manager), str(x.coordinate_field_map_key.get_key()))),
    Kind("MinkowskiEngine's SparseTensor", ("coordinate_manager", "coordinate_map_key"),
         _read_sparse, _minkowski_sparse,
         lambda x: (id(x.coordinate_manager), str(x.coordinate_map_key.get_key())),
         lambda x: neighbours.of_voxels(x.C, x.tensor_stride)),
    Kind("spconv's SparseConvTensor", ("features", "indices", "batch_size", "replace_feature"),
         _read_spconv, lambda x, rows: x.replace_feature(rows), lambda x: id(x.indices),
         lambda x: neighbours.of_voxels(x.indices, 1)),
    # torchsparse 2.1 moved the batch index from the last column of the coordinates to the first.
    Kind("torchsparse 2.1's SparseTensor", ("feats", "coords", "stride", "spatial_range"),
         _read_torchsparse(0), _copy_with("feats"), lambda x: id(x.coords),
         lambda x: neighbours.of_voxels(x.coords, x.stride)),
    Kind("torchsparse 1.4's SparseTensor", ("feats", "coords", "stride", "cmaps", "kmaps"),
         _read_torchsparse(-1), _copy_with("feats"), lambda x: id(x.coords),
         lambda x: neighbours.of_voxels(x.coords.roll(1, dims=1), x.stride)),
    Kind("torch_geometric's Data", ("x", "batch", "edge_index", "num_nodes"),
         _read_geometric, _copy_with("x"), neighbours=lambda x: neighbours.of_edges(x.edge_index)),
)
_KINDS: dict[type, Kind] = {
    Tensor: DENSE,
    torch.nn.Parameter: DENSE,
    Rows: Kind("Rows", (), lambda rows: (rows.features, rows.batch_index, rows.num_instances),
               Rows.replace, lambda rows: id(rows.batch_index)),
}


def _recognize(x: Any) -> Kind:
    """Return the kind that x is of, and keep it for all of its type.

    Raises:
        TypeError: x has the attributes of none; says which were looked for and, where it has half
            of one's or more, which of those it lacks.
    """
    if isinstance(x, Tensor):
        return DENSE
    for kind in ENGINES:
        if all(hasattr(x, name) for name in kind.attributes):
            return _KINDS.setdefault(type(x), kind)
    lacking = {kind.name: [name for name in kind.attributes if not hasattr(x, name)]
               for kind in ENGINES}
    looked_for = "; ".join(f"{kind.name} ({', '.join(kind.attributes)})" for kind in ENGINES)
    near = min(ENGINES, key=lambda kind: len(lacking[kind.name]) / len(kind.attributes))
    likely = 2 * len(lacking[near.name]) <= len(near.attributes)
    absent = ", ".join(lacking[near.name])
    hint = f", which looks like {near.name} of another version: it has no {absent}"
    pair = isinstance(x, tuple) and len(x) == 2
    raise TypeError(
        "expected a tensor, rows and their batch_index, geonorm.Rows, or a tensor with the "
        f"attributes in brackets, which were looked for: {looked_for}. Got {type(x).__name__}"
        + (hint if likely else "")
        + (". Did you mean norm(features, batch_index)?" if pair else "")
    )
