"""Instance norm on some channels and batch norm on the others, dense or sparse."""

from typing import Any

import torch
from torch import nn

from geonorm.convert.transfer import RUNNING, unwrap
from geonorm.instances import check_channels, is_dense, laid_out_as
from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.sparse import features_of, with_features


class InstanceBatchNorm(nn.Module):
    """Normalize the first channels by each instance's statistics, the others by the batch's.

        y[:k] = instance_norm(x[:k]),  y[k:] = batch_norm(x[k:]),  k = ⌊ratio · C⌋

    The first lose what sets one instance apart from others, such as its gain; the others keep it.

    Args:
        num_features: number of channels C.
        ratio: the share of channels under instance norm, from 0 (batch norm) to 1 (instance norm).
        eps: added to both variances.
        momentum: weight of the newest batch in the running statistics; None averages all.

    Shape:
        (B, C, …), or any sparse kind of `geonorm.sparse`; the output is of the same kind.

    Raises:
        ValueError: for a ratio outside [0, 1]; on call, for another number of channels, a matrix,
            or one position per channel in training.
        TypeError: on call, for another kind of input, or one that is not floating point.

    State dicts of IBN-Net's `IBN` load, and those of a plain batch norm, whose channels go to the
    two parts; running statistics of the first are dropped with a warning. In the backbones this is
    the first norm of each residual block under the name "ibn-a".

    From IBN-Net (Pan et al., 2018), IBN-a.

    >>> norm = InstanceBatchNorm(7, ratio=0.3)
    >>> norm.instance.num_features, norm.batch.num_features
    (2, 5)
    >>> norm(torch.randn(2, 7, 4, 4)).shape
    torch.Size([2, 7, 4, 4])
    """

    def __init__(
        self,
        num_features: int,
        ratio: float = 0.5,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= ratio <= 1:
            raise ValueError(f"ratio must lie in [0, 1]; got {ratio}")
        self.num_features, self.ratio = num_features, ratio
        split = int(ratio * num_features)
        self.instance = InstanceNorm(split, eps, device=device, dtype=dtype) if split else None
        self.batch = (
            BatchNorm(num_features - split, eps, momentum, device=device, dtype=dtype)
            if split < num_features else None
        )

    def forward(self, x: Any, num_instances: int | None = None) -> Any:
        """Return x normalized, as the kind that it is.

        Args:
            x: a dense tensor or any sparse kind.
            num_instances: instances in the batch; needed for a pair on CUDA.
        """
        features = check_channels(x, self.num_features, self)
        split = 0 if self.instance is None else self.instance.num_features
        parts = []
        if self.instance is not None:
            first = features[:, :split]
            first = first if is_dense(x) else with_features(x, first)
            normed = self.instance(first, num_instances=num_instances)
            parts.append(normed if is_dense(x) else features_of(normed))
        if self.batch is not None:
            parts.append(self.batch(features[:, split:]))
        out = torch.cat(parts, 1)
        return laid_out_as(x, out) if is_dense(x) else with_features(x, out)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"{self.num_features}, ratio={self.ratio}"

    def adapt_state(self, state: dict[str, Any], prefix: str) -> None:
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

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        self.adapt_state(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)
