"""Small models with norms."""

import torch
from torch import nn


def randomized(model, seed=1):
    """Give every parameter and statistic of the norms a value of its own, none its default."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        if value.ndim == 1 and value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8)),
        nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))


def assert_normal(values, deviation):
    """Fail unless values look drawn from a normal distribution of that deviation about 0."""
    values = values.detach().double().flatten() / deviation
    count = len(values)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        found = values.pow(power).mean().item()
        assert abs(found - moment) < 5 * (variance / count) ** 0.5, (power, found, count)


def candidates(model, shapes):
    """Return what the nets are called that a state dict of these shapes may belong to."""
    return [name for name, _ in model.candidates({key: torch.Size(shapes[key]) for key in shapes})]
