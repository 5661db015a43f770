"""Checks of what norms are given: each message says what was expected, what came, what to do."""

import torch
from torch import Tensor

from geonorm.ops.backends import checks_values

ACTIVATIONS = (None, "relu", "leaky_relu")
_INTEGERS = (torch.int32, torch.int64)
_WIDE = (torch.float32, torch.float64)


def features(value: Tensor) -> None:
    """Refuse what is not a floating point matrix with at least one column."""
    if not isinstance(value, Tensor):
        raise TypeError(f"features must be a tensor (N, C); got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(
            f"features must be floating point; got {value.dtype}. Convert them: features.float()"
        )
    if value.dim() != 2 or value.shape[1] == 0:
        raise ValueError(f"features must be (N, C) with C ≥ 1; got shape {tuple(value.shape)}")


def batch_index(index: Tensor, num_instances: int | None, rows: Tensor) -> tuple[Tensor, int]:
    """Return the instance of every row as int64, and the number of instances.

    Values are read where that needs no synchronization.
    """
    _check_vector("batch_index", index, rows)
    if index.dtype not in _INTEGERS:
        raise TypeError(f"batch_index must be int64 or int32; got {index.dtype}")
    if index.shape[0] != rows.shape[0]:
        raise ValueError(
            f"batch_index must have one entry for each of the {len(rows)} rows; got {len(index)}"
        )
    if num_instances is None and (index.device.type != "cpu" or torch.compiler.is_compiling()):
        raise ValueError(
            f"pass num_instances: reading it from a batch_index on {index.device} would "
            "synchronize or break the graph"
        )
    if num_instances is not None and (
        isinstance(num_instances, bool)
        or not isinstance(num_instances, int | torch.SymInt)
        or num_instances < 0
    ):
        raise ValueError(f"num_instances must be an integer ≥ 0; got {num_instances!r}")
    if not checks_values(index.device) or not index.shape[0]:
        return index.long(), num_instances or 0
    low, high = (int(bound) for bound in index.aminmax())
    instances = high + 1 if num_instances is None else num_instances
    if low < 0 or high >= instances:
        raise ValueError(
            f"batch_index must lie in [0, {max(instances, 0)}), num_instances being "
            f"{max(instances, 0)}; it goes from {low} to {high}"
        )
    if num_instances is None and instances > max(2**20, 16 * index.shape[0]):
        raise ValueError(
            f"batch_index reaches {high} for {len(index)} rows; expected instances counted from 0. "
            "Count them, torch.unique(batch_index, return_inverse=True)[1], or pass num_instances"
        )
    return index.long(), instances


def offsets(value: Tensor, num_instances: int | None, rows: Tensor) -> tuple[Tensor, int]:
    """Return the index that offsets (B + 1,) stand for, and B."""
    _check_vector("offsets", value, rows)
    if value.dtype not in _INTEGERS:
        raise TypeError(f"offsets must be int64 or int32; got {value.dtype}")
    instances = value.shape[0] - 1
    if instances < 0 or num_instances not in (None, instances):
        raise ValueError(
            "offsets must be (num_instances + 1,), from 0 to the number of rows; got "
            f"{len(value)} entries and num_instances={num_instances}"
        )
    if checks_values(value.device):
        steps = value.diff()
        if steps.shape[0] and int(steps.min()) < 0:
            at = int(steps.argmin())
            raise ValueError(
                f"offsets must not decrease; they go from {int(value[at])} to {int(value[at + 1])} "
                f"at entry {at + 1}"
            )
        if int(value[0]) != 0 or int(value[-1]) != rows.shape[0]:
            raise ValueError(
                f"offsets must start at 0 and end at {len(rows)}, the number of rows; they start "
                f"at {int(value[0])} and end at {int(value[-1])}"
            )
    order = torch.arange(rows.shape[0], device=value.device)
    return torch.bucketize(order, value[1:].long(), right=True), instances


def point_weights(value: Tensor, rows: Tensor, index: Tensor, instances: int) -> Tensor:
    """Return the weight of every row in the statistics' dtype."""
    _check_vector("point_weights", value, rows)
    if value.is_complex():
        raise TypeError(f"point_weights must be real; got {value.dtype}")
    if value.requires_grad:
        raise TypeError(
            "point_weights are counts and get no gradient; pass point_weights.detach()"
        )
    if value.shape[0] != rows.shape[0]:
        raise ValueError(
            f"point_weights must have one entry for each of the {len(rows)} rows; got {len(value)}"
        )
    weights = value.to(statistics_dtype(rows))
    if checks_values(value.device) and weights.shape[0]:
        low, high = (float(bound) for bound in weights.aminmax())
        if not (low >= 0 and high < float("inf")):
            raise ValueError(
                f"point_weights must be finite and not negative; they go from {low} to {high}"
            )
        found, total = torch.zeros(2, instances, dtype=torch.float64, device=rows.device)
        found.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))
        total.index_add_(0, index, weights.double())
        hollow = (found > 0) & (total == 0)
        if hollow.any():
            raise ValueError(
                f"point_weights are all zero in instance {int(hollow.nonzero()[0])}; leave its "
                "rows out or give one of them a weight"
            )
    return weights


def parameters(
    weight: Tensor | None, bias: Tensor | None, x: Tensor, instances: int
) -> tuple[Tensor | None, Tensor | None]:
    """Return weight and bias in the statistics' dtype, (C,) or (B, C)."""
    if weight is not None and bias is not None:  # the usual case, in little time
        dtype, shape, device = x.dtype, (x.shape[1],), x.device
        if (
            weight.dtype is dtype is bias.dtype and weight.shape == shape == bias.shape
            and weight.device == device == bias.device and dtype in _WIDE
            and weight.is_contiguous() and bias.is_contiguous()
        ):
            return weight, bias
    if weight is not None:
        weight = _per_channel("weight", weight, x, instances)
    if bias is not None:
        bias = _per_channel("bias", bias, x, instances)
    return weight, bias


def _per_channel(name: str, value: Tensor, x: Tensor, instances: int) -> Tensor:
    dtype, channels = statistics_dtype(x), x.shape[1]
    if value.shape not in ((channels,), (instances, channels)):
        raise ValueError(
            f"{name} must be (C,) = {(channels,)} or (B, C) = {(instances, channels)}; "
            f"got {tuple(value.shape)}"
        )
    if value.device != x.device:
        raise ValueError(f"{name} is on {value.device}, the features on {x.device}; move one")
    if value.dtype not in (x.dtype, dtype):
        raise TypeError(f"{name} must be {dtype} for {x.dtype} features; got {value.dtype}")
    return value.to(dtype).contiguous()


def as_wide(
    weight: Tensor | None, bias: Tensor | None, x: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Return weight and bias, which did fit, in the statistics' dtype of wider features."""
    weight, bias = (None if p is None else p.to(statistics_dtype(x)) for p in (weight, bias))
    return weight, bias


def positive(**values: float) -> None:
    """Refuse values, by their names, that are not positive."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive; got {value}")


def tail(eps: float, activation: str | None, slope: float = 0.0) -> str:
    """Return the activation as the operators write it; refuse an eps that is not positive.

    After a residual the gradient is taken from the sign of the result, which a negative slope
    would not tell.
    """
    positive(eps=eps)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}; got {activation!r}")
    if activation == "leaky_relu" and not slope >= 0:
        raise ValueError(
            f"negative_slope must be at least 0 where a residual is added; got {slope}"
        )
    return activation or "none"


def residual(value: Tensor, x: Tensor) -> None:
    """Refuse a residual of another shape or device than the features, or of integers."""
    if value.shape != x.shape:
        raise ValueError(
            f"residual must have the shape of the features, {tuple(x.shape)}; got "
            f"{tuple(value.shape)}"
        )
    if not value.is_floating_point():
        raise TypeError(f"residual must be floating point; got {value.dtype}. Use y.float()")
    if value.device != x.device:
        raise ValueError(f"residual is on {value.device}, the features on {x.device}; move one")


def statistics_dtype(rows: Tensor) -> torch.dtype:
    """Return float64 for float64 rows and float32 for all others."""
    return torch.float64 if rows.dtype == torch.float64 else torch.float32


def _check_vector(name: str, value: Tensor, rows: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor (N,); got {type(value).__name__}")
    if value.dim() != 1:
        raise ValueError(f"{name} must have one dimension; got shape {tuple(value.shape)}")
    if value.device != rows.device:
        raise ValueError(f"{name} is on {value.device}, the features on {rows.device}; move one")
