"""How state dicts of other norms become those of an instance norm."""

import warnings
from typing import Any

RUNNING = ("running_mean", "running_var", "num_batches_tracked")


def unwrap(state: dict[str, Any], prefix: str) -> None:
    """Rewrite one norm's entries under flat names and in flat shapes.

    MinkowskiInstanceNorm's parameters are (1, C); MinkowskiBatchNorm's entries are those of the
    `nn.BatchNorm1d` it holds as `bn`.
    """
    for name in ("weight", "bias", *RUNNING):
        inner = f"{prefix}bn.{name}"
        if inner in state:
            state[prefix + name] = state.pop(inner)
    for name in ("weight", "bias"):
        value = state.get(prefix + name)
        if value is not None and value.dim() == 2 and value.shape[0] == 1:
            state[prefix + name] = value[0]


def adapt(state: dict[str, Any], prefix: str) -> None:
    """Rewrite one norm's entries as `unwrap` does, and drop running statistics with a warning.

    The warning has one text, so that Python shows it once for a whole network.
    """
    unwrap(state, prefix)
    dropped = [state.pop(prefix + name) for name in RUNNING if prefix + name in state]
    if dropped:
        warnings.warn(
            "running statistics of a batch norm are dropped: an instance norm takes its own from "
            "each instance, so the network's function changes until it is fine-tuned",
            stacklevel=2,
        )
