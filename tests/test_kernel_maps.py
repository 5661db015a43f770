"""Kernel maps: their order, their refusals, and how they are kept with a coordinate manager."""

import pytest
import torch

from geonorm.kernel_maps import kernel_map, of_minkowski

LISTS = [torch.tensor([[0, 1, 2], [3, 0, 1]]), torch.empty(2, 0, dtype=torch.int64),
         torch.tensor([[2, 0], [2, 3]])]


def test_pairs_stand_in_both_orders():
    joined = kernel_map(LISTS, 3, 4)
    assert joined.pairs.tolist() == [[1, 2, 0, 2, 0], [0, 1, 3, 2, 3]]
    assert joined.back.tolist() == [[3, 0, 1, 3, 2], [0, 1, 2, 0, 2]]
    assert joined.offsets.tolist() == [0, 3, 3, 5]
    assert joined[3:] == (3, 4)
    assert (joined.pairs.dtype, joined.offsets.dtype) == (torch.int32, torch.int64)
    assert joined.pairs.is_contiguous()
    assert joined.back.is_contiguous()


def test_transposed_map_leads_back():
    joined = kernel_map(LISTS, 3, 4)
    across = joined.transposed()
    assert across.pairs is joined.back
    assert across.back is joined.pairs
    assert across[3:] == (4, 3)
    turned = kernel_map([pairs.flip(0) for pairs in LISTS], 4, 3)
    assert all(map(torch.equal, across[:3], turned[:3]))


def test_bad_pairs_are_refused():
    with pytest.raises(ValueError, match="one offset or more"):
        kernel_map([], 3, 4)
    with pytest.raises(ValueError, match=r"offset 1 must be integers \(2, P\).*int64 \(3, 2\)"):
        kernel_map([LISTS[0], torch.zeros(3, 2, dtype=torch.int64)], 3, 4)
    with pytest.raises(ValueError, match=r"offset 0 must be integers .* got torch\.float32"):
        kernel_map([torch.zeros(2, 2)], 3, 4)
    with pytest.raises(ValueError, match=r"offset 0 must be integers .* got torch\.int64 \(2,\)"):
        kernel_map([torch.zeros(2, dtype=torch.int64)], 3, 4)
    for rows, name in (([[-1], [0]], "input"), ([[0], [-1]], "output")):
        with pytest.raises(ValueError, match=rf"{name} rows must be in .*; got -1 to -1"):
            kernel_map([torch.tensor(rows)], 3, 4)
    with pytest.raises(ValueError, match=r"input rows must be in \[0, 2\); got 0 to 2"):
        kernel_map(LISTS, 2, 4)
    with pytest.raises(ValueError, match=r"output rows must be in \[0, 3\); got 0 to 3"):
        kernel_map(LISTS, 3, 3)


def test_maps_are_read_once_and_kept_with_the_manager():
    ME = pytest.importorskip("MinkowskiEngine")  # noqa: N806
    places = torch.tensor([[0, 0], [0, 1], [0, 5], [1, 1]], dtype=torch.int32)
    x = ME.SparseTensor(torch.ones(4, 1), places)
    manager, key = x.coordinate_manager, x.coordinate_map_key
    coarse = manager.stride(key, 2)
    down = ME.MinkowskiConvolution(1, 1, kernel_size=2, stride=2, dimension=1).kernel_generator
    wide = ME.MinkowskiConvolution(1, 1, kernel_size=3, stride=2, dimension=1).kernel_generator
    first = of_minkowski(manager, key, coarse, down, False)
    assert first[3:] == (4, 3)
    assert of_minkowski(manager, key, coarse, down, False) is first
    up = of_minkowski(manager, coarse, key, down, True)
    assert up.pairs is first.back
    second = of_minkowski(manager, key, coarse, wide, False)
    assert second is not first
    cross = ME.KernelGenerator(3, 2, region_type=ME.RegionType.HYPER_CROSS, dimension=1)
    assert of_minkowski(manager, key, coarse, cross, False) is not second
    apart = ME.KernelGenerator(2, 2, dilation=3, dimension=1)
    assert of_minkowski(manager, key, coarse, apart, False) is not first
    other = ME.SparseTensor(torch.ones(4, 1), places)
    assert of_minkowski(other.coordinate_manager, other.coordinate_map_key,
                        other.coordinate_manager.stride(other.coordinate_map_key, 2), down,
                        False) is not first


def test_places_beyond_32_bits_are_in_order():
    """Each offset has places of its own, of which five times 2**30 are more than 32 bits count."""
    last = 2**30 - 1
    each = [torch.tensor([[0, 1], [last, 3 + offset]]) for offset in range(5)]
    found = kernel_map(each, 2, last + 1)
    expected = [[1, 0] * 5, [row for offset in range(5) for row in (3 + offset, last)]]
    assert found.pairs.tolist() == expected
    last = 2**30 + 2**29  # of which two, but not one, are more
    each = [torch.tensor([[0, 1], [last - 1, offset]]) for offset in range(2)]
    assert kernel_map(each, 2, last).pairs.tolist() == [
        [1, 0, 1, 0], [0, last - 1, 1, last - 1]]
