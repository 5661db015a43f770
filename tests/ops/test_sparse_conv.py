"""sparse_conv and its gradients: values, dtypes, threads, refusals."""

import pytest
import torch
from conftest import TOLERANCES

from geonorm.kernel_maps import kernel_map
from geonorm.ops.sparse_conv import sparse_conv, sparse_conv_weight
from helpers.sparse_conv_cases import (
    by_matrices,
    by_torch,
    case,
    convolved,
    largest_error,
    results,
)

EXACT = {torch.float32: TOLERANCES["float32 against float64"],
         torch.float64: TOLERANCES["float64 against float64"]}
NAMES = ("output", "features' gradient", "kernel's gradient")
# Less than a vector, whole ones, several groups of them with a rest, and rows taken singly.
WIDTHS = [(1, 1), (3, 20), (4, 32), (33, 7), (16, 48), (50, 80), (31, 145)]


def test_a_case_by_hand(backend):
    joined = kernel_map([torch.tensor([[0, 1], [2, 0]]), torch.tensor([[1], [2]])], 2, 3)
    features, kernel = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[[7.0], [11.0]],
                                                                             [[0.5], [0.25]]])
    out = convolved(features, kernel, joined)
    # row 0: 3·7 + 5·11; row 1: nothing; row 2: 1·7 + 2·11 and 3·0.5 + 5·0.25
    assert out.tolist() == [[76.0], [0.0], [31.75]]


def test_where_triton_is_forced_the_reference_runs(triton_device):
    one = case((3, 4))
    lists = [each.to(triton_device) for each in one.joined[:2]], one.joined.offsets
    features, kernel = one.features.to(triton_device), one.kernel.to(triton_device)
    out = sparse_conv(features, kernel, *lists[0], lists[1], one.joined.num_out)
    assert largest_error(out.cpu(), by_matrices(one)[0]) <= EXACT[torch.float64]


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("channels", WIDTHS)
def test_against_dense_matrices(backend, poisoned, channels, dtype):
    one = case(channels).to(dtype)
    for name, found, expected in zip(NAMES, results(one), by_matrices(one), strict=True):
        assert found.dtype == dtype
        assert largest_error(found, expected) <= EXACT[dtype], name


@pytest.mark.parametrize("change", ["offsets", "input rows", "channels"])
def test_control_another_order_gives_other_values(backend, change):
    one = case((5, 5))
    features, kernel = one.features, one.kernel
    if change == "offsets":
        kernel = kernel.flip(0)
    elif change == "input rows":
        features = features.flip(0)
    else:
        kernel = kernel.mT
    assert largest_error(convolved(features, kernel, one.joined), by_matrices(one)[0]) > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [*WIDTHS, (96, 96)])
def test_half_precision_within_twice_torchs_error(backend, poisoned, channels, dtype):
    one = case(channels, rows=(200, 150), pairs=(140, 1, 60, 150, 33)).to(dtype)
    exact = by_matrices(one)
    for name, found, torchs, expected in zip(NAMES, results(one), by_torch(one), exact,
                                             strict=True):
        assert found.dtype == dtype
        assert largest_error(found, expected) <= 2 * largest_error(torchs, expected), name


def test_many_rows(backend):
    """Several blocks of output rows, chunks of pairs and segments of the kernel's gradient."""
    one = case((6, 20), rows=(30_000, 20_000), pairs=(20_000, 9000, 300)).to(torch.float32)
    exact = by_torch(one.to(torch.float64))
    for name, found, expected in zip(NAMES, results(one), exact, strict=True):
        assert largest_error(found, expected) <= EXACT[torch.float32], name


def test_the_same_row_twice_in_an_offset(backend):
    pairs = torch.tensor([[0, 1, 1, 2, 0], [0, 0, 0, 1, 1]])
    one = case((3, 40), rows=(3, 2), pairs=(1,))._replace(joined=kernel_map([pairs], 3, 2))
    sums = torch.stack([one.features[0] + 2 * one.features[1], one.features[2] + one.features[0]])
    out, grad_features, grad_kernel = results(one)
    assert largest_error(out, sums @ one.kernel[0]) < 1e-14
    spread = torch.stack([one.grad[0] + one.grad[1], 2 * one.grad[0], one.grad[1]])
    assert largest_error(grad_features, spread @ one.kernel[0].T) < 1e-14
    assert largest_error(grad_kernel[0], sums.T @ one.grad) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_threads_or_run(backend, dtype):
    one = case((34, 50), rows=(9000, 7000), pairs=(7000, 4000, 6999, 20, 0, 6000)).to(dtype)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4, 4):
            torch.set_num_threads(threads)
            found.append(results(one))
    finally:
        torch.set_num_threads(before)
    if backend != "reference":  # the products of which are torch's
        for other in found[1:]:
            assert all(map(torch.equal, other, found[0]))
    assert all(map(torch.equal, found[3], found[4]))


def test_strides_do_not_matter(backend):
    one = case((6, 8))
    wide = torch.stack([one.features, one.features.flip(0)], -1)[..., 0]
    across = one.kernel.mT.contiguous().mT
    grad = one.grad.T.contiguous().T
    assert not any(x.is_contiguous() for x in (wide, across, grad))
    plain, lists = results(one), one.joined[:3]
    assert torch.equal(convolved(wide, across, one.joined), plain[0])
    assert torch.equal(sparse_conv_weight(wide, grad, *lists), plain[2])
    swapped = torch.cat([one.joined.pairs] * 2, 1)[:, : one.joined.pairs.shape[1]]
    assert not swapped.is_contiguous()
    assert torch.equal(convolved(one.features, one.kernel, one.joined._replace(pairs=swapped)),
                       plain[0])


@pytest.mark.parametrize(("rows", "pairs"), [
    ((0, 0), (0, 0)), ((4, 0), (0,)), ((0, 3), (0, 0, 0)), ((4, 3), (0, 0)),
])
def test_nothing_to_add_up_is_zero(backend, poisoned, rows, pairs):
    one = case((2, 3), rows, pairs).to(torch.float32)
    out, grad_features, grad_kernel = results(one)
    assert (out.shape, grad_features.shape) == ((rows[1], 3), (rows[0], 2))
    assert grad_kernel.shape == (len(pairs), 2, 3)
    assert not any(x.any() for x in (out, grad_features, grad_kernel))


def test_no_channels(backend):
    for channels in ((0, 3), (3, 0)):
        one = case(channels)
        for found, expected in zip(results(one), by_matrices(one), strict=True):
            assert torch.equal(found, expected)


def test_infinite_and_missing_values_stay_in_their_rows(backend):
    """An odd number of channels in bfloat16, two of which are read at a time."""
    one = case((3, 4), rows=(3, 3), pairs=(0,)).to(torch.bfloat16)
    straight = kernel_map([torch.arange(3).repeat(2, 1)], 3, 3)
    features = one.features.clone()
    features[1] = torch.tensor([float("nan"), float("inf"), 1.0])
    out = convolved(features, torch.ones(1, 3, 4).bfloat16(), straight)
    assert torch.isfinite(out).tolist() == [[True] * 4, [False] * 4, [True] * 4]


@pytest.mark.parametrize(("place", "value"), [
    ((0, 3), 40), ((0, 3), -1), ((1, 29), 30), ((1, 0), -1),
])
def test_rows_that_are_not_there_are_refused(backend, place, value):
    one = case((2, 2))
    pairs = one.joined.pairs.clone()
    pairs[place] = value
    with pytest.raises(IndexError):
        sparse_conv(one.features, one.kernel, pairs, *one.joined[1:3], 30)
    with pytest.raises(IndexError):
        sparse_conv_weight(one.features, one.grad, pairs, *one.joined[1:3])


def test_pairs_out_of_order_are_refused(backend):
    if backend == "reference":
        pytest.skip("takes any order")
    one = case((2, 2))
    pairs = one.joined.pairs.clone()
    pairs[:, :2] = pairs[:, :2].flip(1)
    with pytest.raises(IndexError, match="by ascending output row"):
        sparse_conv(one.features, one.kernel, pairs, *one.joined[1:3], 30)


def test_shapes_and_dtypes_that_do_not_fit_are_refused():
    one = case((2, 3))
    lists = *one.joined[:3], one.joined.num_out
    with pytest.raises(TypeError, match=r"one floating point dtype; got torch\.float64 and .*32"):
        sparse_conv(one.features, one.kernel.float(), *lists)
    with pytest.raises(TypeError, match="one floating point dtype"):
        sparse_conv(one.features.long(), one.kernel.long(), *lists)
    with pytest.raises(ValueError, match=r"got \(40, 2\), \(4, 3, 2\) and 5 offsets"):
        sparse_conv(one.features, one.kernel.mT, *lists)
    with pytest.raises(ValueError, match=r"got \(40, 2\), \(3, 2, 3\) and 5 offsets"):
        sparse_conv(one.features, one.kernel[:3], *lists)
    with pytest.raises(ValueError, match=r"got \(2,\), \(4, 2, 3\)"):
        sparse_conv(one.features[0], one.kernel, *lists)
    with pytest.raises(ValueError, match=r"got \(1, 40, 2\), \(4, 2, 3\)"):
        sparse_conv(one.features[None], one.kernel, *lists)
    with pytest.raises(ValueError, match=r"got \(40, 2\), \(4, 2, 3, 1\)"):
        sparse_conv(one.features, one.kernel[..., None], *lists)
    with pytest.raises(ValueError, match=r"got \(40, 2\), \(8, 2, 3\) and 5 offsets"):
        sparse_conv(one.features, one.kernel.repeat(2, 1, 1), *lists)
