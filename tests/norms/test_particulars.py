"""Particulars of each norm: limits, state dicts of other norms, bad input."""

import re

import pytest
import torch
from conftest import TOLERANCES, relative_error
from torch import nn

import geonorm
from geonorm import (
    BatchNorm,
    DomainBatchNorm,
    DomainInstanceNorm,
    GroupNorm,
    InstanceBatchNorm,
    InstanceNorm,
    LayerNorm,
    SyncBatchNorm,
)
from helpers.norm_family_cases import CHANNELS, DOMAINS, build, example, sparse, values

FLOAT32 = TOLERANCES["float32 against float64"]


def randomize(module, seed=4):
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return module


@pytest.mark.parametrize("width", range(1, 8))
@pytest.mark.parametrize("ratio", [0, 0.1, 0.25, 0.5, 0.9, 1])
def test_ibn_of_any_ratio_and_width(width, ratio):
    x, norm = torch.randn(3, width, 4, 5), InstanceBatchNorm(width, ratio=ratio)
    split = int(ratio * width)
    parts = [p for p, m in ((x[:, :split], split), (x[:, split:], width - split)) if m]
    theirs = [nn.InstanceNorm2d(split)] * bool(split)
    theirs += [nn.BatchNorm2d(width - split)] * (split < width)
    expected = torch.cat([norm(part) for norm, part in zip(theirs, parts, strict=True)], 1)
    assert relative_error(norm(x), expected) < FLOAT32


def test_ibn_loads_ibn_nets_state_dict():
    theirs = nn.ModuleDict({"IN": nn.InstanceNorm2d(3, affine=True), "BN": nn.BatchNorm2d(3)})
    ours = InstanceBatchNorm(6)
    ours.load_state_dict(randomize(theirs).state_dict())
    x = torch.randn(2, 6, 4, 4)
    expected = torch.cat([theirs["IN"](x[:, :3]), theirs["BN"].eval()(x[:, 3:])], 1)
    assert relative_error(ours.eval()(x), expected) < FLOAT32


def test_ibn_keeps_the_gain_of_one_instance_in_the_channels_of_batch_norm_alone():
    x = torch.randn(3, 6, 4, 5)
    louder = x * torch.tensor([1.0, 9.0, 1.0])[:, None, None, None]
    norm = InstanceBatchNorm(6)
    assert relative_error(norm(louder)[:, :3], norm(x)[:, :3]) < 1e-4
    assert relative_error(norm(louder)[:, 3:], norm(x)[:, 3:]) > 0.1


def minkowski_batch_norm(channels):
    engine = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    return engine.MinkowskiBatchNorm(channels)


@pytest.mark.parametrize("source", [
    nn.BatchNorm1d, nn.BatchNorm3d, nn.SyncBatchNorm, minkowski_batch_norm])
@pytest.mark.parametrize("norm", [BatchNorm, SyncBatchNorm])
def test_batch_norm_loads_every_batch_norm_whole(norm, source):
    theirs, ours = randomize(source(CHANNELS)), norm(CHANNELS)
    ours.load_state_dict(theirs.state_dict())
    exact = nn.BatchNorm1d(CHANNELS)
    exact.load_state_dict({k.removeprefix("bn."): v for k, v in theirs.state_dict().items()})
    x = sparse("SparseTensor")
    assert torch.equal(ours.eval()(x).F, exact.eval()(x.F))
    for key, value in exact.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)


def test_batch_norm_of_rows_moves_its_running_statistics_as_torchs_does():
    x, features, _ = example("index")
    ours, theirs = BatchNorm(CHANNELS), nn.BatchNorm1d(CHANNELS)
    for _ in range(2):
        assert torch.equal(values(ours(x)), theirs(features))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert not torch.equal(ours.running_var, torch.ones(CHANNELS))
    assert torch.equal(values(ours.eval()(x)), theirs.eval()(features))


def test_conversion_to_sync_batch_norm_takes_both_kinds_and_shares_their_tensors():
    model = nn.Sequential(BatchNorm(6, eps=1e-3, momentum=0.02), nn.Sequential(nn.BatchNorm2d(6)),
                          minkowski_batch_norm(6))
    weight = randomize(model)[0].weight
    state = {key: value.clone() for key, value in model.state_dict().items()}
    converted = SyncBatchNorm.convert_sync_batchnorm(model.eval())
    assert isinstance(converted[0], SyncBatchNorm)
    assert isinstance(converted[1][0], SyncBatchNorm)
    assert isinstance(converted[2].bn, SyncBatchNorm)
    assert converted[0].weight is weight
    assert not converted[0].training
    assert (converted[0].eps, converted[0].momentum) == (1e-3, 0.02)
    for key, value in converted.state_dict().items():
        assert torch.equal(value, state[key])
    x = sparse("SparseTensor")
    assert converted[2](x).F.shape == converted[0](x).F.shape == x.F.shape


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_norm_of_dense_tensors_is_torchs(groups):
    x = torch.randn(3, 6, 4, 5)
    theirs, ours = randomize(nn.GroupNorm(groups, 6)), GroupNorm(6, num_groups=groups)
    ours.load_state_dict(theirs.state_dict())
    assert relative_error(ours(x), theirs(x)) < FLOAT32


def test_group_norm_with_a_group_a_channel_is_instance_norm_and_with_fewer_is_not():
    x, _, _ = example("index")
    instance = values(InstanceNorm(CHANNELS)(x))
    assert relative_error(values(GroupNorm(CHANNELS, num_groups=CHANNELS)(x)), instance) < FLOAT32
    assert relative_error(values(GroupNorm(CHANNELS, num_groups=3)(x)), instance) > 1e-2


def test_layer_norm_is_torchs_on_the_features():
    x, features, _ = example("index")
    theirs, ours = randomize(nn.LayerNorm(CHANNELS)), LayerNorm(CHANNELS)
    ours.load_state_dict(theirs.state_dict())
    assert relative_error(values(ours(x)), theirs(features)) < FLOAT32
    assert relative_error(ours(features), theirs(features)) < FLOAT32  # a bare matrix will do


def test_domains_have_statistics_and_parameters_of_their_own():
    x, features, index = example("index")
    norm = DomainBatchNorm(CHANNELS, num_domains=3)
    norm(x, domain=DOMAINS)
    counts = [int(one.num_batches_tracked) for one in norm.norms]
    assert counts == [1, 1, 0]
    alone = nn.BatchNorm1d(CHANNELS)
    alone(features[index == 1])
    assert torch.equal(norm.norms[0].running_mean, alone.running_mean)
    randomize(norm).eval()
    out = values(norm(x, domain=torch.tensor(DOMAINS)))
    for domain in (0, 1):
        whole = values(norm(x, domain=domain))
        mine = torch.tensor(DOMAINS)[index] == domain
        assert torch.equal(out[mine], whole[mine])
        assert relative_error(out[~mine], whole[~mine]) > 1e-2


@pytest.mark.parametrize("index", [[0, 0, 0, 2, 2], []])
def test_a_domain_without_positions_has_seen_no_batch(index):
    """Of three instances that of domain 1, or every one, is empty."""
    norm = DomainBatchNorm(CHANNELS, num_domains=3)
    x = torch.randn(len(index), CHANNELS, generator=torch.Generator().manual_seed(0)) + 5
    for domains in ([2, 1, 0], *([1] if not index else [])):
        norm(x, torch.tensor(index, dtype=torch.int64), domain=domains, num_instances=3)
    seen = [0, 2] if index else []
    for number, one in enumerate(norm.norms):
        assert int(one.num_batches_tracked) == (number in seen), number
        assert bool((one.running_mean != 0).all()) == (number in seen), number
        assert bool((one.running_var == 1).all()) != (number in seen), number


@pytest.mark.parametrize("norm", [DomainBatchNorm, DomainInstanceNorm])
def test_a_plain_norm_loads_into_every_domain(norm):
    plain = BatchNorm if norm is DomainBatchNorm else InstanceNorm
    theirs, ours = randomize(plain(CHANNELS)).eval(), norm(CHANNELS, num_domains=3).eval()
    ours.load_state_dict(theirs.state_dict())
    x, _, _ = example("index")
    for domain in range(3):
        assert relative_error(values(ours(x, domain=domain)), values(theirs(x))) < FLOAT32
    again = norm(CHANNELS, num_domains=3)
    again.load_state_dict(ours.state_dict())


def test_set_domain_reaches_every_norm_and_a_call_may_differ():
    model = nn.Sequential(DomainInstanceNorm(6, num_domains=2),
                          nn.Sequential(DomainBatchNorm(6, num_domains=2)))
    randomize(model).eval()
    geonorm.set_domain(model, 1)
    assert [model[0].domain, model[1][0].domain] == [1, 1]
    x = torch.randn(2, 6, 4, 4)
    assert relative_error(model[0](x, domain=0), model[0](x)) > 1e-2
    geonorm.set_domain(model, [0, 1])
    assert torch.equal(model[0](x)[0], model[0](x, domain=0)[0])
    with geonorm.set_domain(model, 0):
        assert [model[0].domain, model[1][0].domain] == [0, 0]
    assert [model[0].domain, model[1][0].domain] == [[0, 1], [0, 1]]
    with pytest.raises(ValueError, match="Sequential holds no domain norm"):
        geonorm.set_domain(nn.Sequential(nn.ReLU()), 1)


X = torch.randn(2, 6, 4, 4)
BAD = {
    "matrix": (lambda: InstanceNorm(6)(X[:, :, 0, 0]), ValueError,
               r"3 or more dimensions; got \(2, 6\).*norm\(features, batch_index\)"),
    "integers": (lambda: InstanceNorm(6)(X.long()), TypeError, "must be floating point; got"),
    "channels": (lambda: InstanceNorm(5)(X), ValueError,
                 r"must be \(B, 5, …\); got \(2, 6, 4, 4\)\. Did you mean InstanceNorm\(6\)\?"),
    "channels of rows": (
        lambda: GroupNorm(5, num_groups=1)(X[:, :, 0, 0], torch.arange(2)), ValueError,
        r"must be \(N, 5\).*GroupNorm\(6\)"),
    "weights of a dense tensor": (
        lambda: InstanceNorm(6)(X, point_weights=torch.ones(2)), TypeError,
        "point_weights weigh rows; a dense tensor has none"),
    "ratio": (lambda: InstanceBatchNorm(6, ratio=1.5), ValueError,
              r"ratio must lie in \[0, 1\]; got 1"),
    "batch norm's channels": (lambda: BatchNorm(5)(X), ValueError,
                              r"must be \(B, 5, …\); got \(2, 6, 4, 4\).*BatchNorm\(6\)\?"),
    "batch norm of a line": (lambda: BatchNorm(5)(X[0, 0, 0]), ValueError,
                             r"must be \(B, C, …\).*; got \(4,\)"),
    "groups": (lambda: GroupNorm(6, num_groups=4), ValueError,
               "must divide num_features; got 4 groups of 6 channels"),
    "no groups": (lambda: GroupNorm(6, num_groups=0), ValueError, "got 0 groups"),
    "no domain": (lambda: DomainBatchNorm(6, num_domains=2)(X), ValueError,
                  r"DomainBatchNorm needs the domain.*pass domain=, or call geonorm.set_domain"),
    "no domains": (lambda: DomainInstanceNorm(6, num_domains=0), ValueError,
                   "num_domains must be 1 or more"),
    "domain too large": (lambda: DomainBatchNorm(6, num_domains=2)(X, domain=2), ValueError,
                         r"domain must lie in \[0, 2\); got \[2\]"),
    "domain negative": (lambda: DomainInstanceNorm(6, num_domains=2)(X, domain=[0, -1]),
                        ValueError, r"\[0, 2\); got \[0, -1\]"),
    "domain of too many": (lambda: DomainInstanceNorm(6, num_domains=2)(X, domain=[0, 1, 1]),
                           ValueError, r"one for each of the 2 instances; got shape \(3,\)"),
    "domain of one in a list": (lambda: DomainInstanceNorm(6, num_domains=2)(X, domain=[1]),
                                ValueError, r"one for each of the 2 instances; got shape \(1,\)"),
    "domain of a tensor too large": (
        lambda: DomainBatchNorm(6, num_domains=2)(X, domain=torch.tensor([0, 2])), ValueError,
        r"domain must lie in \[0, 2\); got \[0, 2\]"),
    "domain of truths": (lambda: DomainInstanceNorm(6, num_domains=2)(X, domain=[True, False]),
                         TypeError, "domain must hold integers; got torch.bool"),
    "domain complex": (lambda: DomainInstanceNorm(6, num_domains=2)(X, domain=torch.zeros(
        2, dtype=torch.cfloat)), TypeError, "must hold integers; got torch.complex64"),
    "domain in columns": (lambda: DomainInstanceNorm(6, num_domains=2)(X, domain=[[0], [1]]),
                          ValueError, r"one for each of the 2 instances; got shape \(2, 1\)"),
    "domain a float": (lambda: DomainInstanceNorm(6, num_domains=2)(X, domain=0.5), TypeError,
                       "domain must hold integers; got torch.float32"),
}


def test_one_domain_is_enough():
    norm = DomainInstanceNorm(6, num_domains=1)
    torch.testing.assert_close(norm(X, domain=0), InstanceNorm(6)(X))


@pytest.mark.parametrize("case", BAD)
def test_refusals(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(("name", "shown"), [
    ("InstanceNorm", "InstanceNorm(6, eps=1e-05, affine=True)"),
    ("GroupNorm", "GroupNorm(6, eps=1e-05, affine=True, num_groups=3)"),
    ("DomainInstanceNorm", "DomainInstanceNorm(6, eps=1e-05, num_domains=2)"),
])
def test_repr_shows_what_was_given(name, shown):
    assert repr(build(name)) == shown


def test_repr_of_compositions():
    shown = repr(build("InstanceBatchNorm"))
    assert re.match(r"InstanceBatchNorm\(\n  6, eps=1e-05, ratio=0\.4", shown)
    assert "AdaptiveInstanceNorm(3, eps=0.1)" in repr(geonorm.AdaptiveInstanceNorm(3, 0.1))


def test_point_weights_reach_the_operator():
    _, features, index = example("index")
    weights = torch.arange(59) % 3 + 1
    repeated = [each.repeat_interleave(weights, 0) for each in (features, index)]
    expected = InstanceNorm(CHANNELS)(*repeated)[weights.cumsum(0) - 1]
    found = InstanceNorm(CHANNELS)(features, index, point_weights=weights)
    assert relative_error(found, expected) < FLOAT32
    assert relative_error(InstanceNorm(CHANNELS)(features, index), expected) > 1e-2


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_activation_of_instance_norm(activation):
    for kind in ("index", "4-D"):
        x, _, _ = example(kind)
        fused = InstanceNorm(CHANNELS, activation=activation, negative_slope=0.2)(x)
        plain = values(InstanceNorm(CHANNELS)(x))
        expected = plain.relu() if activation == "relu" else nn.functional.leaky_relu(plain, 0.2)
        assert relative_error(values(fused), expected) < FLOAT32


