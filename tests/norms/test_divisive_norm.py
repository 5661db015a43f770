"""DivisiveNorm: its window against a loop in float64, and instance norm as its limit."""

import itertools

import pytest
import torch
from conftest import TOLERANCES, relative_error

from geonorm import DivisiveNorm, GroupNorm, InstanceNorm
from geonorm.functional import divisive_norm
from helpers.norm_family_cases import CHANNELS, KINDS, example, refill, sparse, values

FLOAT32 = TOLERANCES["float32 against float64"]
LIMIT = 1e-6


def neighbours(positions, width):
    """Return for each position which others lie in its window and instance, (N, N) of 0 and 1."""
    apart = (positions[:, None] - positions[None]).abs()
    return ((apart[..., 0] == 0) & (apart[..., 1:] <= width // 2).all(-1)).double()


def law(features, positions, width, exponent, center, eps, weight, bias, mixing=None, semi=0.0):
    """Return the norm's output; mixing (C, C) says what each channel takes from every channel."""
    mixing = torch.eye(CHANNELS).double() if mixing is None else mixing
    near, mine = neighbours(positions, width), neighbours(positions, 10**6)
    share, whole = (each / each.sum(1, keepdim=True) for each in (near, mine))
    z = features - share @ features @ mixing.T if center else features
    strength = z.abs().pow(exponent) @ mixing.T
    out = z / (eps + share @ strength + semi**exponent * (whole @ strength)).pow(1 / exponent)
    return out * weight + bias


def grid(shape):
    """Return batch index and coordinates of every position of a dense tensor, in order of rows."""
    sizes = (shape[0], *shape[2:])
    return torch.tensor([*itertools.product(*map(range, sizes))])


def built(**options):
    norm = DivisiveNorm(CHANNELS, **options)
    generator = torch.Generator().manual_seed(2)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter, 1.0, 0.5, generator=generator)
    return norm


@pytest.mark.parametrize(("exponent", "center", "eps"), [(2, True, 1e-5), (2, False, 0.5),
                                                         (1.5, True, 0.1), (1, False, 1.0)])
@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize("kind", ["SparseTensor", "3-D", "4-D", "5-D"])
def test_a_window_against_a_loop(kind, width, exponent, center, eps):
    x, features, _ = example(kind)
    norm = built(kernel_size=width, exponent=exponent, center=center, eps=eps)
    dense = kind != "SparseTensor"
    positions = grid(features.shape) if dense else x.C.long()
    leaf, double = features.detach().requires_grad_(), features.detach().double().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in norm.parameters())
    flat = double.movedim(1, -1).reshape(-1, CHANNELS) if dense else double
    exact = law(flat, positions, width, exponent, center, eps, weight, bias)
    if dense:
        exact = exact.view(double.movedim(1, -1).shape).movedim(-1, 1)
    out = values(norm(refill(x, leaf)))
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad(out, [leaf, *norm.parameters()], upstream)
    expected = torch.autograd.grad(exact, [double, weight, bias], upstream.double())
    if width > 1 or not center:  # alone in its window, z is the rounding of x − x
        assert relative_error(out, exact) < FLOAT32
        for one, other in zip(found, expected, strict=True):
            assert relative_error(one, other) < 2 * FLOAT32
    else:
        assert relative_error(out, norm.bias.view(1, -1, *[1] * (out.ndim - 2)).expand_as(out)
                              ) < FLOAT32


GROUPS = {
    "all channels": ({"num_groups": 1}, [[1] * 6] * 6),
    "two groups": ({"num_groups": 2}, [[1, 1, 1, 0, 0, 0]] * 3 + [[0, 0, 0, 1, 1, 1]] * 3),
    "weighted": ({"num_groups": 2, "channel_weights": [1, 2, 3, 0, 5, 6]},
                 [[1, 2, 3, 0, 0, 0]] * 3 + [[0, 0, 0, 0, 5, 6]] * 3),
    "each by itself": ({"num_groups": 6}, torch.eye(6).tolist()),
}


@pytest.mark.parametrize(("exponent", "center", "semi"), [(2, True, 0.0), (1.5, False, 0.7),
                                                          (3, True, 0.4)])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("kind", ["SparseTensor", "3-D", "4-D", "5-D"])
def test_a_window_over_channels_against_a_loop(kind, groups, exponent, center, semi):
    x, features, _ = example(kind)
    options, rows = GROUPS[groups]
    mixing = torch.tensor(rows, dtype=torch.float64)
    mixing = mixing / mixing.sum(1, keepdim=True)
    norm = built(kernel_size=3, exponent=exponent, center=center, semi_saturation=semi, eps=0.1,
                 **options)
    dense = kind != "SparseTensor"
    positions = grid(features.shape) if dense else x.C.long()
    leaf, double = features.detach().requires_grad_(), features.detach().double().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in norm.parameters())
    flat = double.movedim(1, -1).reshape(-1, CHANNELS) if dense else double
    exact = law(flat, positions, 3, exponent, center, 0.1, weight, bias, mixing, semi)
    if dense:
        exact = exact.view(double.movedim(1, -1).shape).movedim(-1, 1)
    out = values(norm(refill(x, leaf)))
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad(out, [leaf, *norm.parameters()], upstream)
    expected = torch.autograd.grad(exact, [double, weight, bias], upstream.double())
    assert relative_error(out, exact) < FLOAT32
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < 2 * FLOAT32


@pytest.mark.parametrize("options", [{}, {"num_groups": 3, "semi_saturation": 0.5}])
def test_a_full_grid_is_the_same_dense_and_sparse(options):
    x = torch.randn(2, CHANNELS, 4, 5, generator=torch.Generator().manual_seed(8)).double()
    minkowski = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    rows = x.movedim(1, -1).reshape(-1, CHANNELS)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(9))
    voxels = minkowski.SparseTensor(rows[order], grid(x.shape)[order].int())
    norm = DivisiveNorm(CHANNELS, kernel_size=3, eps=0.1, dtype=torch.float64, **options)
    dense = norm(x).movedim(1, -1).reshape(-1, CHANNELS)
    assert relative_error(norm(voxels).F, dense[order]) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_groups", [1, 2])
def test_groups_over_the_whole_instance_are_group_norm(kind, num_groups):
    x, _, _ = example(kind)
    limit = DivisiveNorm(CHANNELS, kernel_size=None, num_groups=num_groups)
    expected = values(GroupNorm(CHANNELS, num_groups=num_groups)(x))
    assert relative_error(values(limit(x)), expected) < LIMIT
    assert relative_error(values(InstanceNorm(CHANNELS)(x)), expected) > 1e-2


@pytest.mark.parametrize("kind", ["SparseTensor", "4-D"])
def test_what_is_weak_in_its_own_instance_stays_weak_at_any_gain(kind):
    x, features, _ = example(kind)
    features = torch.where(features > features.median(), features, features * 0.01)
    norm = DivisiveNorm(CHANNELS, kernel_size=3, semi_saturation=0.5, eps=1e-12, center=False)
    out = values(norm(refill(x, features)))
    assert relative_error(values(norm(refill(x, features * 1000))), out) < FLOAT32
    plain = DivisiveNorm(CHANNELS, kernel_size=3, eps=1e-12, center=False)
    weak = features.abs() < 0.05
    ratio = (out / values(plain(refill(x, features))))[weak & (features != 0)]
    assert ratio.max() < 1
    absolute = DivisiveNorm(CHANNELS, kernel_size=3, eps=0.5, center=False)
    one, louder = (values(absolute(refill(x, features * gain))) for gain in (1, 1000))
    assert relative_error(louder, one) > 1e-2


def test_the_semi_saturation_of_eps_is_where_the_power_of_a_response_is_half():
    for exponent in (1, 2, 3):
        strength = 0.7
        x = torch.full((1, 1, 4), strength, dtype=torch.float64)
        out = divisive_norm(x, kernel_size=None, exponent=exponent, center=False,
                            eps=strength**exponent)
        assert torch.allclose(out**exponent, torch.full_like(x, 0.5), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_over_the_whole_instance_with_exponent_two_it_is_instance_norm(kind):
    x, _, _ = example(kind)
    limit = DivisiveNorm(CHANNELS, kernel_size=None)
    expected = values(InstanceNorm(CHANNELS)(x))
    assert relative_error(values(limit(x)), expected) < LIMIT
    for other in ({"exponent": 3}, {"center": False}):
        moved = values(DivisiveNorm(CHANNELS, kernel_size=None, **other)(x))
        assert relative_error(moved, expected) > 1e-2


def test_a_window_as_wide_as_the_instance_is_the_whole_instance():
    x, _, _ = example("4-D")
    wide = DivisiveNorm(CHANNELS, kernel_size=11)
    assert relative_error(wide(x), InstanceNorm(CHANNELS)(x)) < LIMIT
    voxels = sparse("SparseTensor")
    assert relative_error(DivisiveNorm(CHANNELS, kernel_size=7)(voxels).F,
                          InstanceNorm(CHANNELS)(voxels).F) < LIMIT
    assert relative_error(DivisiveNorm(CHANNELS, kernel_size=3)(voxels).F,
                          InstanceNorm(CHANNELS)(voxels).F) > 1e-2


def test_a_gain_that_varies_slowly_goes_locally_and_stays_globally():
    noise = torch.randn(1, CHANNELS, 64, 64, generator=torch.Generator().manual_seed(5))
    gain = torch.linspace(0, 3, 64).exp()
    moved = {}
    for width in (5, None):
        norm = DivisiveNorm(CHANNELS, kernel_size=width, eps=1e-9)
        moved[width] = relative_error(norm(noise * gain), norm(noise))
    assert moved[5] < 0.15
    assert moved[None] > 0.4


@pytest.mark.parametrize("options", [{}, {"num_groups": 2, "channel_weights": [1, 2, 3, 4, 5, 6]}])
@pytest.mark.parametrize("kind", ["SparseTensor", "4-D"])
def test_far_from_zero(kind, options):
    x, features, _ = example(kind)
    norm = built(kernel_size=3, **options)
    far = features + 1e4
    double = values(built(kernel_size=3, **options).double()(refill(x, far.double())))
    assert relative_error(values(norm(refill(x, far))), double) < FLOAT32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["SparseTensor", "4-D"])
def test_half_precision_of_a_window(kind, dtype):
    x, features, _ = example(kind)
    out = values(built(kernel_size=3)(refill(x, features.to(dtype))))
    exact = values(built(kernel_size=3).double()(refill(x, features.to(dtype).double())))
    assert out.dtype == dtype
    assert relative_error(out, exact) < 2 * torch.finfo(dtype).eps


def test_double_backward_of_a_dense_window():
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True,
                    generator=torch.Generator().manual_seed(6))
    for options in ({}, {"num_groups": 1, "channel_weights": [1, 2], "semi_saturation": 0.3}):
        norm = DivisiveNorm(2, kernel_size=3, eps=0.1, dtype=torch.float64, **options)
        assert torch.autograd.gradcheck(norm, x)
        assert torch.autograd.gradgradcheck(norm, x)


def test_channel_weights_of_the_function_can_be_learned():
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w: divisive_norm(x, kernel_size=3, num_groups=2, channel_weights=w, eps=0.1), weights
    )


def test_channel_weights_are_a_copy_that_travels_in_the_state_dict():
    given = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    norm = DivisiveNorm(CHANNELS, num_groups=1, channel_weights=given)
    given.fill_(0)
    other = DivisiveNorm(CHANNELS, num_groups=1, channel_weights=[1] * 6)
    other.load_state_dict(norm.state_dict())
    assert other.channel_weights.tolist() == [1, 2, 3, 4, 5, 6]
    assert norm.double().channel_weights.dtype == torch.float64
    assert [*DivisiveNorm(CHANNELS).state_dict()] == ["weight", "bias"]
    assert "num_groups=1" in repr(norm)
    assert "semi_saturation" not in repr(norm)
    assert "semi_saturation=0.5" in repr(DivisiveNorm(4, semi_saturation=0.5))


def test_coordinates_and_kind_stay():
    x = sparse("SparseTensor")
    out = DivisiveNorm(CHANNELS, kernel_size=3)(x)
    assert out.coordinate_map_key == x.coordinate_map_key
    assert torch.equal(out.C, x.C)


@pytest.mark.parametrize(("options", "message"), [
    ({"kernel_size": 4}, "kernel_size must be odd, or None for all; got 4"),
    ({"kernel_size": -1}, "must be odd"),
    ({"exponent": 0.5}, "exponent must be 1 or more; got 0.5"),
    ({"exponent": float("nan")}, "got nan"),
    ({"eps": 0}, "eps must be positive; got 0"),
    ({"semi_saturation": -0.1}, "semi_saturation must be 0 or more; got -0.1"),
    ({"semi_saturation": float("nan")}, "semi_saturation must be .* got nan"),
    ({"num_groups": 3}, "num_groups must divide the 4 channels; got 3"),
    ({"num_groups": 0}, "num_groups must divide the 4 channels; got 0"),
    ({"channel_weights": [1, 1, 1, 1]}, "give num_groups too"),
    ({"num_groups": 2, "channel_weights": [1, 1]}, r"must be \(C,\) = \(4,\); got \(2,\)"),
    ({"num_groups": 2, "channel_weights": [1, -1, 1, 1]}, r"not negative; got \[1.0, -1.0"),
    ({"num_groups": 2, "channel_weights": [1, float("nan"), 1, 1]}, "must be finite"),
    ({"num_groups": 2, "channel_weights": [1, 1, 0, 0]}, "all zero in group 1"),
])
def test_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DivisiveNorm(4, **options)


def test_groups_of_the_function_are_refused():
    x = torch.randn(2, 4, 3, 3)
    with pytest.raises(ValueError, match="num_groups must divide the 4 channels; got 3"):
        divisive_norm(x, num_groups=3)
    with pytest.raises(ValueError, match="give num_groups too"):
        divisive_norm(x, channel_weights=torch.ones(4))


def test_kinds_without_neighbours_are_refused_where_there_is_a_window():
    for kind in ("index", "spconv", "TensorField"):
        x, _, _ = example(kind)
        with pytest.raises(TypeError, match=r"a window needs .*SparseTensor.*kernel_size=None"):
            DivisiveNorm(CHANNELS)(x)
        assert values(DivisiveNorm(CHANNELS, kernel_size=None)(x)).isfinite().all()
    with pytest.raises(ValueError, match=r"a window needs \(B, C, L\).*Use kernel_size=None"):
        DivisiveNorm(3)(torch.randn(1, 3, 2, 2, 2, 2))


def test_a_gain_of_everything_goes_in_a_window_too():
    x = sparse("SparseTensor")
    doubled = refill(x, x.F * 2)
    norm = DivisiveNorm(CHANNELS, kernel_size=3, eps=1e-12)
    assert relative_error(norm(doubled).F, norm(x).F) < FLOAT32
