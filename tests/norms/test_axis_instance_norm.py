"""AxisInstanceNorm and its form for clips: layouts, torch as judge, state dicts, bad input."""

import doctest
import re

import pytest
import torch
import torch.nn.functional as F
from conftest import TOLERANCES, relative_error
from torch import nn

import geonorm
from geonorm import AxisInstanceNorm, SpatioTemporalInstanceNorm
from geonorm.functional import axis_instance_norm

SUBSETS = {"T": (2,), "H": (3,), "W": (4,), "TH": (2, 3), "TW": (2, 4), "HW": (3, 4),
           "THW": (2, 3, 4)}


def clip(*shape, seed=0):
    return torch.randn(shape or (2, 3, 4, 6, 5), generator=torch.Generator().manual_seed(seed))


def with_parameters(norm, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, generator=generator)
    return norm


def formula(x, dims, eps=1e-5):
    x = x.double()
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (var + eps).sqrt()


@pytest.mark.parametrize("axes", SUBSETS)
def test_every_subset_of_axes(axes):
    norm = with_parameters(SpatioTemporalInstanceNorm(3, axes=axes))
    weight, bias = (p.double()[:, None, None, None] for p in (norm.weight, norm.bias))
    expected = formula(clip(), SUBSETS[axes]) * weight + bias
    assert relative_error(norm(clip()), expected) < TOLERANCES["float32 against float64"]


def test_over_all_axes_it_is_torchs_instance_norm():
    ours = with_parameters(SpatioTemporalInstanceNorm(3, eps=1e-3))
    theirs = nn.InstanceNorm3d(3, eps=1e-3, affine=True)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(clip()), theirs(clip()))
    torch.testing.assert_close(ours(clip()[0]), theirs(clip()[0]))  # unbatched
    torch.testing.assert_close(ours.eval()(clip()), theirs(clip()))


@pytest.mark.parametrize(("layout", "axes"), [
    ("BCTHW", "THW"), ("BTCHW", "HW"), ("BTHWC", "T"), ("CBFT", "F"), ("BCFT", "FT"), ("TBC", "T"),
])
def test_a_layout_is_only_a_permutation(layout, axes):
    sizes = {"B": 2, "C": 3, "T": 4, "H": 5, "W": 6, "F": 7}
    kept = [letter for letter in layout if letter not in "BC"]
    standard = clip(2, 3, *(sizes[letter] for letter in kept))
    order = [["B", "C", *kept].index(letter) for letter in layout]
    x = standard.permute(order).contiguous()
    norm = with_parameters(AxisInstanceNorm(3, layout=layout, axes=axes))
    out = norm(x)
    plain = axis_instance_norm(standard, axes=[2 + kept.index(letter) for letter in axes],
                               weight=norm.weight, bias=norm.bias)
    torch.testing.assert_close(out, plain.permute(order))
    assert out.is_contiguous()
    one = x.select(layout.index("B"), 1)
    torch.testing.assert_close(norm(one), out.select(layout.index("B"), 1))


@pytest.mark.parametrize("unbatched", [False, True])
def test_the_memory_format_stays(unbatched):
    x = clip().contiguous(memory_format=torch.channels_last_3d)
    x = x[0] if unbatched else x
    assert SpatioTemporalInstanceNorm(3)(x).stride() == x.stride()
    assert nn.InstanceNorm3d(3)(x).stride() != x.stride()  # the control


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (3, 1, 6, 5), (1, 4, 6, 1)])
def test_one_clip_without_its_batch_axis_keeps_every_other(shape):
    x = clip(*shape)
    norm = SpatioTemporalInstanceNorm(shape[0], axes="HW")
    assert norm(x).shape == shape
    assert torch.equal(norm(x), norm(x[None])[0])


def test_a_spectrogram_loses_what_is_constant_along_the_axis():
    spectrogram = clip(2, 1, 16, 50).abs() + 0.1
    microphone, loudness = clip(16, 1).exp(), clip(1, 50, seed=1).exp()
    over_time, over_frequency = (
        AxisInstanceNorm(1, eps=1e-9, layout="BCFT", axes=axes) for axes in "TF")

    def moved(norm, gain):
        return relative_error(norm(spectrogram * gain), norm(spectrogram))

    assert moved(over_time, microphone) < TOLERANCES["gain and offset"]
    assert moved(over_frequency, loudness) < TOLERANCES["gain and offset"]
    assert moved(over_time, loudness) > 0.1
    assert moved(over_frequency, microphone) > 0.1


def test_one_element_gives_the_bias_where_torch_raises():
    norm = with_parameters(SpatioTemporalInstanceNorm(3))
    x = clip(2, 3, 1, 1, 1)
    assert torch.equal(norm(x), norm.bias[:, None, None, None].expand_as(x))
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        nn.InstanceNorm3d(3)(x)


def test_half_precision_input_with_float32_parameters():
    norm = with_parameters(SpatioTemporalInstanceNorm(3))
    x = clip().bfloat16()
    out = norm(x)
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert norm.weight.grad.dtype == torch.float32
    torch.testing.assert_close(out, norm(x.float()).bfloat16())
    assert norm.bfloat16()(x).dtype == torch.bfloat16


def test_the_activation_is_fused():
    plain = with_parameters(SpatioTemporalInstanceNorm(3))
    for activation, function in (("relu", F.relu), ("leaky_relu", lambda y: F.leaky_relu(y, 0.3))):
        fused = SpatioTemporalInstanceNorm(3, activation=activation, negative_slope=0.3)
        fused.load_state_dict(plain.state_dict())
        torch.testing.assert_close(fused(clip()), function(plain(clip())))
        assert f"activation='{activation}'" in repr(fused)


def test_state_dicts_of_torchs_norms_load():
    for theirs in (nn.InstanceNorm3d(3, affine=True), with_parameters(nn.GroupNorm(3, 3))):
        ours = SpatioTemporalInstanceNorm(3)
        ours.load_state_dict(theirs.state_dict())
        assert torch.equal(ours.weight, theirs.weight)
    for theirs in (nn.BatchNorm3d(3), nn.InstanceNorm3d(3, affine=True, track_running_stats=True)):
        ours = nn.Sequential(SpatioTemporalInstanceNorm(3))
        state = nn.Sequential(with_parameters(theirs)).state_dict()
        with pytest.warns(UserWarning, match="running statistics of a batch norm are dropped"):
            ours.load_state_dict(state)
        assert torch.equal(ours[0].weight, theirs.weight)
        assert "0.running_mean" in state  # the caller's is left alone


def test_without_affine_it_has_no_parameters():
    norm = SpatioTemporalInstanceNorm(3, affine=False)
    assert norm.weight is None
    assert not norm.state_dict()
    assert relative_error(norm(clip()), formula(clip(), (2, 3, 4))) < 1e-5


def test_device_dtype_and_repr():
    norm = SpatioTemporalInstanceNorm(
        3, 1e-3, True, axes="HW", device="meta", dtype=torch.float64)
    assert norm.weight.is_meta
    assert norm.bias.dtype == torch.float64
    assert repr(norm) == ("SpatioTemporalInstanceNorm(3, eps=0.001, affine=True, layout='BCTHW', "
                          "axes='HW')")


def test_compiles_into_one_graph_for_any_number_of_frames():
    torch.compiler.reset()
    norm = with_parameters(SpatioTemporalInstanceNorm(3))
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager", dynamic=True)
    for frames in (4, 5, 7):
        x = clip(2, 3, frames, 6, 5)
        torch.testing.assert_close(compiled(x), norm(x))


@pytest.mark.parametrize(("shape", "match"), [
    ((2, 3), r"takes BCTHW or, for one instance, CTHW; got 2 dimensions, \(2, 3\)"),
    ((2, 3, 4, 5, 6, 7), r"got 6 dimensions"),
    ((2, 5, 4, 6, 6), r"expected 3 channels.*got 5.*Did you mean SpatioTemporalInstanceNorm\(5\)"),
    ((5, 4, 6, 6), r"expected 3 channels in BCTHW; got 5 in \(5, 4, 6, 6\)"),
    ((2, 3, 0, 6, 6), r"nothing to normalize along T: \(2, 3, 0, 6, 6\)"),
    ((3, 4, 6, 0), r"nothing to normalize along W"),
])
def test_wrong_shapes_are_refused(shape, match):
    with pytest.raises(ValueError, match=match):
        SpatioTemporalInstanceNorm(3)(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.complex64, torch.bool])
def test_video_that_is_not_floating_point_is_refused(dtype):
    with pytest.raises(TypeError, match=f"floating point; got {dtype}"):
        SpatioTemporalInstanceNorm(3)(torch.zeros(2, 3, 4, 6, 5, dtype=dtype))


@pytest.mark.parametrize("axes", ["X", "THWX", "C", "BT", "", "TT", "thw"])
def test_wrong_axes_are_refused(axes):
    match = "letters 'THW', each once; got " + re.escape(repr(axes))
    with pytest.raises(ValueError, match=match):
        SpatioTemporalInstanceNorm(3, axes=axes)


@pytest.mark.parametrize("layout", ["BC", "CTHW", "BTHW", "BCTT", ""])
def test_wrong_layouts_are_refused(layout):
    with pytest.raises(ValueError, match="B and C and at least one more.*got " + repr(layout)):
        AxisInstanceNorm(3, layout=layout, axes="T")


@pytest.mark.parametrize(("arguments", "error", "match"), [
    ({"axes": ()}, ValueError, r"dimensions 2 to 4, each once; got \(\)"),
    ({"axes": 1}, ValueError, r"dimensions 2 to 4, each once; got 1 for x of shape"),
    ({"axes": (2, -3)}, ValueError, "each once"),
    ({"axes": 5}, ValueError, "got 5"),
    ({"axes": 2, "weight": torch.ones(4)}, ValueError, r"weight must be \(C,\) = \(3,\) or"),
    ({"axes": 2, "bias": torch.ones(3, 2)}, ValueError, r"\(B, C\) = \(2, 3\); got \(3, 2\)"),
    ({"axes": 2, "bias": torch.ones(3, device="meta")}, ValueError, "bias is on meta"),
    ({"axes": 2, "weight": torch.ones(3, dtype=torch.int64)}, TypeError, "weight must be .*float"),
    ({"axes": 2, "eps": 0.0}, ValueError, "eps must be positive; got 0.0"),
    ({"axes": 2, "eps": float("nan")}, ValueError, "eps must be positive"),
    ({"axes": 2, "activation": "gelu"}, ValueError, "activation must be one of.*got 'gelu'"),
])
def test_the_function_refuses(arguments, error, match):
    with pytest.raises(error, match=match):
        axis_instance_norm(clip(), **arguments)


def test_the_function_refuses_what_is_no_clip():
    with pytest.raises(ValueError, match=r"3 or more dimensions; got \(2, 3\)"):
        axis_instance_norm(torch.zeros(2, 3), axes=2)
    with pytest.raises(ValueError, match="nothing to normalize along axis 2"):
        axis_instance_norm(torch.zeros(2, 3, 0, 4), axes=2)
    with pytest.raises(TypeError, match=r"must be a tensor.*got ndarray"):
        axis_instance_norm(clip().numpy(), axes=2)


def test_affine_per_instance_and_negative_axes():
    style, shift = clip(2, 6, seed=2).chunk(2, dim=1)
    out = axis_instance_norm(clip(), axes=(-1, -2), weight=style, bias=shift)
    gain, offset = (p.double()[:, :, None, None, None] for p in (style, shift))
    expected = formula(clip(), (3, 4)) * gain + offset
    assert relative_error(out, expected) < TOLERANCES["float32 against float64"]


def test_documented_examples():
    for module in (geonorm.norms.axis_instance_norm, geonorm.functional):
        assert doctest.testmod(module).failed == 0
