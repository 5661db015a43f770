"""Mistakes of other libraries, reproduced, and the same input through ours."""

import pytest
import torch
from conftest import TOLERANCES, relative_error
from torch import nn

import geonorm
from geonorm.style import style_statistics
from helpers.norm_family_cases import CHANNELS, example, per_instance, rows, standardized, values

FLOAT32 = TOLERANCES["float32 against float64"]


def exact_instance_norm(features, index):
    return per_instance(lambda part, _: standardized(part), features.double(), index)


def test_rows_handed_to_instance_norm_1d_normalize_each_point():
    """As torchsparse's and WarpConvNet's InstanceNorm do: (N, C) is read as (C, L)."""
    x, features, index = example("index")
    theirs = nn.InstanceNorm1d(CHANNELS)
    with pytest.warns(UserWarning, match="input's size at dim"):
        peers = theirs(features)
    assert relative_error(peers, values(geonorm.LayerNorm(CHANNELS)(x))) < FLOAT32
    with pytest.raises(ValueError, match="expected input's size at dim=0 to match num_features"):
        nn.InstanceNorm1d(CHANNELS, affine=True)(features)
    exact = exact_instance_norm(features, index)
    assert relative_error(peers, exact) > 0.1
    assert relative_error(values(geonorm.InstanceNorm(CHANNELS)(x)), exact) < FLOAT32


def test_statistics_taken_for_constants_give_another_gradient():
    """As WarpConvNet's SegmentedLayerNorm does in backward."""
    _, features, index = example("index")
    upstream = rows(8)

    def gradient(function, dtype):
        leaf = features.to(dtype).requires_grad_()
        return torch.autograd.grad(function(leaf), leaf, upstream.to(dtype))[0]

    def peers(leaf):
        def constant(part, _):
            var, mean = torch.var_mean(part.detach(), 0, correction=0)
            return (part - mean) / (var + 1e-5).sqrt()

        return per_instance(constant, leaf, index)

    exact = gradient(lambda leaf: exact_instance_norm(leaf, index), torch.float64)
    assert relative_error(gradient(peers, torch.float64), exact) > 0.1
    norm = geonorm.InstanceNorm(CHANNELS)
    assert relative_error(gradient(lambda leaf: norm(leaf, index), torch.float32),
                          exact) < FLOAT32


@pytest.mark.parametrize("kind", ["index", "4-D"])
def test_a_variance_of_squares_less_square_loses_its_digits(kind):
    _, features, index = example(kind)
    far = features + 1e4
    dense = kind == "4-D"
    dims = (2, 3) if dense else 0
    part = far if dense else far[index == 1]
    variance = part.square().mean(dims) - part.mean(dims).square()
    exact = part.double().var(dims, correction=0)
    assert relative_error(variance, exact) > 0.1
    for norm in (geonorm.InstanceNorm(CHANNELS), geonorm.GroupNorm(CHANNELS, num_groups=CHANNELS),
                 geonorm.DivisiveNorm(CHANNELS, kernel_size=None)):
        rows_of = () if dense else (index,)
        found, double = norm(far, *rows_of), norm.double()(far.double(), *rows_of)
        assert relative_error(found, double) < FLOAT32


@pytest.mark.parametrize(("dtype", "count"), [(torch.bfloat16, 10_000), (torch.float16, 70_000)])
def test_rows_counted_in_half_precision(dtype, count):
    """As torch_geometric's own InstanceNorm counts them."""
    nn_of_pyg = pytest.importorskip("torch_geometric.nn")
    utils_of_pyg = pytest.importorskip("torch_geometric.utils")
    index = torch.zeros(count, dtype=torch.long)
    counted = utils_of_pyg.degree(index, 1, dtype=dtype).item()
    assert counted == {torch.bfloat16: 9984, torch.float16: float("inf")}[dtype]
    features = rows(count=count).to(dtype)
    exact = standardized(features.double())
    ours = geonorm.InstanceNorm(CHANNELS)(features, index)
    assert relative_error(ours, exact) < 2 * torch.finfo(dtype).eps
    if dtype == torch.float16:
        peers = nn_of_pyg.InstanceNorm(CHANNELS)(features, index)
        assert not relative_error(peers, exact) < 0.1


def test_torchs_instance_norm_loses_channels_last_and_refuses_one_position():
    clip = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    assert not nn.InstanceNorm3d(3)(clip).is_contiguous(memory_format=torch.channels_last_3d)
    one = torch.randn(2, 3, 1, 1, 1)
    with pytest.raises(ValueError, match="Expected more than 1 spatial element"):
        nn.InstanceNorm3d(3).eval()(one)
    for norm in (geonorm.InstanceNorm(3), geonorm.GroupNorm(3, num_groups=3), geonorm.LayerNorm(3)):
        assert norm(clip).is_contiguous(memory_format=torch.channels_last_3d)
        assert norm(one).isfinite().all()
    ibn = geonorm.InstanceBatchNorm(3)
    assert ibn(clip).is_contiguous(memory_format=torch.channels_last_3d)


def test_instance_norm_with_running_statistics_is_batch_norm_in_evaluation():
    x, y = torch.randn(2, 3, 8), torch.randn(2, 3, 8) * 9 + 4
    tracking = nn.InstanceNorm1d(3, track_running_stats=True)
    tracking(x)
    tracking.eval()
    assert relative_error(tracking(y * 2), tracking(y)) > 0.1
    ours = geonorm.InstanceNorm(3, eps=1e-9).eval()
    assert relative_error(ours(y * 2), ours(y)) < FLOAT32


@pytest.mark.parametrize(("channels", "ratio"), [(8, 0.25), (7, 0.5)])
def test_ibn_nets_split_has_more_than_two_parts(channels, ratio):
    x = torch.randn(2, channels, 4, 4)
    half = int(channels * ratio)
    parts = x.split(half, 1)  # IBN-Net normalizes the first two
    assert len(parts) > 2
    with pytest.raises((RuntimeError, ValueError)):
        nn.BatchNorm2d(channels - half)(parts[1])
    out = geonorm.InstanceBatchNorm(channels, ratio=ratio)(x)
    expected = torch.cat([nn.InstanceNorm2d(half)(x[:, :half]),
                          nn.BatchNorm2d(channels - half)(x[:, half:])], 1)
    assert relative_error(out, expected) < FLOAT32


def test_an_unbiased_variance_has_no_style_of_one_position():
    """As MixStyle and pytorch-AdaIN take it; theirs are 4-D only as well."""
    one = torch.randn(2, 3, 1, 1)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert one.var((2, 3)).isnan().all()
    style = style_statistics(one)
    assert style.std.isfinite().all()
    assert relative_error(geonorm.AdaptiveInstanceNorm(3)(torch.randn(2, 3, 4), style).mean(2),
                          one.flatten(1)) < FLOAT32
