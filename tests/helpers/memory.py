"""Memory that a forward takes."""

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


def kept_bytes(model: nn.Module, x: object) -> int:
    """Return how much memory a forward leaves taken, its output included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        out = model(x)
    features: torch.Tensor = getattr(out, "F", out)
    assert features.requires_grad  # it is alive, and its graph with it
    events = recorded.profiler.kineto_results.events()
    return sum(event.nbytes() for event in events if event.name() == "[memory]")
