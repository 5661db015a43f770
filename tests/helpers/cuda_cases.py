"""Marks for the tests on a CUDA device, and both devices' results side by side."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

CUDA = torch.device("cuda")
# A machine's torch and compilers warn of much that is no fault of ours, and torch, once, of the
# synchronization debug mode itself.
cuda_marks = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]
# Collected everywhere, asked for by `pytest -m cuda`, skipped where there is no device.
on_cuda = [
    *cuda_marks,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


def minkowski_on_cuda() -> None:
    """Skip where MinkowskiEngine is missing or built for the CPU alone."""
    engine = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    if not engine.is_cuda_available():
        pytest.skip("MinkowskiEngine is built for the CPU: run tools/install_minkowski.py --cuda")


@contextmanager
def no_synchronization() -> Iterator[None]:
    """Raise wherever the host waits for the device, as far as torch can tell."""
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def to(device: torch.device, *values: object) -> list:
    """Return tensors on a device, whatever is no tensor as it is."""
    return [value.to(device) if isinstance(value, Tensor) else value for value in values]


def step(module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor,
         upstream: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return a module's output and the gradients of its input and parameters, on the CPU."""
    x = x.detach().clone().requires_grad_()
    module.zero_grad()
    out = run(module, x)
    out.backward(upstream(out))
    gradients = {name: p.grad for name, p in module.named_parameters()}
    return {name: t.detach().cpu() for name, t in
            {"the output": out, "the input's gradient": x.grad, **gradients}.items()}  # fmt: skip


def fixed_upstream(out: Tensor) -> Tensor:
    """Return a gradient for an output, drawn on the CPU so that every device gets the same."""
    drawn = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return drawn.to(out)
