"""Weights from a file into a model of the same norm or another, with a report of what was kept."""

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geonorm.convert.transfer import RUNNING
from geonorm.files import written_whole
from geonorm.models.weights import Weights, fetch
from geonorm.norms.base import Norm
from geonorm.tables import as_html

WRAPPINGS = ("model", "model_state_dict", "state_dict")  # outermost first
PREFIXES = ("_orig_mod.", "module.", "model.", "network.")
SHOWN = 8

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class CheckpointReport:
    """The result of loading a checkpoint, tensor by tensor, to print.

    Attributes:
        source: the file, or "state dict".
        kept: keys of the model that were filled.
        dropped: keys of the checkpoint that mean nothing in this model, such as the running
            statistics of batch norm where the model has instance norm.
        fresh: keys of the model's norms that the checkpoint says nothing about, and of heads that
            have another shape there; they keep the values they had.
    """

    source: str
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.kept)} tensors kept"]
        if self.dropped:
            lines.append(f"  dropped {_listed(self.dropped)}")
        if self.fresh:
            lines.append(f"  left as they were {_listed(self.fresh)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the report as a table, for notebooks."""
        parts = {"kept": self.kept, "dropped": self.dropped, "left as they were": self.fresh}
        lines = [[name, str(len(keys)), ", ".join(keys)] for name, keys in parts.items() if keys]
        return as_html([["", "tensors", self.source], *lines])


def load_checkpoint(
    model: nn.Module,
    checkpoint: str | os.PathLike[str] | Mapping[str, object] | Weights,
    heads: Sequence[str] = (),
) -> CheckpointReport:
    """Load weights into `model`, across norms where that means something, and say what was kept.

    The state dict may be bare, wrapped (`state_dict`, `model`), and its keys prefixed (`module.`,
    or `model.` and `network.` as by Lightning, whose other keys are dropped). Every convolution and
    linear layer must fit exactly. Scale and shift of a norm are per channel in batch, instance,
    group and layer norm alike and are carried over between them, also to the parts of an
    instance-batch norm and to every domain of a domain norm; running statistics exist in batch norm
    alone and are required there. Nothing of the model changes unless everything fits.

    Args:
        model: where the weights go. If it has a method `candidates(shapes)` yielding named models
            of its family, a checkpoint that fits one of them is told so.
        checkpoint: a file written by `torch.save` or safetensors, a state dict, or a member of an
            enum of public weights, which is fetched. Files are read with `weights_only=True`: code
            in them is never run.
        heads: modules that keep what they hold where the checkpoint's have another shape, such as
            ("fc",) for another number of classes, or where it has none.

    Raises:
        ValueError: for a missing, truncated or corrupted file; for one without a state dict, with
            values that are not finite floating-point tensors; for weights of another architecture
            (listing what does not fit, and the class that does).

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8))
        >>> batch = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
        >>> print(load_checkpoint(model, batch.state_dict()))
        state dict: 4 tensors kept
          dropped 3: 1.running_mean, 1.running_var, 1.num_batches_tracked
    """
    if isinstance(checkpoint, Mapping):
        source, held_there = "state dict", _unwrap(checkpoint, "state dict")
    else:
        source = os.fspath(fetch(checkpoint) if isinstance(checkpoint, Weights) else checkpoint)
        held_there = _unwrap(read_checkpoint(source), source)
    own = model.state_dict()
    state, dropped = _strip_prefixes(held_there, own)
    _check_tensors(state, source)
    held = _held(own, state, heads)
    match = _match(model, own, {**_adapted(model, state), **held})
    if match.missing or match.unexpected or match.misshapen:
        raise ValueError(_misfit(model, state, match, source))
    model.load_state_dict({**own, **match.chosen}, strict=True)
    kept = tuple(key for key in match.chosen if key not in held)
    return CheckpointReport(source, kept, (*dropped, *match.dropped), (*match.fresh, *held))


@dataclass
class _Match:
    """Match of a checkpoint's tensors with those of a model, and the obstacles to it."""

    chosen: dict[str, torch.Tensor] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)


def _adapted(model: nn.Module, state: State) -> dict[str, torch.Tensor]:
    """Return a state dict in which norms of several parts find those of plain norms."""
    adapted = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, Norm):
            module.split_state(adapted, f"{name}." if name else "")
    return adapted


def _held(own: State, state: State, heads: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the model's own tensors of those heads that the checkpoint has otherwise or not."""
    held: dict[str, torch.Tensor] = {}
    for head in heads:
        tensors = {key: own[key] for key in own if key.startswith(f"{head}.")}
        there = [key for key in state if key.startswith(f"{head}.")]
        other = any(key in state and state[key].shape != tensors[key].shape for key in tensors)
        if other or not there:
            held |= tensors
    return held


def _match(model: nn.Module, own: State, state: State) -> _Match:
    """Find a tensor of `state` for each of `own`; norms are matched by place, not by key."""
    match, used = _Match(), set()
    own_places, places = _norm_places(own), _norm_places(state)
    key_at = {place: key for key, place in places.items()}
    batch_norms = {site for site, leaf in own_places.values() if leaf == "running_mean"}
    for key, tensor in own.items():
        place = own_places.get(key)
        source = key if key in state or place is None else key_at.get(place)
        source = source if source in state else None
        strict = place is None or place[0] in batch_norms
        if source is not None and _fits(state[source], tensor, is_norm=place is not None):
            match.chosen[key] = state[source].reshape(tensor.shape)
            used.add(source)
        elif source is not None and strict:
            match.misshapen.append(
                f"{key} {tuple(tensor.shape)}, there {tuple(state[source].shape)}"
            )
            used.add(source)
        # Files older than torch 0.4.1 do not count batches, and torch itself forgives them that.
        elif strict and not key.endswith(".num_batches_tracked"):
            match.missing.append(key)
        else:
            match.fresh.append(key)
    modules = {name for name, _ in model.named_modules()}
    for key in state:
        if key not in used:
            site = places[key][0] if key in places else None
            known = site in modules and site not in batch_norms
            (match.dropped if known else match.unexpected).append(key)
    return match


def _norm_places(state: State) -> dict[str, tuple[str, str]]:
    """Map each key that belongs to a norm to the norm's path and the name within it.

    MinkowskiEngine keeps its batch norm one level down, under "bn"; that level is left out.
    """
    leaves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in state.items():
        path, _, leaf = key.rpartition(".")
        leaves.setdefault(path, {})[leaf] = tensor
    places = {}
    for path, tensors in leaves.items():
        weight, bias = tensors.get("weight"), tensors.get("bias")
        has_affine = (
            weight is not None
            and bias is not None
            and weight.numel() == bias.numel() == weight.shape[-1:].numel()
        )
        if has_affine or "running_mean" in tensors:
            site = path.removesuffix(".bn")
            places.update({f"{path}.{leaf}": (site, leaf) for leaf in tensors})
    return places


def _fits(tensor: torch.Tensor, target: torch.Tensor, *, is_norm: bool) -> bool:
    """Say whether a tensor may fill its target; norms write (C,) also as (1, C)."""
    return tensor.shape == target.shape or (is_norm and tensor.numel() == target.numel())


def read_checkpoint(path: str | os.PathLike[str]) -> object:
    """Read a file of torch.save or safetensors to the CPU, running no code in it.

    Every checksum is compared; a file of safetensors has none.

    Args:
        path: it ends in .safetensors if it is of that kind.

    Raises:
        ValueError: whatever is wrong with the file, naming it.
        ModuleNotFoundError: safetensors is not installed: `pip install 'geonorm[hub]'`.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"expected a checkpoint file; {path!r} is not a file")
    if path.endswith(".safetensors"):
        return _read_safetensors(path)
    try:
        # torch reads the bytes of a tensor without comparing their checksum.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"{damaged} fails its checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle can raise anything at all: KeyError, struct.error, MemoryError, ...
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(
            f"{path!r} cannot be read as a checkpoint: it is truncated, corrupted, or holds more "
            f"than tensors ({type(error).__name__}: {reason}). If it is whole and you trust its "
            "origin, read it with torch.load(path, weights_only=False)"
        ) from error


def _read_safetensors(path: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path!r} cannot be read as safetensors: it is truncated or corrupted ({error})"
        ) from error
    return tensors


def save_weights(
    model: nn.Module | Mapping[str, torch.Tensor],
    path: str | os.PathLike[str],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write the weights of a model as safetensors, which `load_checkpoint` reads.

    Args:
        model: a model or its state dict; tensors that share memory are written twice.
        path: a file that ends in .safetensors; it appears complete or not at all.
        notes: kept in the file beside the weights.

    Raises:
        ValueError: another suffix.
        ModuleNotFoundError: safetensors is not installed: `pip install 'geonorm[hub]'`.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"expected a path that ends in .safetensors; got {path}")
    state = model.state_dict() if isinstance(model, nn.Module) else model
    # A copy of each, in the plain order of memory: the format has neither strides nor sharing.
    tensors = {
        key: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, tensor in state.items()
    }
    with written_whole(path) as aside:
        save_file(tensors, aside, {"format": "pt", **(notes or {})})


def _unwrap(checkpoint: object, source: str) -> dict[str, torch.Tensor]:
    """Return the state dict within a checkpoint."""
    inner = checkpoint
    for key in WRAPPINGS:
        if isinstance(inner, Mapping) and isinstance(inner.get(key), Mapping):
            inner = inner[key]
    if not isinstance(inner, Mapping) or not any(map(torch.is_tensor, inner.values())):
        found = _listed(list(map(str, inner))) if isinstance(inner, Mapping) else type(inner)
        raise ValueError(
            f"{source} holds no state dict; expected one, bare or under one of {WRAPPINGS}; "
            f"found {found}"
        )
    return dict(inner)


def _strip_prefixes(
    state: dict[str, torch.Tensor], own: State
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Take off what wrappers put before every key; return also the keys without it."""
    dropped: list[str] = []
    while True:
        prefix = next(
            (
                prefix
                for prefix in PREFIXES
                if any(str(key).startswith(prefix) for key in state)
                and not any(key.startswith(prefix) for key in own)
            ),
            None,
        )
        if prefix is None:
            return state, dropped
        dropped += [key for key in state if not str(key).startswith(prefix)]
        state = {
            key.removeprefix(prefix): tensor
            for key, tensor in state.items()
            if str(key).startswith(prefix)
        }


def _check_tensors(state: Mapping[Any, object], source: str) -> None:
    """Refuse what no layer of a working model holds."""
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"{source}: a state dict maps names to tensors; got {key!r} -> "
                f"{type(tensor).__name__}"
            )
        counts = key.endswith("num_batches_tracked")
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise ValueError(f"{source}: {key} must be a dense tensor; got {tensor.layout}")
        if not (counts or tensor.is_floating_point()):
            raise ValueError(f"{source}: {key} must be floating point; got {tensor.dtype}")
        if not counts and not bool(torch.isfinite(tensor.float()).all()):
            raise ValueError(f"{source}: {key} holds NaN or infinity; the file is damaged")


def _misfit(model: nn.Module, state: State, match: _Match, source: str) -> str:
    """Say what does not fit, and which model of the family the checkpoint is of."""
    lines = [f"{source} does not fit this {type(model).__name__}"]
    for title, keys in (
        ("missing there", match.missing),
        ("unknown here", match.unexpected),
        ("of another shape", match.misshapen),
    ):
        if keys:
            lines.append(f"  {title}: {_listed(keys)}")
    if match.missing and all(key.rpartition(".")[2] in RUNNING for key in match.missing):
        lines.append("  it holds no running statistics: it was trained with another norm")
    shapes = {key: tensor.shape for key, tensor in state.items()}
    for name, candidate in getattr(model, "candidates", lambda shapes: ())(shapes):
        other = _match(candidate, candidate.state_dict(), state)
        if not (other.missing or other.unexpected or other.misshapen):
            lines.append(f"  it fits {name}")
    return "\n".join(lines)


def _listed(keys: Iterable[str]) -> str:
    """Write the number of keys and the first few."""
    keys = list(keys)
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{len(keys)}: {', '.join(keys[:SHOWN])}{more}"
