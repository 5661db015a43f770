"""geonorm.convert loses nothing: activations, hooks, and all that stands on a parameter."""

import copy

import pytest
import torch
import torchvision
from conftest import relative_error
from torch import nn

import geonorm
from geonorm import InstanceNorm, convert
from geonorm.convert.transfer import carry
from geonorm.inputs import read
from geonorm.models import resnet3d
from geonorm.norms.activated import Activated
from geonorm.norms.base import Norm
from geonorm.norms.registry import NORMS, PLACED
from helpers.minkunet_cases import ME, MinkUNet14A, batch, scan
from helpers.models import randomized

EXACT = 1e-9  # in float64, of logits and of every gradient


def group(channels):
    return nn.GroupNorm(2, channels)


# A norm of another library, which each backbone can hold.
FOREIGN = {"MinkUNet": ME.MinkowskiInstanceNorm, "ResNet3D": group}


def chosen(name, backbone):
    return FOREIGN[backbone] if name == "a callable" else name


def network(backbone, norm):
    """Return a backbone whose norms have parameters that are none of them their default."""
    torch.manual_seed(0)
    if backbone == "MinkUNet":
        model = MinkUNet14A(3, 5, norm=chosen(norm, backbone)).double()
    else:
        model = resnet3d(10, num_classes=5, norm=chosen(norm, backbone), width=8).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.5)
    return model


def unfused(model):
    """Return the model with no activation in its norms: the network's own ReLUs follow."""
    for module in [*model.modules()]:
        if isinstance(module, Norm):
            module.set_activation(None)
        for name, child in module.named_children():
            if type(child) is nn.Identity:
                setattr(module, name, nn.ReLU())
    return model


def results(model, x):
    """Return the logits and the gradient of every parameter."""
    out = model(x)
    logits = out if isinstance(out, torch.Tensor) else out.F
    upstream = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3)).double()
    return [logits, *torch.autograd.grad(logits, [*model.parameters()], upstream)]


def assert_equal(model, other, x):
    for found, expected in zip(results(model, x), results(other, x), strict=True):
        assert relative_error(found, expected) < EXACT


def inputs(backbone):
    if backbone == "ResNet3D":
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, 3, 8, 40, 40, generator=generator, dtype=torch.float64)
    x = batch(scan(120), scan(90, seed=7))
    return read(x).rebuild(x.F.double())


@pytest.mark.parametrize("backbone", ["MinkUNet", "ResNet3D"])
@pytest.mark.parametrize("name", sorted({*NORMS, *PLACED, "a callable"}))
def test_a_backbone_is_its_unfused_self(name, backbone):
    assert_equal(network(backbone, name), unfused(network(backbone, name)), inputs(backbone))


def test_without_its_relus_a_backbone_is_another():
    model = network("ResNet3D", "instance")
    for module in model.modules():
        if isinstance(module, Norm):
            module.set_activation(None)  # and nothing in the place of those that were fused
    x = inputs("ResNet3D")
    assert relative_error(model(x), network("ResNet3D", "instance")(x)) > 1e-2


@pytest.mark.parametrize("backbone", ["MinkUNet", "ResNet3D"])
@pytest.mark.parametrize("to", sorted({*NORMS, "a callable"}))
def test_a_converted_backbone_is_its_unfused_self(to, backbone):
    model, plain = network(backbone, "instance"), unfused(network(backbone, "instance"))
    report = convert(model, chosen(to, backbone))
    convert(plain, chosen(to, backbone))
    assert sum("activation relu" in row.carried for row in report.rows) >= 9
    assert_equal(model, plain, inputs(backbone))


def test_activation_and_slope_go_to_every_kind_of_norm():
    x = torch.randn(2, 6, 4, 4)
    for to in [*NORMS, group]:
        model = nn.Sequential(InstanceNorm(6, activation="leaky_relu", negative_slope=0.3))
        convert(model, to)
        torch.manual_seed(0)
        bare = copy.deepcopy(model[0])
        bare.set_activation(None)
        expected = nn.functional.leaky_relu(bare(x), 0.3)
        assert relative_error(model(x), expected) < 1e-6
    assert isinstance(model[0], Activated)
    assert isinstance(model[0].norm, nn.GroupNorm)
    convert(model)
    assert (type(model[0]), model[0].activation, model[0].negative_slope) == (
        InstanceNorm, "leaky_relu", 0.3)


def test_a_fit_to_data_leaves_the_activation_out_of_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), InstanceNorm(6, activation="relu"))
    randomized(model)
    old = copy.deepcopy(model)
    report = convert(model, "instance", data=[torch.randn(4, 3, 12, 12)])
    assert report.rows[0].carried == "activation relu"
    assert report.fitted_change < 1e-4
    assert relative_error(model[1].weight, old[1].weight) < 1e-4
    assert relative_error(model[1].bias, old[1].bias) < 1e-4


def test_new_norms_do_not_learn_while_they_are_fitted():
    """Of a model in training mode: else running statistics move, and the change with them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()).train()
    data = [torch.randn(4, 3, 12, 12) * 3 + 1 for _ in range(3)]
    report = convert(model, "batch", data=data)
    assert int(model[1].num_batches_tracked) == 0
    assert torch.equal(model[1].running_mean, torch.zeros(6))
    assert (report.kept_change, report.fitted_change) < (1e-6, 1e-6)
    assert model.training
    assert model[1].training


def test_a_parameter_stays_the_same_object_with_all_that_stands_on_it():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    model[0].weight.requires_grad_(False)
    model[1].weight.no_decay = True
    model[2].weight = model[1].weight
    before = [*model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    convert(model)
    assert [id(p) for p in model.parameters()] == [id(p) for p in before]
    assert [norm.weight.requires_grad for norm in model] == [False, True, True]
    assert model[2].weight is model[1].weight
    assert model[1].weight.no_decay
    model(torch.randn(2, 4, 5, 5)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[1].bias, torch.zeros(4))
    assert torch.equal(model[0].weight, torch.ones(4))


def test_a_parameter_that_is_cut_keeps_what_stands_on_it():
    model = nn.Sequential(nn.BatchNorm2d(4))
    model[0].weight.requires_grad_(False)
    model[0].weight.no_decay = True
    convert(model, "ibn-a")
    for part in (model[0].instance, model[0].batch):
        assert not part.weight.requires_grad
        assert part.weight.no_decay
        assert part.bias.requires_grad


def test_data_and_shared_parameters_are_refused():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match="'0' and '1' share a parameter, so they cannot be fitted"):
        convert(model, data=[torch.randn(2, 3, 4, 4)])


def test_hooks_go_along_and_their_handles_still_remove_them():
    model = nn.Sequential(nn.BatchNorm2d(3))
    seen = []
    after = model[0].register_forward_hook(lambda *_: seen.append("after"))
    model[0].register_forward_pre_hook(lambda *_: seen.append("before"))
    model[0].register_full_backward_hook(lambda *_: seen.append("back"))
    assert convert(model).rows[0].carried == "hooks"
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    model(x).sum().backward()
    assert seen == ["before", "after", "back"]
    after.remove()
    model(x)
    assert seen[3:] == ["before"]


def test_hooks_of_every_kind_go_along():
    model = nn.Sequential(nn.BatchNorm2d(3), InstanceNorm(3, activation="relu"))
    seen = []
    model[0].register_forward_pre_hook(lambda *found: seen.append(len(found)), with_kwargs=True)
    model[0].register_forward_hook(lambda *found: seen.append(len(found)), with_kwargs=True)
    model[0].register_full_backward_pre_hook(lambda *found: seen.append("back"))
    model[1].register_forward_hook(lambda *_: seen.append("failed"), always_call=True)
    rows = convert(model).rows
    assert [row.carried for row in rows] == ["hooks", "activation relu, hooks"]
    model(torch.randn(2, 3, 4, 4, requires_grad=True)).sum().backward()
    assert seen == [3, 4, "failed", "back"]
    with pytest.raises(ValueError, match="features"):
        model[1](torch.randn(2, 5, 4, 4))
    assert seen[4:] == ["failed"]


def test_settings_of_a_batch_norm_go_to_a_batch_norm():
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, momentum=0.3),
                          nn.BatchNorm2d(3, track_running_stats=False))
    for to in ("batch", "sync-batch"):
        convert(model, to)
        assert [norm.momentum for norm in model] == [None, 0.3, 0.1]
        assert [norm.track_running_stats for norm in model] == [True, True, False]
        assert model[2].running_mean is None
    x = torch.randn(5, 3, 4, 4)
    assert relative_error(model[2].eval()(x), nn.BatchNorm2d(3)(x)) < 1e-6


class Doubling(nn.BatchNorm2d):
    """A batch norm with something after it that nobody can know of."""

    def forward(self, x):
        return 2 * super().forward(x)


class Named(nn.BatchNorm2d):
    """A batch norm with another name."""


class Gated(nn.BatchNorm2d):
    """A batch norm with a parameter of its own."""

    def __init__(self, channels):
        super().__init__(channels)
        self.gate = nn.Parameter(torch.zeros(channels))


def parametrized():
    norm = nn.BatchNorm2d(3)
    nn.utils.parametrize.register_parametrization(norm, "weight", nn.Identity())
    return norm


def patched():
    norm = nn.BatchNorm2d(3)
    norm.forward = lambda x: x
    return norm


REFUSED = {
    "a forward of its own": (lambda: Doubling(3), r"'0' \(Doubling\): its forward is not BatchN"),
    "a parametrization": (parametrized, r"it is parametrized; call torch\.nn\.utils\.param"),
    "a parameter of its own": (lambda: Gated(3), r"parameters of its own, \['gate'\]"),
    "a patched forward": (patched, "its forward was replaced on the instance"),
    "lazy": (nn.LazyBatchNorm2d, "it is lazy and has seen no input yet"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("to", ["instance", "batch"])
def test_what_cannot_be_carried_over_is_refused_by_name(case, to):
    build, message = REFUSED[case]
    model = nn.Sequential(build(), nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match=message):
        convert(model, to)
    assert type(model[1]) is nn.BatchNorm2d  # nothing has changed
    assert [row.name for row in convert(model, to, where="1").rows] == ["1"]


def test_only_the_first_of_many_obstacles_are_listed():
    many = [Doubling(3) for _ in range(8)]
    with pytest.raises(ValueError, match=r"8 norms .* '5' .* known, and 2 more\. Leave") as found:
        convert(nn.Sequential(*many))
    assert str(found.value).count("its forward is not") == 6
    with pytest.raises(ValueError, match=r"6 norms cannot be .* '5' .* is not known\. Leave"):
        convert(nn.Sequential(*many[:6]))


def test_what_only_has_another_name_is_replaced():
    model = nn.Sequential(Named(3), nn.Sequential(Doubling(3)))
    assert [row.source for row in convert(model, where="0").rows] == ["Named"]
    with pytest.raises(ValueError, match=r"Doubling cannot become SyncBatchNorm: its forward"):
        geonorm.SyncBatchNorm.convert_sync_batchnorm(model)
    plain = nn.Sequential(nn.BatchNorm2d(3, affine=False))
    assert geonorm.SyncBatchNorm.convert_sync_batchnorm(plain)[0].weight is None


def test_a_norm_with_an_activation_is_not_what_a_callable_should_build():
    with pytest.raises(ValueError, match="InstanceNorm was built with an activation; leave it out"):
        convert(nn.Sequential(nn.BatchNorm2d(3)), lambda c: InstanceNorm(c, activation="relu"))


def test_frozen_batch_norms_are_seen_and_stay_frozen():
    frozen = torchvision.ops.FrozenBatchNorm2d(3)
    frozen.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    model = nn.Sequential(copy.deepcopy(frozen))
    for to, kind in (("batch", "BatchNorm"), ("ibn-a", "InstanceBatchNorm")):
        with pytest.raises(ValueError, match=f"FrozenBatchNorm2d has frozen .* which {kind} would"):
            convert(model, to)
    assert convert(model).rows[0].source == "FrozenBatchNorm2d"
    assert model[0].weight.tolist() == [1.0, 2.0, 3.0]
    assert [p.requires_grad for p in model.parameters()] == [False, False]


def test_torchvisions_layer_norm_of_channels_first_needs_no_layout():
    model = torchvision.models.convnext_tiny(weights=None)
    kinds = {type(m).__name__ for m in model.modules()}
    with pytest.warns(UserWarning, match="'classifier.0' stands beside the global pool 'avgpool'"):
        report = convert(model, where=lambda name, norm: type(norm).__name__ == "LayerNorm2d")
    assert "LayerNorm2d" in kinds
    assert {row.source for row in report.rows} == {"LayerNorm2d"}


@pytest.mark.parametrize("apart", [False, True])
def test_a_copy_shares_no_parameter_and_no_statistic_with_the_old_norm(apart):
    old, new = randomized(nn.BatchNorm2d(4)), geonorm.BatchNorm(4)
    assert carry(old, new, copy=apart) == "kept"
    for name, value in old.state_dict(keep_vars=True).items():
        mine = new.state_dict(keep_vars=True)[name]
        assert torch.equal(mine, value)
        assert (mine.data_ptr() == value.data_ptr()) != apart, name
