"""Find what belongs to norms in a state dict."""

from typing import NamedTuple

from torch import nn

from geonorm.convert.sources import source_of
from geonorm.convert.transfer import RUNNING
from geonorm.norms.base import Norm

# Where libraries keep the norms of theirs that are not derived from torch's.
_LIBRARIES = ("timm.layers.norm", "timm.layers.evo_norm", "timm.layers.filter_response_norm",
              "timm.layers.grn", "torch_geometric.nn.norm.")  # fmt: skip


class NormState(NamedTuple):
    """The keys of a state dict that belong to norms, in its order.

    Attributes:
        parameters: weights, biases and whatever else a norm has beside its statistics.
        statistics: running means and variances, and how many batches they were taken from.
    """

    parameters: tuple[str, ...]
    statistics: tuple[str, ...]


def norm_state(model: nn.Module, also: tuple[type[nn.Module], ...] = ()) -> NormState:
    """Return which keys of a model's state dict are norms' parameters and running statistics.

    Where a network is trained by several clients, FedBN (Li et al., 2021) leaves both with each
    client, SiloBN (Andreux et al., 2020) the statistics alone, and FedAvg averages all.

    The norms of torch, torchvision, timm, MinkowskiEngine, spconv, torch_geometric and this library
    are known, what is derived from them, and whatever has running means and variances. An
    activation with parameters inside a norm is none of it.

    Args:
        model: any model.
        also: further types that are norms; all that they hold counts.

    Raises:
        TypeError: the model is no module, or `also` no tuple of types of modules.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    >>> norm_state(model).parameters
    ('1.weight', '1.bias')
    >>> shared = {*model.state_dict()} - {*norm_state(model).statistics}  # what SiloBN averages
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"expected a model, whose state dict is asked for; got {type(model).__name__}"
        )
    if not isinstance(also, tuple) or not all(
        isinstance(kind, type) and issubclass(kind, nn.Module) for kind in also
    ):
        raise TypeError(f"also must be a tuple of types of modules; got {also!r}")
    found: set[str] = set()
    whole: tuple[str, ...] = ()
    for name, module in model.named_modules(remove_duplicate=False):
        prefix = f"{name}." if name else ""
        if isinstance(module, also):
            whole += (prefix,)
        elif _is_norm(module):
            whole += (f"{prefix}parametrizations.",)
            found |= {prefix + key for key in (*module._parameters, *module._buffers)}
    keys = [key for key in model.state_dict() if key in found or key.startswith(whole)]
    running = {key for key in keys if key.rpartition(".")[2] in RUNNING}
    return NormState(
        tuple(key for key in keys if key not in running),
        tuple(key for key in keys if key in running),
    )


def _is_norm(module: nn.Module) -> bool:
    if isinstance(module, Norm) or source_of(module, None) is not None:  # whatever it stands in
        return True
    if type(module).__module__.startswith(_LIBRARIES):
        return True
    return all(name in module._buffers for name in RUNNING[:2])
