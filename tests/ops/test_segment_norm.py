"""segment_norm: the reference against torch, and every kernel against float64."""

import pytest
import torch
import torch.nn.functional as F
from conftest import relative_error

from geonorm.ops import segment_norm as reference
from helpers.segment_norm_cases import (
    FLOAT32,
    FLOAT64,
    SIZES,
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


def compare(found, exact, tolerance):
    for name, actual, expected in zip(NAMES, found, exact, strict=True):
        assert relative_error(actual, expected) < tolerance, name


def test_worked_by_hand(backend):
    rows = torch.tensor([[1.0, 7.0], [10.0, 4.0], [3.0, 7.0], [30.0, 8.0]])
    index = torch.tensor([0, 2, 0, 2])  # means (2, 7), -, (20, 6); variances (1, 0), -, (100, 4)
    weight, bias = torch.tensor([2.0, 3.0]), torch.tensor([0.5, -1.0])
    out = segment_norm(rows, index, 3, weight, bias, eps=0.5)
    one, hundred, four = 2 / 1.5**0.5, 20 / 100.5**0.5, 6 / 4.5**0.5
    expected = [
        [0.5 - one, -1], [0.5 - hundred, -1 - four], [0.5 + one, -1], [0.5 + hundred, -1 + four]
    ]
    torch.testing.assert_close(out, torch.tensor(expected))


def test_row_weights_worked_by_hand(backend):
    rows, weights = torch.tensor([[0.0], [4.0]]), torch.tensor([3.0, 1.0])  # mean 1, variance 3
    out = segment_norm(rows, torch.tensor([0, 0]), 1, row_weights=weights, eps=1.0)
    torch.testing.assert_close(out, torch.tensor([[-0.5], [1.5]]))


@pytest.mark.parametrize("groups", [6, 3, 2, 1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_is_torchs_instance_norm_in_float64(backend, groups, weighted, activation):
    rows, index = batch(channels=6, dtype=torch.float64)
    weights = torch.arange(len(rows)).remainder(3).add(1).double() if weighted else None
    weight, bias = parameters((len(SIZES), 6), torch.float64)
    options = {"groups": groups, "row_weights": weights, "activation": activation, "slope": 0.2}
    arguments = (rows, index, len(SIZES), weight, bias, upstream_of(rows))
    compare(results(segment_norm, *arguments, **options),
            results(by_torch, *arguments, **options), FLOAT64)


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("affine", [5, (6, 5)])
@pytest.mark.parametrize("groups", [5, 1])
def test_output_and_gradients_against_float64(
        backend, poisoned, mean, interleaved, affine, groups):
    sizes = (3, 0, 40, 3, 700, 0)
    rows, index = batch(sizes, mean=mean, interleaved=interleaved)
    weight, bias = parameters(affine)
    arguments = (rows, index, len(sizes), weight, bias, upstream_of(rows))
    options = {"groups": groups, "eps": 0.3}
    found = results(segment_norm, *arguments, **options)
    compare(found, exact_results(*arguments, **options), FLOAT32)
    assert all(tensor.dtype == torch.float32 for tensor in found)


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_large_instance_keeps_its_digits(backend, interleaved):
    sizes = (100_000, 3, 1000)  # summed in one go, float32 loses digits with √rows
    rows, index = batch(sizes, channels=3, mean=100.0, interleaved=interleaved)
    arguments = (rows, index, len(sizes), *parameters(3), upstream_of(rows))
    compare(results(segment_norm, *arguments), exact_results(*arguments), FLOAT32)


# Many that stay in a thread's cache from sums to output; larger ones, cut between instances; one
# that goes on in the next thread's part; one large, then many small, with empty ones among them.
@pytest.mark.parametrize("sizes", [
    (300,) * 150, (30_000, 7, 29_000), (60_000,), (9000, *(5, 0) * 90),
], ids=["many", "large", "one", "mixed"])  # fmt: skip
@pytest.mark.parametrize(("groups", "weighted"), [(9, False), (3, True)])
def test_sorted_instances_however_they_are_cut(
        backend, threads, poisoned, sizes, groups, weighted):
    rows, index = batch(sizes, channels=9, mean=10.0, interleaved=False)
    weights = torch.arange(len(rows)).remainder(3).add(1.0) if weighted else None
    arguments = (rows, index, len(sizes), *parameters((len(sizes), 9)), upstream_of(rows))
    options = {"groups": groups, "activation": "leaky_relu", "slope": 0.2}
    found = results(segment_norm, *arguments, row_weights=weights, **options)
    exact = exact_results(*arguments, row_weights=weights, **options)
    compare(found, exact, FLOAT32)


# Rows of every instance in every part, or each part sorted in itself.
@pytest.mark.parametrize(("groups", "weighted"), [(9, False), (3, True)])
@pytest.mark.parametrize("falling", [False, True])
def test_unsorted_instances_are_merged_from_the_parts_of_all_threads(
        backend, threads, poisoned, falling, groups, weighted):
    sizes = (13_000, 5, 15_000)
    rows, index = batch(sizes, channels=9, mean=10.0, interleaved=not falling)
    index = index.flip(0) if falling else index
    weights = torch.arange(len(rows)).remainder(3).add(1.0) if weighted else None
    arguments = (rows, index, len(sizes), *parameters(9), upstream_of(rows))
    options = {"groups": groups, "activation": "relu", "row_weights": weights}
    found = results(segment_norm, *arguments, **options)
    compare(found, exact_results(*arguments, **options), FLOAT32)


def test_a_part_of_rows_without_weight_adds_nothing(backend, threads):
    rows, index = batch((13_000, 5, 15_000), channels=9, mean=10.0)
    weights = torch.ones(len(rows))
    weights[:14_000] = 0
    out = segment_norm(rows, index, 3, *parameters(9), row_weights=weights)
    kept = weights > 0
    expected = by_torch(rows[kept].double(), index[kept], 3, *(p.double() for p in parameters(9)))
    assert relative_error(out[kept], expected) < FLOAT32


# Of every set of vectors: several abreast, one, half of one, and single channels.
@pytest.mark.parametrize("channels", [16, 37, 64, 103])
@pytest.mark.parametrize(("activation", "residual"), [
    ("none", False), ("relu", False), ("leaky_relu", False), ("leaky_relu", True),
])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_channel_is_normalized_and_masked_by_itself(
        backend, poisoned, channels, activation, residual, weighted):
    sizes = (40, 3, 150, 0)
    rows, index = batch(sizes, channels=channels)
    rows = rows * torch.linspace(1, 3, channels) + torch.linspace(-2, 2, channels)
    arguments = (rows, index, len(sizes), *parameters((len(sizes), channels)), upstream_of(rows))
    options = {"activation": activation, "slope": 0.2, "eps": 0.3 if activation == "none" else 1e-5,
               "residual": upstream_of(rows, seed=7) if residual else None,
               "row_weights": torch.arange(len(rows)) % 3 + 1.0 if weighted else None}
    found = results(segment_norm, *arguments, **options)
    for actual, expected in zip(found, exact_results(*arguments, **options), strict=True):
        assert relative_error(actual, expected) < FLOAT32


@pytest.mark.parametrize("weighted", [False, True])
def test_statistics_of_every_instance_are_written(backend, threads, poisoned, weighted):
    rows = torch.tensor([[1.0, 5.0], [4.0, 5.0], [7.0, 3.0]], dtype=torch.float64)
    index, weights = torch.tensor([1, 1, 3]), torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    _, shift, mean, rstd = torch.ops.geonorm.segment_norm(
        rows, index, 5, weights if weighted else None, None, None, 2, 0.25, "none", 0.01)
    middle = [2.0, 5.0] if weighted else [2.5, 5.0]
    last = [0.0, 0.0] if weighted else [7.0, 3.0]  # which has no row that counts
    expected = torch.zeros(5, 2, dtype=torch.float64)
    expected[1], expected[3] = torch.tensor(middle), torch.tensor(last)
    torch.testing.assert_close(shift + mean, expected)
    spread = torch.full((5, 2), 0.25**-0.5, dtype=torch.float64)
    spread[1, 0] = (2.25 if weighted else 2.5) ** -0.5
    torch.testing.assert_close(rstd, spread)


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_instances_of_two_rows_are_no_worse_than_torchs(backend, mean):
    sizes = (2,) * 200
    rows, index = batch(sizes, mean=mean)
    arguments = (rows, index, len(sizes), *parameters(5), upstream_of(rows))
    ours, torchs = results(segment_norm, *arguments), results(by_torch, *arguments)
    for name, one, other, exact in zip(NAMES, ours, torchs, exact_results(*arguments), strict=True):
        limit = max(2 * relative_error(other, exact), FLOAT32)
        assert relative_error(one, exact) <= limit, name


@pytest.mark.parametrize("weighted", [False, True])
def test_one_row_and_constant_instances_give_the_bias(backend, weighted):
    rows = torch.tensor([[1e4, -3.0], [5.0, 5.0], [5.0, 5.0], [5.0, 5.0]])
    index, weights = torch.tensor([1, 0, 0, 0]), torch.tensor([0.3, 0.1, 0.7, 2.0])
    weight, bias = parameters(2)
    out, grad_rows, *_ = results(segment_norm, rows, index, 3, weight, bias, upstream_of(rows),
                                 row_weights=weights if weighted else None)
    assert torch.equal(out, bias.expand(4, 2))
    assert grad_rows.isfinite().all()
    if not weighted:
        assert not grad_rows[0].any()


@pytest.mark.parametrize(("activation", "share"), [("relu", 0.0), ("leaky_relu", 0.25)])
def test_at_zero_an_activation_lets_through_what_torchs_does(backend, activation, share):
    rows, upstream = torch.full((8, 33), 5.0), torch.arange(1.0, 265).view(8, 33)
    index = torch.tensor([1, 0, 0, 1, 1, 0, 0, 1])
    options = {"activation": activation, "slope": 0.25}
    plain = torch.ones(33), torch.zeros(33)
    found = results(segment_norm, rows, index, 2, *plain, upstream, **options)
    assert torch.equal(found[3], share * upstream.sum(0))
    found = results(segment_norm, rows, index, 2, *plain, upstream,
                    residual=torch.zeros_like(rows), **options)
    assert torch.equal(found[4], share * upstream)


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("interleaved", [False, True])
def test_a_parameter_of_instances_goes_with_one_of_channels(
        backend, poisoned, interleaved, shared):
    rows, index = batch(interleaved=interleaved)
    weight, bias = (parameters(5 if k == shared else (7, 5))[k] for k in range(2))
    arguments = (rows, index, 7, weight, bias, upstream_of(rows))
    compare(results(segment_norm, *arguments), exact_results(*arguments), FLOAT32)


@pytest.mark.parametrize("channels", [1, 3, 33])
def test_no_rows(backend, channels):
    rows, index = batch((0, 0, 0), channels)
    found = results(segment_norm, rows, index, 3, *parameters(channels), rows)
    assert found[0].shape == (0, channels)
    assert all(not tensor.any() for tensor in found[2:])
    assert segment_norm(rows, index, 0).shape == (0, channels)


LAYOUTS = {
    "transposed": lambda wide: wide.t().contiguous().t()[:, :5],
    "columns": lambda wide: wide[:, 1::2],
    "rows": lambda wide: wide.repeat_interleave(2, 0)[::2, :5],
    "expanded": lambda wide: wide[:, :1].expand(len(wide), 5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(backend, poisoned, layout):
    wide, index = batch((30, 1, 9, 4), channels=10)
    rows, upstream = LAYOUTS[layout](wide), LAYOUTS[layout](wide.flip(1))
    strided = index.repeat_interleave(3)[::3]
    weight, bias = (torch.stack([p, p]).t()[:, 0] for p in parameters(5))
    found = results(segment_norm, rows, strided, 4, weight, bias, upstream)
    compare(found, exact_results(rows, index, 4, weight, bias, upstream), FLOAT32)
    assert found[0].is_contiguous()
    assert found[1].is_contiguous()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_half_precision_rows_with_float32_affine(backend, dtype, mean):
    sizes = (50, 3, 400, 1)
    rows, index = batch(sizes, mean=mean)
    rows, upstream = rows.to(dtype), upstream_of(rows).to(dtype)
    weight, bias = parameters(5)
    found = results(segment_norm, rows, index, 4, weight, bias, upstream)
    exact = exact_results(rows, index, 4, weight, bias, upstream)
    torchs = results(by_torch, rows, index, 4, weight.to(dtype), bias.to(dtype), upstream)
    assert [tensor.dtype for tensor in found] == [dtype, dtype, torch.float32, torch.float32]
    for name, one, other, true in zip(NAMES, found, torchs, exact, strict=True):
        assert relative_error(one, true) <= 2 * relative_error(other, true), name


def test_counts_are_not_rounded_and_statistics_are_float32(backend):
    rows = torch.full((70_001, 1), 3.0, dtype=torch.float16)  # PyG's counts give inf here
    rows[0] = 4.0
    index = torch.zeros(len(rows), dtype=torch.long)
    out, shift, mean, rstd = torch.ops.geonorm.segment_norm(
        rows, index, 1, None, None, None, 1, 1e-5, "none", 0.0)
    assert {shift.dtype, mean.dtype, rstd.dtype} == {torch.float32}
    exact = by_torch(rows.double(), index, 1)
    assert relative_error(out, exact) < 2 * 2**-11
    assert not torch.ops.geonorm.segment_norm(
        rows, index, 1, None, None, None, 1, 1e-5, "none", 0.0)[2].requires_grad


def test_a_broken_instance_stays_alone(backend):
    rows, index = batch()
    weight, bias = parameters(5)
    whole = results(segment_norm, rows, index, 7, weight, bias, upstream_of(rows))
    broken = rows.clone()
    broken[(index == 3).nonzero()[4]] = torch.inf
    broken[(index == 5).nonzero()[0]] = torch.nan
    found = results(segment_norm, broken, index, 7, weight, bias, upstream_of(rows))
    sound = (index != 3) & (index != 5)
    for one, other in zip(found[:2], whole[:2], strict=True):
        assert torch.equal(one[sound], other[sound])
        assert one[~sound].isnan().any()


def test_a_row_of_weight_zero_does_not_count(backend):
    rows, index = batch(dtype=torch.float64)
    weights = torch.ones(len(rows), dtype=torch.float64)
    weights[:20] = 0  # among them the first rows of their instances
    far = rows.clone()
    far[:20] += 1e6
    weight, bias = parameters(5, torch.float64)
    found = segment_norm(far, index, 7, weight, bias, weights)
    expected = segment_norm(rows[20:], index[20:], 7, weight, bias)
    assert relative_error(found[20:], expected) < FLOAT64
    plain = segment_norm(far, index, 7, weight, bias)
    assert relative_error(plain[20:], expected) > 0.1


@pytest.mark.parametrize("outside", [-1, 4, 2**40])
def test_an_index_outside_raises_and_reads_nothing(backend, outside):
    rows, index = batch((3, 4, 5, 6))
    index[7] = outside
    with pytest.raises((IndexError, RuntimeError), match=r"index|out of (range|bounds)"):
        segment_norm(rows, index, 4)


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_segment_stats_against_float64(backend, groups, weighted):
    rows, index = batch((9, 0, 1, 30), channels=4, mean=1e4)
    weights = torch.rand(len(rows), generator=torch.Generator().manual_seed(4)) + 0.1
    each = weights.double() if weighted else torch.ones(len(rows), dtype=torch.float64)
    leaf = rows.clone().requires_grad_()
    found = torch.ops.geonorm.segment_stats(leaf, index, 4, weights if weighted else None, groups)
    double = rows.double().requires_grad_()
    mean, var = ([torch.zeros(groups, dtype=torch.float64) for _ in range(4)] for _ in range(2))
    for i in (0, 2, 3):
        mine, share = double[index == i].unflatten(1, (groups, -1)), each[index == i][:, None, None]
        total = share.sum() * mine.shape[2]
        mean[i] = (mine * share).sum((0, 2)) / total
        var[i] = ((mine - mean[i][:, None]).square() * share).sum((0, 2)) / total
    mean, var = torch.stack(mean), torch.stack(var)
    upstream = [torch.randn(4, groups, generator=torch.Generator().manual_seed(s)) for s in (5, 6)]
    grads = torch.autograd.grad(found, leaf, upstream)
    exact = torch.autograd.grad([mean, var], double, [u.double() for u in upstream])
    for one, other in zip((*found, *grads), (mean, var, *exact), strict=True):
        assert relative_error(one, other) < FLOAT32


def test_reference_equals_dense_instance_norm_on_a_full_grid(backend):
    clip = torch.randn(3, 4, 2, 5, 6, generator=torch.Generator().manual_seed(8))
    rows = clip.permute(2, 0, 3, 4, 1).reshape(-1, 4)  # instances interleaved frame by frame
    index = torch.arange(3)[None, :, None].expand(2, 3, 30).flatten()
    out = segment_norm(rows, index, 3).view(2, 3, 5, 6, 4).permute(1, 4, 0, 2, 3)
    assert relative_error(out, F.instance_norm(clip.double())) < FLOAT32


def test_what_is_one_row_of_each_instance():
    rows, index = batch(dtype=torch.float64)
    shift, mean, _ = reference.statistics(rows, index, 7, None, 5)
    for i, size in enumerate(SIZES):
        expected = rows[index == i][0] if size else torch.zeros(5)
        assert torch.equal(shift[i], expected.double())
        if size:
            assert relative_error(shift[i] + mean[i], rows[index == i].mean(0)) < FLOAT64
