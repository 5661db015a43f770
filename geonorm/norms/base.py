"""Base classes of the norms: parameters, initialization, activation, loading and repr."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from geonorm import checks
from geonorm.convert import transfer
from geonorm.functional import Activation, finish
from geonorm.inputs import Input

Dtype = torch.dtype | None
Device = torch.device | str | None


class Norm(nn.Module):
    """A norm of geonorm: it takes every kind of input, a residual and an activation.

    Subclasses set `num_features` and `eps`, and call `forward(x, batch_index=None, *,
    num_instances=None, residual=None)`.
    """

    num_features: int
    has_running_statistics = False
    activation: Activation | None = None
    negative_slope: float = 0.01

    def set_activation(self, activation: Activation | None, negative_slope: float = 0.01) -> None:
        """Let an activation follow, in the same pass where the norm can do that.

        Raises:
            ValueError: an unknown activation.
        """
        checks.tail(1.0, activation)
        self.activation, self.negative_slope = activation, negative_slope

    def split_state(self, state: dict[str, Any], prefix: str) -> None:
        """Rewrite the entries of a norm of one part in a state dict as those of this one's parts.

        A norm of one part leaves them as they are.
        """

    def finish(self, given: Input, out: Tensor, residual: Any, *, inplace: bool = False) -> Any:
        """Return the norm's features with residual and activation, as the kind that was given."""
        return finish(
            given, out, residual, self.activation, self.negative_slope, inplace=inplace
        )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        eps = f", eps={self.eps}" if hasattr(self, "eps") else ""
        return f"{self.num_features}{eps}{self._activation_repr()}"

    def _activation_repr(self) -> str:
        return "" if self.activation is None else f", activation={self.activation!r}"

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:
        transfer.unwrap(state_dict, prefix)
        self.split_state(state_dict, prefix)
        if not self.has_running_statistics:
            transfer.drop_running(state_dict, prefix)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class AffineNorm(Norm):
    """A norm over `num_features` channels with eps and, if `affine`, a weight and a bias."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.affine = num_features, eps, affine
        self.set_activation(activation, negative_slope)
        for name in ("weight", "bias"):
            empty = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
            self.register_parameter(name, empty if affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to one and the bias to zero."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the functions of `geonorm.functional` that this module holds."""
        return {
            "weight": self.weight, "bias": self.bias, "eps": self.eps,
            "activation": self.activation, "negative_slope": self.negative_slope,
        }

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return (
            f"{self.num_features}, eps={self.eps}, affine={self.affine}{self._activation_repr()}"
        )

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:
        missing = len(missing_keys)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if {*missing_keys[missing:]} == {f"{prefix}weight", f"{prefix}bias"}:
            warnings.warn(
                "a state dict has no weight and bias for a norm that has them: torch's own "
                "instance norms have none unless they are built with affine=True. Build this one "
                "with affine=False too, or load with strict=False to keep its own",
                stacklevel=2,
            )
