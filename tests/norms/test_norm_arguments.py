"""The norms compute with the arguments that their constructors were given."""

import pytest
import torch

import geonorm
from helpers.norm_family_cases import values

WITH_EPS = {
    "InstanceNorm": lambda eps: geonorm.InstanceNorm(6, eps),
    "BatchNorm": lambda eps: geonorm.BatchNorm(6, eps),
    "SyncBatchNorm": lambda eps: geonorm.SyncBatchNorm(6, eps),
    "InstanceBatchNorm": lambda eps: geonorm.InstanceBatchNorm(6, eps, ratio=0.5),
    "DomainBatchNorm": lambda eps: told(geonorm.DomainBatchNorm(6, eps, num_domains=2)),
    "DomainInstanceNorm": lambda eps: told(geonorm.DomainInstanceNorm(6, eps, num_domains=2)),
    "GroupNorm": lambda eps: geonorm.GroupNorm(6, eps, num_groups=3),
    "LayerNorm": lambda eps: geonorm.LayerNorm(6, eps),
    "DivisiveNorm": lambda eps: geonorm.DivisiveNorm(6, eps, kernel_size=None),
}
DENSE_ONLY = {
    "AxisInstanceNorm": lambda eps: geonorm.AxisInstanceNorm(6, eps, layout="BCHW", axes="HW"),
    "SpatioTemporalInstanceNorm": lambda eps: geonorm.SpatioTemporalInstanceNorm(6, eps),
}


def told(norm):
    geonorm.set_domain(norm, [1, 0, 1])
    return norm


def by_channel(difference):
    """Return the largest difference in each channel."""
    return difference.detach().abs().amax([dim for dim in range(difference.ndim) if dim != 1])


def check_eps(build, run):
    """Check that every channel obeys eps: norm(2x) with 4 eps is norm(x), with eps it is not."""
    once, twice = run(build(0.5), 1.0), run(build(2.0), 2.0)
    assert by_channel(twice - once).max() < 1e-5
    assert by_channel(run(build(0.5), 2.0) - once).min() > 1e-2


@pytest.mark.parametrize("name", WITH_EPS)
def test_eps_on_rows(name):
    features, index = torch.randn(30, 6), torch.arange(30) % 3
    check_eps(WITH_EPS[name], lambda norm, gain: values(norm(geonorm.Rows(features * gain, index))))


@pytest.mark.parametrize("name", [*WITH_EPS, *DENSE_ONLY])
def test_eps_on_dense_tensors(name):
    shape = (3, 6, 2, 4, 5) if name.startswith("Spatio") else (3, 6, 4, 5)
    x = torch.randn(shape)
    check_eps({**WITH_EPS, **DENSE_ONLY}[name], lambda norm, gain: norm(x * gain))


WITH_MOMENTUM = {
    "BatchNorm": lambda momentum: geonorm.BatchNorm(6, momentum=momentum),
    "SyncBatchNorm": lambda momentum: geonorm.SyncBatchNorm(6, momentum=momentum),
    "InstanceBatchNorm": lambda momentum: geonorm.InstanceBatchNorm(6, momentum=momentum),
    "DomainBatchNorm": lambda momentum: told(
        geonorm.DomainBatchNorm(6, num_domains=2, momentum=momentum)),
}


@pytest.mark.parametrize("name", WITH_MOMENTUM)
def test_momentum_is_the_weight_of_the_newest_batch(name):
    x = torch.randn(3, 6, 4, 5) + 3
    for momentum in (0.25, 0.75):
        norm = WITH_MOMENTUM[name](momentum)
        norm(x)
        inner = next(m for m in norm.modules() if getattr(m, "running_mean", None) is not None)
        rows = x[1:2] if name.startswith("Domain") else x  # of domain 0
        expected = momentum * rows.mean((0, 2, 3))[-inner.num_features:]
        assert torch.allclose(inner.running_mean, expected, atol=1e-5)
