"""The absence of a norm, with what may follow one."""

from typing import Any

from torch import Tensor

from geonorm.functional import Activation, read_positions
from geonorm.norms.base import Norm


class NoNorm(Norm):
    """Normalize nothing: act(x + residual), or x itself where there is neither.

    It stands where a network has no norm, so that an activation or a residual that the network
    leaves to its norms is not lost.

    Args:
        num_features: number of channels C.
        activation: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.

    Shape:
        (N, C), (B, C, …), or any sparse kind that `InstanceNorm` takes; the output is of the same
        kind.

    Raises:
        ValueError: on call, for another number of channels.
        TypeError: on call, for another kind of input, or one that is not floating point.

    >>> import torch
    >>> NoNorm(2, activation="relu")(torch.tensor([[-1.0, 2.0]]))
    tensor([[0., 2.]])
    """

    def __init__(
        self,
        num_features: int,
        *,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.set_activation(activation, negative_slope)

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x with residual and activation, as the kind that it is."""
        if residual is None and self.activation is None:
            return x
        given = read_positions(x, batch_index, num_instances, self)
        return self.finish(given, given.features, residual)
