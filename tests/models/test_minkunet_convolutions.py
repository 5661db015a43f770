"""MinkUNet's convolutions: ours or MinkowskiEngine's, one argument apart."""

import re
from contextlib import nullcontext

import pytest
import torch
from conftest import relative_error
from torch import nn

import geonorm
from geonorm.recompute import recompute_activations
from geonorm.sparse_convolution import SparseConvolution, SparseConvolutionTranspose
from helpers.minkunet_cases import ME, batch, build, minkunet, scan


def both(**arguments):
    ours = build(**arguments).double()
    theirs = build(seed=1, convolution="minkowski", **arguments).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_logits_and_gradients_are_the_engines():
    x = batch(scan(), scan(200, seed=1))
    found = []
    for model in both():
        logits = model(x).F
        nn.functional.cross_entropy(logits, torch.arange(len(x)) % 5).backward()
        found.append([logits, *(parameter.grad for parameter in model.parameters())])
    assert all(relative_error(one, other) < 1e-9 for one, other in zip(*found, strict=True))


def test_only_ours_calls_the_operator():
    x = batch(scan())
    for model, expected in zip(both(), (True, False), strict=True):
        with torch.autograd.profiler.profile() as profile:
            model(x)
        called = {event.name for event in profile.function_events}
        assert ("geonorm::sparse_conv" in called) == expected


def test_two_steps_on_two_threads_are_bit_equal():
    """Without norms there is nothing but convolutions; MinkowskiEngine's differ between runs."""
    x = batch(scan(2000, extent=32), scan(1500, seed=1, extent=32))
    model, found, before = build(norm="none"), [], torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for _ in range(2):
            model.zero_grad()
            model(x).F.square().sum().backward()
            found.append([parameter.grad.clone() for parameter in model.parameters()])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


def test_under_autocast_the_convolutions_run_in_half_precision():
    model, seen = build(), set()
    for module in model.modules():
        if isinstance(module, SparseConvolution | SparseConvolutionTranspose):
            module.register_forward_hook(lambda module, x, out: seen.add(out.F.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(batch(scan()))
    assert seen == {torch.bfloat16}


def test_strides_are_those_of_the_names():
    """The way up follows the skips' keys, whatever its strides say; who reads them does not."""
    found = {name: module.kernel_generator.kernel_stride for name, module in
             build().named_modules() if re.fullmatch(r"conv(tr)?\dp\d+s\d", name)}  # fmt: skip
    assert len(found) == 9
    assert all(stride == [int(name[-1])] * 3 for name, stride in found.items())


def test_unknown_convolution_is_refused():
    with pytest.raises(ValueError, match=r"convolution must be one of.*'minkowsky'.*Did you mean"):
        minkunet.MinkUNet14A(3, 5, convolution="minkowsky")


def test_keys_of_checkpoints_stay_the_engines():
    keys = {key for key in build(norm="batch").state_dict() if key.endswith(("kernel", "bias"))}
    assert {"conv0p1s1.kernel", "block1.0.conv1.kernel", "convtr7p2s2.kernel",
            "block8.0.downsample.0.kernel", "final.kernel", "final.bias"} <= keys
    theirs = ME.MinkowskiConvolution(3, 32, kernel_size=5, bias=True, dimension=3)
    build().conv0p1s1.load_state_dict({"kernel": theirs.state_dict()["kernel"]})


def test_recomputing_asks_for_our_convolutions_and_changes_no_bit():
    model, x = build(convolution="minkowski"), batch(scan(), scan(200, seed=1))
    with pytest.raises(ValueError, match=r"which keeps its input.*geonorm\.speed_up"):
        recompute_activations(model)
    geonorm.speed_up(model)
    found = []
    for switch in (nullcontext(), recompute_activations(model)):
        model.zero_grad()
        with switch:
            model(x).F.square().sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    assert all(map(torch.equal, *found))
