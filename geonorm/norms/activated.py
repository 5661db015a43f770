"""A norm of another library with what may follow it."""

from typing import Any

from torch import Tensor, nn

from geonorm.functional import Activation, read_positions
from geonorm.norms.base import Norm


class Activated(Norm):
    """Let a residual and an activation follow a norm that has neither: act(norm(x) + residual).

    Args:
        norm: takes and returns what this takes.
        num_features: number of channels C.
        activation: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.

    Shape:
        (N, C), (B, C, …), or any sparse kind that `InstanceNorm` and `norm` take.

    >>> import torch
    >>> Activated(nn.Identity(), 2, activation="relu")(torch.tensor([[-1.0, 2.0]]))
    tensor([[0., 2.]])
    """

    def __init__(
        self,
        norm: nn.Module,
        num_features: int,
        *,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        self.norm, self.num_features = norm, num_features
        self.set_activation(activation, negative_slope)

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return act(norm(x) + residual), as the kind that x is."""
        rows = () if batch_index is None else (batch_index,)
        given = read_positions(self.norm(x, *rows), batch_index, num_instances, self)
        return self.finish(given, given.features, residual)
