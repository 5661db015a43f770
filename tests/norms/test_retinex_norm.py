"""RetinexNorm: its surrounds against loops in float64, and what is left of known lights."""

import math

import pytest
import torch
from conftest import TOLERANCES, relative_error

from geonorm import InstanceNorm, RetinexNorm, Rows
from geonorm.functional import retinex_norm
from geonorm.inputs import read
from geonorm.pooling import over_gaussians
from helpers.norm_family_cases import CHANNELS, KINDS, coordinates, example, refill, values

FLOAT32 = TOLERANCES["float32 against float64"]
FLOAT64 = TOLERANCES["properties in float64"]


def gaussian_mean(z, places, instance, sigma):
    """Return the mean of rows z around each place, weighted by the distance, by a loop."""
    out = torch.empty_like(z)
    for n, place in enumerate(places):
        weights = (-(places - place).square().sum(1) / (2 * sigma**2)).exp()
        weights = weights * (instance == instance[n])
        out[n] = (weights[:, None] * z).sum(0) / weights.sum()
    return out


def law(features, places, instance, scales, floor=1e-3, eps=1e-5):
    z = (features + floor).log()
    z = z - sum(gaussian_mean(z, places, instance, sigma) for sigma in scales) / len(scales)
    var = torch.stack([z[instance == i].var(0, correction=0) for i in range(int(instance.max()) + 1)
                       ])[instance]  # fmt: skip
    return z / (var + eps).sqrt()


def voxels(seed=1, dtype=torch.float64):
    minkowski = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    places = coordinates()
    features = torch.rand(len(places), CHANNELS, dtype=dtype,
                          generator=torch.Generator().manual_seed(seed))
    return minkowski.SparseTensor(features, places), features, places


def scattered(count=200, seed=3):
    """Return a cloud of two instances as torch_geometric holds it, in metres."""
    data = pytest.importorskip("torch_geometric.data", reason="pip install 'geonorm[test]'")
    generator = torch.Generator().manual_seed(seed)
    parts = [data.Data(x=torch.rand(n, 2, generator=generator).double(),
                       pos=torch.rand(n, 3, generator=generator).double() * 10 - 5)
             for n in (count, count // 2)]  # fmt: skip
    return data.Batch.from_data_list(parts)


@pytest.mark.parametrize("scales", [(1.5,), (0.8, 3.0)])
@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 3, 4, 5), (2, 2, 3, 4, 5)])
def test_dense_surrounds_against_a_loop(shape, scales):
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frames = x.movedim(2, 1).flatten(0, 1) if len(shape) == 5 else x
    flat = frames.flatten(2).transpose(1, 2).flatten(0, 1)
    sides = [torch.arange(side) for side in frames.shape[2:]]
    places = torch.cartesian_prod(*sides).reshape(-1, len(sides)).double().repeat(len(frames), 1)
    instance = torch.arange(len(frames)).repeat_interleave(frames[0, 0].numel())
    z = (flat + 1e-3).log()
    z = z - sum(gaussian_mean(z, places, instance, sigma) for sigma in scales) / len(scales)
    z = z.view(len(frames), -1, shape[1]).transpose(1, 2).view(frames.shape)
    if len(shape) == 5:
        z = z.view(shape[0], shape[2], shape[1], *shape[3:]).movedim(1, 2)
    dims = tuple(range(2, len(shape)))
    expected = z / (z.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()
    norm = RetinexNorm(shape[1], surround=scales, dtype=torch.float64)
    assert relative_error(norm(x), expected) < FLOAT64
    assert relative_error(norm.float()(x.float()), expected) < FLOAT32


@pytest.mark.parametrize("scales", [(1.0,), (1.5, 3.0)])
@pytest.mark.parametrize("engine", ["SparseTensor", "spconv"])
def test_voxels_against_a_loop(engine, scales):
    x, features, places = voxels()
    if engine == "spconv":
        spconv = pytest.importorskip("spconv.pytorch", reason="pip install 'geonorm[test]'")
        x = spconv.SparseConvTensor(features, places, [4, 4, 4], 3)
    norm = RetinexNorm(CHANNELS, surround=scales, dtype=torch.float64)
    expected = law(features, places[:, 1:].double(), places[:, 0], scales)
    assert relative_error(values(norm(x)), expected) < FLOAT64
    mixed = law(features, places[:, 1:].double(), torch.zeros_like(places[:, 0]), scales)
    assert relative_error(values(norm(x)), mixed) > 0.05


@pytest.mark.parametrize("sigma", [0.7, 2.0, 6.0])
def test_points_between_the_cells_of_the_grid_against_a_loop(sigma):
    cloud = scattered()
    ramp = cloud.pos @ torch.tensor([[0.1], [-0.2], [0.3]]).double() + 3
    z = torch.cat([cloud.x, ramp], 1)
    expected = gaussian_mean(z, cloud.pos, cloud.batch, sigma)
    found = over_gaussians(read(cloud), sigma)(z)
    assert relative_error(found - z.mean(0), expected - z.mean(0)) < 0.01
    constant = torch.full_like(z, 7.0)
    assert relative_error(over_gaussians(read(cloud), sigma)(constant), constant) < FLOAT64


def test_points_in_cells_of_one_unit_are_blurred_as_in_any_other():
    """Places between whole numbers are spread over their corners; voxels are not."""
    cloud = scattered()
    z = cloud.x - cloud.x.mean(0)
    at, beside = (over_gaussians(read(cloud), sigma)(z) for sigma in (3.0, 3.0 + 1e-7))
    assert relative_error(at, beside) < 1e-5


@pytest.mark.parametrize("sigma", [4.0, 5.0, 10.0])
def test_wide_surrounds_of_voxels_are_those_of_the_loop_to_three_percent(sigma):
    _, features, places = voxels()
    spread_out = places.clone()
    spread_out[:, 1:] *= 5  # up to 15 apart
    minkowski = pytest.importorskip("MinkowskiEngine")
    wide = minkowski.SparseTensor(features, spread_out)
    found = over_gaussians(read(wide), sigma)(features)
    expected = gaussian_mean(features, spread_out[:, 1:].double(), places[:, 0], sigma)
    assert relative_error(found - features.mean(0), expected - features.mean(0)) < 0.03


def test_a_full_grid_is_the_same_dense_and_sparse():
    minkowski = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    x = torch.rand(2, 3, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    place = torch.cartesian_prod(*map(torch.arange, (2, 6, 7)))
    order = torch.randperm(len(place), generator=torch.Generator().manual_seed(9))
    rows = x.movedim(1, -1).reshape(-1, 3)
    sparse = minkowski.SparseTensor(rows[order], place[order].int())
    norm = RetinexNorm(3, surround=(1.0, 2.5), dtype=torch.float64)
    dense = norm(x).movedim(1, -1).reshape(-1, 3)
    assert relative_error(norm(sparse).F, dense[order]) < FLOAT64


@pytest.mark.parametrize("kind", KINDS)
def test_less_its_mean_it_is_instance_norm_of_the_logarithm(kind):
    x, features, _ = example(kind)
    features = features.abs() + 0.1
    expected = values(InstanceNorm(CHANNELS)(refill(x, (features + 1e-3).log())))
    for surround in ("mean", None):
        found = values(RetinexNorm(CHANNELS, surround=surround)(refill(x, features)))
        if surround == "mean":
            assert relative_error(found, expected) < FLOAT32
        else:
            assert relative_error(found, expected) > 0.05


@pytest.mark.parametrize(("kind", "limit"), [("SparseTensor", 1e-3), ("4-D", 1e-6)])
def test_a_surround_far_wider_than_the_instance_is_its_mean(kind, limit):
    x, features, _ = example(kind)
    x = refill(x, features.abs().double() + 0.1)
    wide, mean, near = (RetinexNorm(CHANNELS, surround=surround, dtype=torch.float64)
                        for surround in (1e4, "mean", 1.0))  # fmt: skip
    assert relative_error(values(wide(x)), values(mean(x))) < limit
    assert relative_error(values(near(x)), values(mean(x))) > 0.05


@pytest.mark.parametrize("period", [8, 20, 60])
def test_the_share_of_a_wave_of_light_that_is_left(period):
    place = torch.arange(240, dtype=torch.float64)
    sigma, middle = 5.0, slice(60, 180)
    light = (0.1 * torch.cos(2 * math.pi * place / period)).exp().view(1, 1, 1, -1)
    norm = RetinexNorm(1, affine=False, surround=sigma, contrast=False, floor=1e-12)
    left = norm(light.expand(1, 1, 3, -1))[..., middle].std()
    whole = light.log()[..., middle].std()
    share = 1 - math.exp(-2 * (math.pi * sigma / period) ** 2)
    assert float(left / whole) == pytest.approx(share, rel=0.01)


def test_a_light_over_everything_goes_with_each_surround():
    x = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(1)) + 0.1
    gains = torch.tensor([0.01, 30.0]).view(2, 1, 1, 1)
    for surround in ("mean", 2.0, (1.0, 5.0)):
        norm = RetinexNorm(3, surround=surround, floor=1e-9)
        assert relative_error(norm(x * gains), norm(x)) < FLOAT32
    nothing = RetinexNorm(3, surround=None, floor=1e-9)
    assert relative_error(nothing(x * gains), nothing(x)) > 0.1
    bright = RetinexNorm(3, surround="mean", floor=0.1)
    assert relative_error(bright(x * gains), bright(x)) > 0.01


def test_back_in_units_of_intensity_it_is_the_ratio_to_the_surround():
    x = torch.rand(1, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    out = retinex_norm(x, surround=2.0, contrast=False, back=True, floor=1e-12)
    surround = over_gaussians(read(x), 2.0)(x.log()).exp()
    assert relative_error(out, x / surround) < FLOAT64
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64)
    bent = retinex_norm(x, surround=2.0, contrast=False, back=True, floor=1e-12, weight=weight)
    assert relative_error(bent, (x / surround) ** weight.view(1, 2, 1, 1)) < FLOAT64


@pytest.mark.parametrize("options", [{"surround": "mean"}, {"surround": 1.2},
                                     {"surround": (0.7, 2.0), "back": True}])
def test_gradients_of_dense_tensors(options):
    x = torch.rand(2, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    norm = RetinexNorm(2, 0.1, dtype=torch.float64, floor=0.1, **options)
    assert torch.autograd.gradcheck(norm, x.requires_grad_())
    assert torch.autograd.gradgradcheck(norm, x)


@pytest.mark.parametrize("surround", [1.0, 6.0])
def test_gradients_of_voxels(surround):
    x, features, _ = voxels()
    norm = RetinexNorm(1, 0.1, surround=surround, floor=0.1, dtype=torch.float64)
    leaf = features[:, :1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: norm(refill(x, f)).F, leaf)
    assert torch.autograd.gradgradcheck(lambda f: norm(refill(x, f)).F, leaf)


def test_no_rows_give_no_rows():
    minkowski = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    del minkowski
    for surround in ("mean", None):
        norm = RetinexNorm(4, surround=surround)
        assert values(norm(Rows(torch.zeros(0, 4), torch.zeros(0).long()))).shape == (0, 4)
    data = pytest.importorskip("torch_geometric.data")
    none = data.Data(x=torch.zeros(0, 4), pos=torch.zeros(0, 3))
    assert values(RetinexNorm(4, surround=2.0)(none)).shape == (0, 4)


@pytest.mark.parametrize(("options", "message"), [
    ({"surround": 0}, "one scale or more, above 0; got 0"),
    ({"surround": ()}, r"got \(\)"),
    ({"surround": (3, -1.0)}, r"got \(3, -1.0\)"),
    ({"surround": "median"}, "got 'median'"),
    ({"surround": float("nan")}, "got nan"),
    ({"surround": "mean", "floor": 0}, "floor must be positive; got 0"),
    ({"surround": "mean", "eps": -1.0}, "eps must be positive; got -1"),
])
def test_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RetinexNorm(4, **options)


def test_surrounds_of_the_function_are_refused():
    for surround in ("median", 0.0, (1.0, float("nan"))):
        with pytest.raises(ValueError, match="one scale or more, above 0"):
            retinex_norm(torch.rand(1, 2, 3, 3), surround=surround)


def test_inputs_are_refused():
    norm = RetinexNorm(4, surround=2.0)
    with pytest.raises(ValueError, match=r"above -floor = -0.001; the smallest is -2\."):
        norm(torch.full((1, 4, 3), -2.0))
    with pytest.raises(ValueError, match=r"above -floor = -0.5; the smallest is -0.5\."):
        RetinexNorm(4, surround="mean", floor=0.5)(torch.full((1, 4, 3), -0.5))
    with pytest.raises(ValueError, match="the smallest is nan"):
        norm(torch.full((1, 4, 3), float("nan")))
    with pytest.raises(TypeError, match=r'tells positions.*got Rows. Use surround="mean"'):
        norm(Rows(torch.rand(3, 4), torch.zeros(3).long()))
    data = pytest.importorskip("torch_geometric.data")
    with pytest.raises(TypeError, match="got Data"):
        norm(data.Data(x=torch.rand(3, 4)))
    far = data.Data(x=torch.rand(2, 4), pos=torch.tensor([[0.0, 0, 0], [1e4, 1e4, 1e4]]))
    with pytest.raises(ValueError, match=r"needs a grid of 15002 x 15002 x 15002 cells.*larger"):
        norm(far)


def test_repr_tells_the_options():
    text = repr(RetinexNorm(4, surround=(3, 9.5), contrast=False, floor=0.02))
    assert "surround=(3, 9.5), contrast=False, back=False, floor=0.02" in text
