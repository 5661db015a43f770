"""segment_norm's Triton kernels, interpreted on the CPU and, with -m cuda, compiled on a GPU."""

from importlib import import_module

import pytest
import torch
from conftest import relative_error

from geonorm.ops import segment_norm as reference
from helpers.segment_norm_cases import (
    FLOAT32,
    FLOAT64,
    batch,
    by_torch,
    exact_results,
    parameters,
    results,
    segment_norm,
    upstream_of,
)

NAMES = ("out", "rows", "weight", "bias")
ACTIVATIONS = ("none", "relu", "leaky_relu")


def on(device, values):
    return [v.to(device) if isinstance(v, torch.Tensor) else v for v in values]


def found_on(device, *arguments, **options):
    """Return the results of the kernels, on the CPU, with their strides."""
    options = dict(zip(options, on(device, options.values()), strict=True))
    return [each.detach().cpu() for each in results(segment_norm, *on(device, arguments),
                                                    **options)]


def compare(found, exact, tolerance):
    names = (*NAMES, "residual")[: len(exact)]
    for name, actual, expected in zip(names, found, exact, strict=True):
        assert relative_error(actual, expected) < tolerance, name


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("affine", [5, (7, 5)])
@pytest.mark.parametrize("groups", [5, 1])
def test_output_and_gradients_against_float64(
        triton_device, poisoned, mean, interleaved, affine, groups):
    sizes = (3, 0, 40, 3, 700, 512, 0)  # slots of 256: three, the last of them not full, and two
    rows, index = batch(sizes, mean=mean, interleaved=interleaved)
    arguments = (rows, index, len(sizes), *parameters(affine), upstream_of(rows))
    found = found_on(triton_device, *arguments, groups=groups)
    compare(found, exact_results(*arguments, groups=groups), FLOAT32)
    assert all(tensor.dtype == torch.float32 for tensor in found)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [6, 3, 1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_is_torchs_instance_norm_in_float64(
        triton_device, poisoned, groups, weighted, activation):
    rows, index = batch(channels=6, dtype=torch.float64)
    weights = torch.arange(len(rows)).remainder(3).add(1).double() if weighted else None
    options = {"groups": groups, "row_weights": weights, "activation": activation, "slope": 0.2}
    arguments = (rows, index, 7, *parameters((7, 6), torch.float64), upstream_of(rows))
    compare(found_on(triton_device, *arguments, **options),
            results(by_torch, *arguments, **options), FLOAT64)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("strided", [False, True])  # rows 10 apart, or channels two
@pytest.mark.parametrize(("dtype", "groups", "mean"), [
    (torch.float32, 5, 1e4), (torch.float64, 1, 0.0),
])
def test_a_residual_is_added_before_the_activation(
        triton_device, poisoned, activation, strided, dtype, groups, mean):
    sizes = (3, 0, 40, 1, 700, 0)
    rows, index = batch(sizes, mean=mean, dtype=dtype)
    wide = torch.randn(len(rows), 10, generator=torch.Generator().manual_seed(7), dtype=dtype)
    options = {"groups": groups, "activation": activation, "slope": 0.2,
               "residual": wide[:, :5] if strided else wide[:, ::2]}
    arguments = (rows, index, len(sizes), *parameters((6, 5), dtype), upstream_of(rows))
    there = dict(zip(options, on(triton_device, options.values()), strict=True))
    found = [each.cpu() for each in results(segment_norm, *on(triton_device, arguments), **there)]
    compare(found, exact_results(*arguments, **options),
            FLOAT64 if dtype == torch.float64 else FLOAT32)


def test_a_residual_in_half_precision_is_rounded_once(triton_device):
    dtype = torch.float16  # the interpreter cuts bfloat16 off instead of rounding it
    rows, index = batch((50, 3, 400, 1), mean=3.0)
    rows, residual = rows.to(dtype), upstream_of(rows, 7).to(dtype)
    arguments = (rows, index, 4, *parameters(5))
    there = on(triton_device, arguments)
    found = segment_norm(*there, activation="relu", residual=residual.to(triton_device))
    apart = torch.relu(segment_norm(*there) + residual.to(triton_device))
    exact = by_torch(rows.double(), index, 4, *(p.double() for p in parameters(5)),
                     activation="relu", residual=residual.double())
    assert found.dtype == dtype
    assert relative_error(found.cpu(), exact) < relative_error(apart.cpu(), exact)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_saved_statistics_are_the_references(triton_device, poisoned, groups, weighted):
    rows, index = batch((9, 0, 1, 700, 5, 512), channels=4, mean=1e4)
    weights = torch.rand(len(rows), generator=torch.Generator().manual_seed(4)) + 0.1
    weights[:300] = 0  # among them the first rows of their instances
    weights[index == 4] = 0
    options = (weights if weighted else None, None, None, groups, 1e-3, "none", 0.0)
    found = torch.ops.geonorm.segment_norm(*on(triton_device, (rows, index, 6, *options)))
    doubles = (weights.double() if weighted else None, *options[1:])
    exact = reference.forward(rows.double(), index, 6, *doubles)
    assert torch.equal(found[1].cpu().double(), exact[1])
    for actual, expected in zip(found[2:], exact[2:], strict=True):
        assert actual.dtype == torch.float32
        assert relative_error(actual.cpu(), expected) < FLOAT32


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_segment_stats_against_float64(triton_device, poisoned, groups, weighted):
    rows, index = batch((9, 0, 1, 30), channels=4, mean=1e4)
    weights = torch.rand(len(rows), generator=torch.Generator().manual_seed(4)) + 0.1
    given = (weights if weighted else None, groups)
    mean, var = torch.ops.geonorm.segment_stats(*on(triton_device, (rows, index, 4, *given)))
    shift, apart, expected = reference.statistics(
        rows.double(), index, 4, weights.double() if weighted else None, groups)
    assert relative_error(mean.cpu(), shift + apart) < FLOAT32
    assert relative_error(var.cpu(), expected) < FLOAT32


@pytest.mark.parametrize("affine", [None, 5])
def test_without_weight_or_bias(triton_device, poisoned, affine):
    rows, index = batch()
    upstream = upstream_of(rows)
    for chosen in ((0, 1), (1,), (0,)):
        weight, bias = (None if k in chosen or affine is None else p
                        for k, p in enumerate(parameters(5)))
        leaf, double = rows.clone().to(triton_device).requires_grad_(), rows.double()
        out = segment_norm(leaf, *on(triton_device, (index, 7, weight, bias)))
        (grad,) = torch.autograd.grad(out, leaf, upstream.to(triton_device))
        expected = by_torch(double.requires_grad_(), index, 7, weight, bias)
        (exact,) = torch.autograd.grad(expected, double, upstream.double())
        assert relative_error(out.cpu(), expected) < FLOAT32
        assert relative_error(grad.cpu(), exact) < FLOAT32


@pytest.mark.parametrize(("sizes", "channels"), [
    ((700, 1), 1), ((700, 1), 3), ((700, 1), 33), ((700, 1), 96),
    # 130 instances: keys of two bytes
    pytest.param((4,) * 130, 3, marks=pytest.mark.slow),
])
def test_any_number_of_channels_and_instances(triton_device, poisoned, channels, sizes):
    rows, index = batch(sizes, channels)
    arguments = (rows, index, len(sizes), *parameters(channels), upstream_of(rows))
    compare(found_on(triton_device, *arguments), exact_results(*arguments), FLOAT32)


@pytest.mark.slow
@pytest.mark.parametrize("interleaved", [False, True])
def test_an_instance_of_more_slots_than_a_merging_tile(triton_device, interleaved):
    sizes = (70_000, 3, 1000)  # 137 slots of 512
    rows, index = batch(sizes, channels=3, mean=100.0, interleaved=interleaved)
    arguments = (rows, index, len(sizes), *parameters(3), upstream_of(rows))
    compare(found_on(triton_device, *arguments), exact_results(*arguments), FLOAT32)


@pytest.mark.parametrize("weighted", [False, True])
def test_one_row_and_constant_instances_give_the_bias(triton_device, poisoned, weighted):
    rows = torch.tensor([[1e4, -3.0], [5.0, 5.0], [5.0, 5.0], [5.0, 5.0]])
    index, weights = torch.tensor([1, 0, 0, 0]), torch.tensor([0.3, 0.1, 0.7, 2.0])
    weight, bias = parameters(2)
    out, grad_rows, *_ = found_on(triton_device, rows, index, 3, weight, bias, upstream_of(rows),
                                  row_weights=weights if weighted else None)
    assert torch.equal(out, bias.expand(4, 2))
    assert grad_rows.isfinite().all()
    if not weighted:
        assert not grad_rows[0].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_no_rows(triton_device, poisoned, channels):
    rows, index = batch((0, 0, 0), channels)
    found = found_on(triton_device, rows, index, 3, *parameters(channels), rows)
    assert found[0].shape == (0, channels)
    assert all(not tensor.any() for tensor in found[2:])
    rows, index = on(triton_device, (rows, index))
    assert segment_norm(rows, index, 0).shape == (0, channels)


LAYOUTS = {
    "transposed": lambda wide: wide.t().contiguous().t()[:, :5],
    "columns": lambda wide: wide[:, 1::2],
    "rows": lambda wide: wide.repeat_interleave(2, 0)[::2, :5],
    "expanded": lambda wide: wide[:, :1].expand(len(wide), 5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(triton_device, poisoned, layout):
    wide, index = batch((30, 1, 9, 4), channels=10)
    rows, upstream = LAYOUTS[layout](wide), LAYOUTS[layout](wide.flip(1))
    weight, bias = parameters(5)
    exact = exact_results(rows, index, 4, weight, bias, upstream)
    there = [LAYOUTS[layout](w.to(triton_device)) for w in (wide, wide.flip(1))]
    strided = index.to(triton_device).repeat_interleave(3)[::3]
    weight, bias = (torch.stack([p, p]).t().to(triton_device)[:, 0] for p in (weight, bias))
    found = results(segment_norm, there[0], strided, 4, weight, bias, there[1])
    compare([each.cpu() for each in found], exact, FLOAT32)
    assert found[0].is_contiguous()
    assert found[1].is_contiguous()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_half_precision_rows_with_float32_affine(triton_device, poisoned, dtype, mean):
    rows, index = batch((50, 3, 400, 1), mean=mean)
    rows, upstream = rows.to(dtype), upstream_of(rows).to(dtype)
    weight, bias = parameters(5)
    found = found_on(triton_device, rows, index, 4, weight, bias, upstream)
    exact = exact_results(rows, index, 4, weight, bias, upstream)
    torchs = results(by_torch, rows, index, 4, weight.to(dtype), bias.to(dtype), upstream)
    assert [tensor.dtype for tensor in found] == [dtype, dtype, torch.float32, torch.float32]
    for name, one, other, true in zip(NAMES, found, torchs, exact, strict=True):
        assert relative_error(one, true) <= 2 * relative_error(other, true), name


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # by numpy
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_broken_instance_stays_alone(triton_device, activation):
    rows, index = batch()
    arguments = (index, 7, *parameters(5), upstream_of(rows))
    broken = rows.clone()
    broken[(index == 3).nonzero()[4]] = torch.inf
    broken[(index == 5).nonzero()[0]] = torch.nan
    whole = found_on(triton_device, rows, *arguments, activation=activation)
    found = found_on(triton_device, broken, *arguments, activation=activation)
    sound = (index != 3) & (index != 5)
    for one, other in zip(found[:2], whole[:2], strict=True):
        assert torch.equal(one[sound], other[sound])
        assert one[~sound].isnan().any()


@pytest.mark.parametrize("outside", [-1, 4, 2**40, -(2**62)])
def test_rows_of_no_instance_are_skipped(triton_device, poisoned, outside):
    rows, index = batch((3, 4, 5, 600))
    stray = torch.zeros(len(rows), dtype=torch.bool)
    stray[[7, 20, 30]] = True
    weight, bias = parameters(5)
    upstream = upstream_of(rows)
    found = found_on(triton_device, rows, index.masked_fill(stray, outside), 4, weight, bias,
                     upstream)
    kept = exact_results(rows[~stray], index[~stray], 4, weight, bias, upstream[~stray])
    compare([found[0][~stray], found[1][~stray], *found[2:]], kept, FLOAT32)
    assert found[0][stray].isnan().all()
    assert not found[1][stray].any()


def test_a_row_of_weight_zero_does_not_count(triton_device):
    rows, index = batch(dtype=torch.float64)
    weights = torch.ones(len(rows), dtype=torch.float64)
    weights[:20] = 0
    far = rows.clone()
    far[:20] += 1e6
    weight, bias = parameters(5, torch.float64)
    found = segment_norm(*on(triton_device, (far, index, 7, weight, bias, weights))).cpu()
    expected = by_torch(rows[20:], index[20:], 7, weight, bias)
    assert relative_error(found[20:], expected) < FLOAT64
    plain = segment_norm(*on(triton_device, (far, index, 7, weight, bias))).cpu()
    assert relative_error(plain[20:], expected) > 0.1


def test_equal_runs_are_bit_equal(triton_device, poisoned):
    rows, index = batch((5000, 3, 2000, 0, 700), channels=7)
    arguments = (rows, index, 5, *parameters(7), upstream_of(rows))
    for one, other in zip(found_on(triton_device, *arguments),
                          found_on(triton_device, *arguments), strict=True):
        assert torch.equal(one, other)


# opcheck itself reads .grad of the non-leaf copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_opcheck_and_one_graph(triton_device):
    rows, index, weight, bias = on(triton_device, (*batch(), *parameters((7, 5))))
    arguments = (rows.requires_grad_(), index, 7, None, weight, bias, 5, 1e-5, "relu", 0.0)
    torch.library.opcheck(torch.ops.geonorm.segment_norm, arguments)
    torch.library.opcheck(torch.ops.geonorm.segment_stats, (rows, index, 7, None, 1))
    torch.compiler.reset()
    compiled = torch.compile(segment_norm, fullgraph=True, backend="aot_eager")
    given = (rows, index, 7, weight, bias, upstream_of(rows.cpu()).to(triton_device))
    for one, other in zip(results(compiled, *given), results(segment_norm, *given), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shared", [0, 1])
def test_a_parameter_of_instances_goes_with_one_of_channels(triton_device, poisoned, shared):
    rows, index = batch((3, 0, 4))
    weight, bias = (parameters(5 if k == shared else (3, 5))[k] for k in range(2))
    arguments = (rows, index, 3, weight, bias, upstream_of(rows))
    compare(found_on(triton_device, *arguments), exact_results(*arguments), FLOAT32)


@pytest.mark.parametrize(("activation", "share"), [("relu", 0.0), ("leaky_relu", 0.25)])
def test_at_zero_an_activation_lets_through_what_torchs_does(triton_device, activation, share):
    rows, upstream = torch.full((4, 3), 5.0), torch.arange(1.0, 13).view(4, 3)
    found = found_on(triton_device, rows, torch.tensor([1, 0, 0, 1]), 2, torch.ones(3),
                     torch.zeros(3), upstream, activation=activation, slope=0.25)
    assert torch.equal(found[3], share * upstream.sum(0))


@pytest.mark.parametrize("instances", [2, 126, 127, 16_382, 16_383])  # keys of one, two, four bytes
def test_rows_are_ordered_by_instance_and_by_whether_they_count(triton_device, instances):
    last = instances - 1
    index = torch.tensor([last, 0, -1, instances, 0, last], device=triton_device)
    weights = torch.tensor([1.0, 0, 1, 1, 2, 0], device=triton_device)
    rows = torch.zeros(6, 3, device=triton_device)
    arrange = import_module("geonorm.ops.triton.segment_norm")._arrange
    lie = arrange(rows, index, instances, weights)
    assert lie.order.tolist() == [4, 1, 0, 5, 2, 3]
    assert lie.bounds[:3].tolist() == [0, 1, 2]
    assert lie.bounds[2 * last :].tolist() == [2, 3, 4, 6, 6]
    assert len(lie.bounds) == 2 * instances + 3
    assert lie.grid == [instances + 1, 1]
    assert arrange(rows, index, instances, None).order.tolist() == [1, 4, 0, 5, 2, 3]


def test_how_the_work_is_cut(triton_device):
    module = import_module("geonorm.ops.triton.segment_norm")
    cuts = {
        (5000, 96, 7): (256, 64, 64, 32), (5000, 33, 63): (256, 64, 32, 64),
        (600_000, 16, 64): (1024, 1024, 128, 16), (10**7, 1, 5): (4096, 64, 1024, 1),
        (9, 2, 5): (1024, 64, 1024, 2), (5000, 768, 5): (256, 64, 16, 128),
    }
    for shape, (chunk, lanes, tile_r, tile_c) in cuts.items():
        assert module._sizes(*shape) == {
            "CHUNK": chunk, "LANES": lanes, "TILE_R": tile_r, "TILE_C": tile_c}, shape
    rows = torch.zeros(600, 130, device=triton_device)
    lie = module._arrange(rows, torch.zeros(600, dtype=torch.int64, device=triton_device), 2, None)
    assert (lie.grid, lie.merge_grid(2)) == ([600 // 256 + 3, 2], [2, 9])


@pytest.mark.parametrize("weighted", [False, True])
def test_slots_of_several_merging_tiles_are_merged(triton_device, weighted):
    """Two instances of 3 and 301 rows, whose slots of two rows are 2 and 151."""
    module = import_module("geonorm.ops.triton.segment_norm")
    rows, index = (t.to(triton_device) for t in batch((3, 301), dtype=torch.float64, mean=5.0))
    weights = torch.arange(304.0).double().remainder(3).add(1).to(triton_device)
    share = weights if weighted else torch.ones_like(weights)
    lie = module._arrange(rows, index, 2, weights if weighted else None)
    means, squares, products = (rows.new_full((160, 5), torch.nan) for _ in range(3))
    masses, mine = rows.new_full((160,), torch.nan), [(index == k).nonzero()[:, 0] for k in (0, 1)]
    for instance, first in ((0, 0), (1, 2)):  # 3 // 2 + 1
        for slot, part in enumerate(lie.order[lie.bounds[2 * instance] :][
                : len(mine[instance])].split(2), first):  # fmt: skip
            x, w = rows[part] - rows[mine[instance][0]], share[part][:, None]
            masses[slot], products[slot] = w.sum(), (w * x).sum(0)
            means[slot] = products[slot] / w.sum()
            squares[slot] = (w * (x - means[slot]).square()).sum(0)
    shift, mean, var = (rows.new_empty(2, 5) for _ in range(3))
    told = masses if weighted else None
    module.launch(module.merge_moments, [2, 1], rows, lie.order, lie.bounds, means, squares, told,
                  shift, mean, var, 5, 5, 1, CHUNK=2, **module.MERGE)
    sums, others, *lost = (rows.new_empty(2, 5) for _ in range(4))
    gain = torch.arange(10.0, device=triton_device).double().view(2, 5) + 1
    module.launch(module.merge_products, [2, 1], products, squares, lie.bounds, told, gain, 5, sums,
                  others, *lost, 5, 1, CHUNK=2, **module.MERGE)
    for k in (0, 1):
        w, x = share[mine[k]][:, None], rows[mine[k]]
        middle = (w * x).sum(0) / w.sum()
        torch.testing.assert_close(shift[k], x[0])
        torch.testing.assert_close(shift[k] + mean[k], middle)
        torch.testing.assert_close(var[k], (w * (x - middle).square()).sum(0) / w.sum())
        torch.testing.assert_close(sums[k], (w * (x - x[0])).sum(0))
        torch.testing.assert_close(lost[0][k], sums[k] * gain[k] / w.sum())
        torch.testing.assert_close(lost[1][k], others[k] * gain[k] / w.sum())


@pytest.mark.parametrize("instances", [16, 18])
def test_slots_are_found_among_more_instances_than_lanes(triton_device, instances):
    """Every second is empty, and the last row belongs to none."""
    module = import_module("geonorm.ops.triton.segment_norm")
    rows, index = batch([2 * (k % 2) for k in range(instances)], dtype=torch.float64)
    rows, index = torch.cat([rows, rows[:1]]), torch.cat([index, torch.tensor([instances])])
    rows, index = rows.to(triton_device), index.to(triton_device)
    shift, mean, rstd = torch.rand(3, instances, 5, dtype=torch.float64).to(triton_device)
    lie = module._arrange(rows, index, instances, None)
    out, few = torch.zeros_like(rows), {**lie.sizes, "LANES": 16}
    module.launch(
        module.normalize, lie.grid, rows, None, out, lie.order, lie.bounds, shift, mean, rstd, None,
        None, 0, 0, instances, 5, 5, 0, 1, ACTIVATION="none", SLOPE=1.0, **few)
    expected = ((rows[:-1] - shift[index[:-1]]) - mean[index[:-1]]) * rstd[index[:-1]]
    torch.testing.assert_close(out[:-1], expected)
    assert out[-1].isnan().all()


def test_tiles_are_powers_of_two(triton_device):
    """Only a GPU's compiler refuses others; the interpreter takes any."""
    for channels in (*range(1, 131), 192, 384, 1000, 1024):
        sizes = import_module("geonorm.ops.triton.segment_norm")._sizes(5000, channels, 7)
        assert all(size & (size - 1) == 0 for size in sizes.values()), (channels, sizes)
        assert sizes["TILE_C"] * sizes["TILE_R"] <= 2048
