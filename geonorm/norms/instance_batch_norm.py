"""Instance norm on some channels and batch norm on the others, dense or sparse."""

from typing import Any

import torch
from torch import Tensor

from geonorm.convert.transfer import RUNNING, unwrap
from geonorm.functional import Activation, instance_norm
from geonorm.inputs import DENSE, read
from geonorm.norms.base import Device, Dtype, Norm
from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.instance_norm import InstanceNorm


class InstanceBatchNorm(Norm):
    """Normalize the first channels by each instance's statistics, the others by the batch's.

        y[:k] = instance_norm(x[:k]),  y[k:] = batch_norm(x[k:]),  k = ⌊ratio · C⌋

    and then act(y + residual).

    The first lose what sets one instance apart from others, such as its gain; the others keep it.

    Args:
        num_features: number of channels C.
        eps: added to both variances.
        ratio: the share of channels under instance norm, from 0 (batch norm) to 1 (instance norm).
        momentum: weight of the newest batch in the running statistics; None averages all.
        activation: what follows: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (B, C, …), or any sparse kind that `InstanceNorm` takes; the output is of the same kind.

    Raises:
        ValueError: for a ratio outside [0, 1]; on call, for another number of channels, a matrix,
            or one position per channel in training.
        TypeError: on call, for another kind of input, or one that is not floating point.

    State dicts of IBN-Net's `IBN` load, and those of a plain batch norm, whose channels go to the
    two parts; running statistics of the first are dropped with a warning. In the backbones this is
    the first norm of each residual block under the name "ibn-a".

    From IBN-Net (Pan et al., 2018), IBN-a.

    >>> import torch
    >>> norm = InstanceBatchNorm(7, ratio=0.3)
    >>> norm.instance.num_features, norm.batch.num_features
    (2, 5)
    >>> norm(torch.randn(2, 7, 4, 4)).shape
    torch.Size([2, 7, 4, 4])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        ratio: float = 0.5,
        momentum: float | None = 0.1,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__()
        if not 0 <= ratio <= 1:
            raise ValueError(f"ratio must lie in [0, 1]; got {ratio}")
        self.num_features, self.eps, self.ratio = num_features, eps, ratio
        self.set_activation(activation, negative_slope)
        split = int(ratio * num_features)
        self.instance = InstanceNorm(split, eps, device=device, dtype=dtype) if split else None
        self.batch = (
            BatchNorm(num_features - split, eps, momentum=momentum, device=device, dtype=dtype)
            if split < num_features else None
        )

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x normalized, as the kind that it is; arguments as of `InstanceNorm`."""
        given = read(x, batch_index, num_instances, self)
        features = given.features
        split = 0 if self.instance is None else self.instance.num_features
        parts = []
        if self.instance is not None:
            first = given.with_features(features[:, :split])._replace(kind=DENSE)
            parts.append(instance_norm(
                first, weight=self.instance.weight, bias=self.instance.bias, eps=self.instance.eps
            ))
        if self.batch is not None:
            parts.append(self.batch(features[:, split:]))
        return self.finish(given, torch.cat(parts, 1), residual)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"{super().extra_repr()}, ratio={self.ratio}"

    def split_state(self, state: dict[str, Any], prefix: str) -> None:
        """Rewrite the entries of IBN-Net's norm, or of a norm without parts, as those of both."""
        for theirs, ours in (("IN.", "instance."), ("BN.", "batch.")):
            for key in [key for key in state if key.startswith(prefix + theirs)]:
                state[prefix + ours + key.removeprefix(prefix + theirs)] = state.pop(key)
        unwrap(state, prefix)
        split = 0 if self.instance is None else self.instance.num_features
        for name in ("weight", "bias", *RUNNING):
            value = state.pop(prefix + name, None)
            if value is None:
                continue
            if self.instance is not None:
                state[f"{prefix}instance.{name}"] = value[:split] if value.ndim else value
            if self.batch is not None:
                state[f"{prefix}batch.{name}"] = value[split:] if value.ndim else value
