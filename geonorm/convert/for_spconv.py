"""A norm that spconv's SparseSequential hands the whole tensor, not the features alone.

Importing this imports spconv; `geonorm.convert` does so for a model that has it.
"""

from contextlib import suppress
from importlib import import_module
from typing import Any

from torch import nn

_Base: Any = nn.Module
with suppress(ImportError):  # documentation is read without spconv too
    _Base = import_module("spconv.pytorch.modules").SparseModule


class WholeTensor(_Base):  # type: ignore[misc]
    """Apply `norm` to the whole SparseConvTensor; the norm's keys stand under "norm."."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Any) -> Any:
        """Return the norm of x."""
        return self.norm(x)
