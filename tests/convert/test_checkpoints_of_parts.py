"""Checkpoints of plain batch norm in models whose norms consist of parts or know domains."""

import pytest
import torch
from torch import nn

import geonorm
from geonorm.models import load_checkpoint, r3d_18, resnet3d

DOMAINS = 2


def drawn(model):
    """Return a model none of whose parameters or statistics is its default."""
    generator = torch.Generator().manual_seed(5)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        else:
            tensor.fill_(7)
    return model


@pytest.fixture(scope="module")
def batch_state():
    return drawn(resnet3d(10, num_classes=3, norm="batch", width=8)).state_dict()


def check_parts(norm, state, key):
    """Check that both parts of a norm have what the batch norm has of their channels."""
    split = norm.instance.num_features
    assert 0 < split < norm.num_features
    for name in ("weight", "bias"):
        assert torch.equal(getattr(norm.instance, name), state[f"{key}.{name}"][:split])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(norm.batch, name), state[f"{key}.{name}"][split:])
    assert norm.batch.num_batches_tracked == 7


def test_batch_norm_goes_to_both_parts_of_ibn_a_in_a_3d_resnet(batch_state):
    model = resnet3d(10, num_classes=3, norm="ibn-a", width=8)
    report = load_checkpoint(model, batch_state)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        norm = model.get_submodule(f"{stage}.0.bn1")
        assert isinstance(norm, geonorm.InstanceBatchNorm)
        check_parts(norm, batch_state, f"{stage}.0.bn1")
    assert torch.equal(model.layer1[0].bn2.running_var, batch_state["layer1.0.bn2.running_var"])
    assert not report.fresh
    assert "layer1.0.bn1.instance.running_mean" in report.dropped
    assert len(report.dropped) == 4 * 3


def test_batch_norm_goes_to_both_parts_of_ibn_a_in_a_minkunet():
    pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    from geonorm.models import MinkUNet14A

    state = drawn(MinkUNet14A(3, 5, norm="batch")).state_dict()
    model = MinkUNet14A(3, 5, norm="ibn-a")
    report = load_checkpoint(model, state)
    check_parts(model.block1[0].norm1, state, "block1.0.norm1.bn")
    assert torch.equal(model.bn0.bn.running_mean, state["bn0.bn.running_mean"])
    assert not report.fresh
    assert len(report.dropped) == 8 * 3


def test_ibn_a_of_another_width_is_refused_and_nothing_changes(batch_state):
    model = resnet3d(10, num_classes=3, norm="ibn-a", width=16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"(?s)does not fit this ResNet3D.*of another shape"):
        load_checkpoint(model, batch_state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_ibn_a_needs_the_running_statistics_that_instance_norm_has_not():
    state = resnet3d(10, num_classes=3, norm="instance", width=8).state_dict()
    model = resnet3d(10, num_classes=3, norm="ibn-a", width=8)
    with pytest.raises(ValueError, match="holds no running statistics: it was trained with anoth"):
        load_checkpoint(model, state)


def test_ibn_a_loads_its_own_and_a_batch_norm_does_not_load_it(batch_state):
    trained = resnet3d(10, num_classes=3, norm="ibn-a", width=8)
    load_checkpoint(trained, batch_state)
    model = resnet3d(10, num_classes=3, norm="ibn-a", width=8)
    report = load_checkpoint(model, trained.state_dict())
    assert (len(report.dropped), len(report.fresh)) == (0, 0)
    assert all(map(torch.equal, model.state_dict().values(), trained.state_dict().values()))
    with pytest.raises(ValueError, match=r"missing there: .*layer1\.0\.bn1\.running_mean"):
        load_checkpoint(resnet3d(10, num_classes=3, norm="batch", width=8), trained.state_dict())


def test_ibn_b_takes_what_there_is_and_says_which_norms_are_new():
    state = drawn(r3d_18(num_classes=3, norm="batch")).state_dict()
    report = load_checkpoint(model := r3d_18(num_classes=3, norm="ibn-b"), state)
    assert torch.equal(model.stem[1].weight, state["stem.1.weight"])
    assert len(report.fresh) == 4 * 2  # one norm after the last addition of each stage
    assert len(report.dropped) == 3  # the statistics of the stem's


def small(norm):
    return nn.Sequential(nn.Linear(3, 6), norm(6), nn.Linear(6, 2))


@pytest.mark.parametrize("inner", ["", "bn."])
def test_every_domain_starts_as_the_batch_norm(inner):
    state = drawn(small(nn.BatchNorm1d)).state_dict()
    found = {key.replace("1.", f"1.{inner}"): value for key, value in state.items()}
    model = small(lambda channels: geonorm.DomainBatchNorm(channels, num_domains=DOMAINS))
    report = load_checkpoint(model, found)
    for number in range(DOMAINS):
        own = model[1].norms[number].state_dict()
        assert all(torch.equal(own[name], state[f"1.{name}"]) for name in own)
        assert len(own) == 5
    assert (len(report.dropped), len(report.fresh)) == (0, 0)
    model = small(lambda channels: geonorm.DomainInstanceNorm(channels, num_domains=DOMAINS))
    report = load_checkpoint(model, found)
    assert torch.equal(model[1].weight, state["1.weight"].expand(DOMAINS, -1))
    assert torch.equal(model[1].bias, state["1.bias"].expand(DOMAINS, -1))
    assert (len(report.dropped), len(report.fresh)) == (3, 0)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_load_state_dict_splits_a_batch_norm(ratio):
    old, new = drawn(nn.BatchNorm2d(7)), geonorm.InstanceBatchNorm(7, ratio=ratio)
    if new.instance is not None:
        with pytest.warns(UserWarning, match="running statistics of a batch norm are dropped"):
            new.load_state_dict(old.state_dict())
    else:
        new.load_state_dict(old.state_dict())
    parts = [part for part in (new.instance, new.batch) if part is not None]
    assert torch.equal(torch.cat([part.weight for part in parts]), old.weight)
    assert torch.equal(torch.cat([part.bias for part in parts]), old.bias)
    if new.batch is not None:
        assert torch.equal(new.batch.running_var, old.running_var[-new.batch.num_features:])
    if ratio == 0:  # then it is the same function
        x = torch.randn(2, 7, 4, 4)
        assert torch.equal(new.eval()(x), old.eval()(x))
