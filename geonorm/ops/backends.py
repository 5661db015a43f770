"""List the kernels that are present, choose one, and switch the checks of values on CUDA."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

PRESENT = "available"


@dataclass
class _State:
    forced: str | None = None
    validate: bool = False
    on_cpu: torch.library.Library | None = None  # what runs in place of the compiled kernels


_state = _State()
_kernels: dict[str, Callable[..., Any]] = {}  # of each operator, asking which backend runs


@cache
def _missing_cpp() -> str | None:
    """Load geonorm._C, the kernels of torch.ops.geonorm on the CPU, or say why it cannot be."""
    if importlib.util.find_spec("geonorm._C") is None:
        note = Path(__file__).parents[1] / "_C_missing.txt"  # setup.py's reason
        reason = note.read_text(encoding="utf-8").strip() if note.exists() else "it was not built"
        return f"geonorm._C, the compiled kernels, is missing: {reason}"
    try:
        importlib.import_module("geonorm._C")
    except (ImportError, OSError) as error:
        return f"geonorm._C was built for another Python or torch, install geonorm anew: {error}"
    return None


@cache
def _missing_triton() -> str | None:
    """Load triton, or say why its kernels cannot run; nothing is loaded before this is asked."""
    try:
        triton = importlib.import_module("triton")
    except (ImportError, OSError) as error:
        return f"triton, which CUDA builds of torch bring along, cannot be imported: {error}"
    if torch.cuda.is_available() or triton.knobs.runtime.interpret:
        return None
    return ("torch sees no CUDA device; TRITON_INTERPRET=1, set before triton is imported, runs "
            "the kernels on the CPU, slowly, to test them")


def _interpreted() -> bool:
    return bool(importlib.import_module("triton").knobs.runtime.interpret)


_MISSING: dict[str, Callable[[], str | None]] = {
    "cpp": _missing_cpp, "triton": _missing_triton, "reference": lambda: None
}
_DEVICE = {"cpp": "cpu", "triton": "cuda"}


def backends() -> dict[str, str]:
    """Return every backend with «available», or with the reason why it is missing.

    >>> backends()["reference"]
    'available'
    """
    return {name: missing() or PRESENT for name, missing in _MISSING.items()}


def has_cpp() -> bool:
    """Load the compiled kernels if they are there, and return whether they are."""
    return _missing_cpp() is None


def force_backend(name: str | None) -> AbstractContextManager[Any]:
    """Run every op on one backend, "reference", "cpp" or "triton"; None chooses by device again.

    It holds from the call on, and as a context until the block ends, when what was there before
    comes back.

    Raises:
        ValueError: the name is unknown, or the backend is missing (the message says why).

    >>> with force_backend("reference"):
    ...     backend_for(torch.device("cpu"))
    'reference'
    """
    if name is not None and name not in _MISSING:
        raise ValueError(f"backend must be one of {sorted(_MISSING)} or None; got {name!r}")
    if name is not None and (reason := _MISSING[name]()) is not None:
        raise ValueError(f"backend {name!r} is missing: {reason}")
    return _until_exit(_force, name, _state.forced)


def validate(on: bool) -> AbstractContextManager[Any]:
    """Check the values of index, offsets and weights on CUDA too, at one synchronization per call.

    It holds from the call on, and as a context until the block ends, as `force_backend` does. On
    the CPU values are always checked, except under torch.compile.
    """
    return _until_exit(_validate, bool(on), _state.validate)


def _until_exit(switch: Callable[[Any], None], value: Any, before: Any
                ) -> AbstractContextManager[Any]:
    """Set a switch, and return a context that sets it back."""
    switch(value)
    context = ExitStack()
    context.callback(switch, before)
    return context


def _force(name: str | None) -> None:
    _state.forced, _state.on_cpu = name, None  # the compiled kernels are back in their place
    if name not in (None, "cpp"):
        _state.on_cpu = torch.library.Library("geonorm", "IMPL")
        for operator, kernel in _kernels.items():
            _state.on_cpu.impl(operator, kernel, "CPU")


def _validate(on: bool) -> None:
    _state.validate = on


def checks_values(device: torch.device) -> bool:
    """Return whether the values of a tensor on this device are to be checked now."""
    return not torch.compiler.is_compiling() and (device.type == "cpu" or _state.validate)


def backend_for(device: torch.device) -> str:
    """Return the backend that runs on a device: the forced one, else the fastest one present."""
    if _state.forced is None:
        fast = "cpp" if device.type == "cpu" else "triton"
        return fast if _MISSING[fast]() is None else "reference"
    needed = _DEVICE.get(_state.forced, device.type)
    if needed != device.type and not (_state.forced == "triton" and _interpreted()):
        raise ValueError(
            f"backend {_state.forced!r} is forced and runs on {needed} tensors; got a tensor on "
            f"{device}: move it or call geonorm.force_backend(None)"
        )
    return _state.forced


def define(
    library: torch.library.Library, schemas: Sequence[str], plain: Sequence[Callable[..., Any]],
    triton: str | None,
) -> None:
    """Define operators in geonorm; at every call each asks which backend runs.

    The compiled kernels of geonorm._C take their place on the CPU, except where another backend is
    forced.

    Args:
        library: a fragment of the namespace geonorm.
        schemas: one per operator.
        plain: the reference of each.
        triton: the module, loaded when first needed, with functions of the operators' names; None
            where the reference is what runs on CUDA.
    """
    for schema, function in zip(schemas, plain, strict=True):
        name = schema.partition("(")[0]
        kernel = _kernels[name] = _kernel(name, function, triton)
        library.define(schema)
        library.impl(name, kernel, "CompositeExplicitAutograd")
        torch.library.register_vmap(f"geonorm::{name}", _each(name), lib=library)


def _each(name: str) -> Callable[..., Any]:
    """Return the vmap rule of an operator, which runs it on one sample after the other."""
    def run(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        if info.batch_size == 0:
            raise ValueError(f"{name} cannot be vmapped over no samples")
        results = [
            getattr(torch.ops.geonorm, name)(*(
                value.select(dim, sample) if isinstance(dim, int) else value
                for value, dim in zip(args, in_dims, strict=True)
            )) for sample in range(info.batch_size)
        ]
        if isinstance(results[0], torch.Tensor):
            return torch.stack(results), 0
        outputs = tuple(torch.stack(each) for each in zip(*results, strict=True))
        return outputs, (0,) * len(outputs)

    return run


def _kernel(name: str, plain: Callable[..., Any], triton: str | None) -> Callable[..., Any]:
    def run(first: torch.Tensor, *rest: Any) -> Any:
        if backend_for(first.device) == "triton" and triton is not None:
            return getattr(importlib.import_module(triton), name)(first, *rest)
        return plain(first, *rest)

    return run
