"""speed_up: MinkowskiEngine's convolutions become ours in place."""

import copy

import pytest
import torch
from torch import nn

import geonorm
from helpers.convolution_cases import ME, SparseConvolution, SparseConvolutionTranspose, places
from helpers.sparse_conv_cases import largest_error


class Own(ME.MinkowskiConvolution):
    """A user's subclass."""


def model():
    return nn.Sequential(
        ME.MinkowskiConvolution(3, 4, kernel_size=3, dimension=3),
        ME.MinkowskiReLU(),
        ME.MinkowskiConvolution(4, 4, kernel_size=2, stride=2, dimension=3),
        ME.MinkowskiConvolutionTranspose(4, 5, kernel_size=2, stride=2, bias=True, dimension=3),
        ME.MinkowskiConvolution(5, 2, kernel_size=1, dimension=3),
    )


def scan():
    return ME.SparseTensor(torch.randn(len(places(3)), 3), places(3))


def test_modules_parameters_and_results_stay():
    net, x = model(), scan()
    modules, parameters = [*net], dict(net.named_parameters())
    keys, expected = [*net.state_dict()], net(x).F
    seen = []
    net[0].register_forward_hook(lambda module, args, out: seen.append(type(module)))
    report = geonorm.speed_up(net)
    assert report.changed == ("0", "2", "3", "4")
    assert report.left == {}
    assert str(report) == "4 convolutions sped up, 0 left"
    assert all(map(lambda one, other: one is other, net, modules))
    assert all(dict(net.named_parameters())[key] is value for key, value in parameters.items())
    assert [*net.state_dict()] == keys
    kinds = SparseConvolution, ME.MinkowskiReLU, SparseConvolution, SparseConvolutionTranspose
    assert [type(module) for module in net[:4]] == [*kinds]
    with torch.autograd.profiler.profile() as profile:
        found = net(x).F
    assert "geonorm::sparse_conv" in {event.name for event in profile.function_events}
    assert seen == [SparseConvolution]
    assert largest_error(found, expected) < 1e-5
    assert torch.equal(copy.deepcopy(net)(x).F, found)


def test_what_is_left_is_named_with_its_reason():
    net = model()
    net.append(Own(2, 2, kernel_size=3, dimension=3))
    net.append(ME.MinkowskiMaxPooling(kernel_size=2, stride=2, dimension=3))
    net.append(ME.MinkowskiChannelwiseConvolution(2, kernel_size=3, dimension=3))
    net.append(ME.MinkowskiGenerativeConvolutionTranspose(2, 2, kernel_size=2, stride=2,
                                                          dimension=3))
    patched = ME.MinkowskiConvolution(2, 2, kernel_size=3, dimension=3)
    patched.forward = lambda x: x
    net.append(patched)
    x = scan()
    expected = net(x).F
    report = geonorm.speed_up(net)
    assert report.left == {
        "5": "Own is a subclass, which may do more than its base class",
        "6": "MinkowskiMaxPooling is no convolution that the operator computes",
        "7": "MinkowskiChannelwiseConvolution is no convolution that the operator computes",
        "8": "MinkowskiGenerativeConvolutionTranspose makes coordinates of its own",
        "9": "its forward was replaced",
    }
    assert "  5  left: Own is a subclass" in str(report)
    assert largest_error(net(x).F, expected) < 1e-5


def test_twice_is_once_and_cuda_is_asked_for():
    net = model()
    geonorm.speed_up(net)
    assert net[0].engine == "auto"
    assert geonorm.speed_up(net, cuda=True).changed == ("0", "2", "3", "4")
    assert {net[k].engine for k in (0, 2, 3, 4)} == {"geonorm"}
    geonorm.speed_up(net)
    assert {net[k].engine for k in (0, 2, 3, 4)} == {"auto"}
    fresh = model()
    geonorm.speed_up(fresh, cuda=True)
    assert {fresh[k].engine for k in (0, 2, 3, 4)} == {"geonorm"}


def test_models_of_this_package_are_fast_already():
    from geonorm.models import MinkUNet14A

    net = MinkUNet14A(3, 2, convolution="minkowski")
    report = geonorm.speed_up(net)
    assert len(report.changed) > 30
    assert net.conv0p1s1.engine == "auto"


def test_a_model_of_which_all_is_left_is_told_line_by_line():
    pool = ME.MinkowskiSumPooling(kernel_size=2, stride=2, dimension=3)
    own = Own(2, 2, kernel_size=3, dimension=3)
    report = geonorm.speed_up(nn.ModuleDict({"a": own, "pool": pool}))
    assert str(report).splitlines() == [
        "0 convolutions sped up, 2 left",
        "  a     left: Own is a subclass, which may do more than its base class",
        "  pool  left: MinkowskiSumPooling is no convolution that the operator computes",
    ]


def test_a_model_without_convolutions_is_refused():
    with pytest.raises(ValueError, match="Sequential has no convolution of MinkowskiEngine"):
        geonorm.speed_up(nn.Sequential(ME.MinkowskiReLU()))
