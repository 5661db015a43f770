"""The one way in which parameters and statistics move from one norm to another.

Flat entries (`weight`, `bias` and running statistics, one value per channel) mean the same in every
norm. A norm of several parts rewrites them as its own by `split_state`, whether they come from a
state dict or from a module.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

AFFINE = ("weight", "bias")
RUNNING = ("running_mean", "running_var", "num_batches_tracked")
MINKOWSKI_EPS = 1e-8  # what MinkowskiInstanceNorm adds to the variance; it has no attribute for it
# Where a module keeps its hooks; a handle removes its hook from the very dictionary it was put in.
HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks",
    "_backward_pre_hooks", "_is_full_backward_hook",
)


def unwrap(state: dict[str, Any], prefix: str) -> None:
    """Rewrite one norm's entries under flat names and in flat shapes.

    MinkowskiInstanceNorm's parameters are (1, C); MinkowskiBatchNorm's entries are those of the
    `nn.BatchNorm1d` it holds as `bn`.
    """
    for name in (*AFFINE, *RUNNING):
        inner = f"{prefix}bn.{name}"
        if inner in state:
            state[prefix + name] = state.pop(inner)
    for name in AFFINE:
        value = state.get(prefix + name)
        if value is not None and value.dim() == 2 and value.shape[0] == 1:
            state[prefix + name] = value[0]


def drop_running(state: dict[str, Any], prefix: str) -> None:
    """Drop one norm's running statistics with a warning.

    The warning has one text, so that Python shows it once for a whole network.
    """
    dropped = [state.pop(prefix + name) for name in RUNNING if prefix + name in state]
    if dropped:
        warnings.warn(
            "running statistics of a batch norm are dropped: an instance norm takes its own from "
            "each instance, so the network's function changes until it is fine-tuned",
            stacklevel=2,
        )


def holder_of(norm: nn.Module) -> nn.Module:
    """Return the module that has a norm's parameters, which MinkowskiBatchNorm keeps inside."""
    for name in ("bn", "norm"):
        if isinstance(inner := getattr(norm, name, None), nn.Module):
            return inner
    return norm


def entries(norm: nn.Module) -> dict[str, Tensor]:
    """Return a norm's parameters and running statistics under flat names, not copied."""
    holder = holder_of(norm)
    found = {name: getattr(holder, name, None) for name in (*AFFINE, *RUNNING)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


@torch.no_grad()
def carry(old: nn.Module, new: nn.Module, *, copy: bool = False) -> str:
    """Give a new norm all that means the same in it: parameters, statistics, eps, mode and hooks.

    A parameter that fits is the same object in both, so that it stays frozen, tied to others, known
    to an optimizer, and keeps the attributes that were put on it; one that has to be cut or
    repeated has them too.

    Args:
        old: a norm of any library.
        new: the norm that takes its place.
        copy: give the new norm parameters of its own.

    Returns:
        What became of weight and bias: "kept", "fresh" where there was nothing to keep, or "none".
    """
    tensors = entries(old)
    like = next(iter(tensors.values()), None)
    if like is not None:
        dtype = like.dtype if like.is_floating_point() else None
        new.to(device=like.device, dtype=dtype)
    new.train(old.training)
    _carry_settings(old, new)
    state: dict[str, Any] = dict(tensors)
    unwrap(state, "")
    split_state = getattr(new, "split_state", None)
    if callable(split_state):
        split_state(state, "")
    placed = {name for name, value in state.items() if _place(new, name, value, tensors, copy)}
    if not any(True for _ in new.parameters()):
        return "none"
    return "kept" if any(name.endswith("weight") for name in placed) else "fresh"


def _carry_settings(old: nn.Module, new: nn.Module) -> None:
    """Give a new norm the eps, the momentum and the hooks of the old one."""
    holder = holder_of(old)
    minkowski = type(old).__name__ == "MinkowskiInstanceNorm"
    eps = getattr(holder, "eps", MINKOWSKI_EPS if minkowski else None)
    for part in new.modules():
        if eps is not None and hasattr(part, "eps"):
            setattr(part, "eps", eps)  # noqa: B010  (mypy takes what stands there for a tensor)
        if isinstance(part, _BatchNorm) and isinstance(holder, _BatchNorm):
            part.momentum = holder.momentum
            if not holder.track_running_stats:
                part.track_running_stats = False
                part._buffers.update(dict.fromkeys(RUNNING))
    for name in HOOKS:
        if getattr(old, name, None):
            setattr(new, name, getattr(old, name))


def _place(
    new: nn.Module, name: str, value: Tensor, tensors: Mapping[str, Tensor], copy: bool
) -> bool:
    """Put one entry into a new norm if it fits there; return whether it does."""
    path, _, leaf = name.rpartition(".")
    part = new.get_submodule(path)
    target = getattr(part, leaf, None)
    if not isinstance(target, Tensor) or target.shape != value.shape:
        return False
    if not isinstance(target, nn.Parameter):
        part._buffers[leaf] = value.clone() if copy else value
    elif isinstance(value, nn.Parameter) and not copy:
        part._parameters[leaf] = value
    else:
        source = tensors[leaf]
        frozen = not (isinstance(source, nn.Parameter) and source.requires_grad)
        mine = nn.Parameter(value.detach().clone(), requires_grad=not frozen)
        mine.__dict__.update(source.__dict__)
        part._parameters[leaf] = mine
    return True
