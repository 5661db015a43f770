"""What norms with a weight and a bias per channel share: parameters, initialization, loading."""

from typing import Any

import torch
from torch import nn

from geonorm.convert.transfer import adapt


class AffineNorm(nn.Module):
    """A norm over `num_features` channels with eps and, if `affine`, a weight and a bias."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        affine: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.affine = num_features, eps, affine
        for name in ("weight", "bias"):
            empty = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype))
            self.register_parameter(name, empty if affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to one and the bias to zero."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        adapt(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)
