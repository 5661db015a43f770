"""Convolutions of MinkowskiEngine's kinds on sparse_conv, against MinkowskiEngine's own."""

import copy
import pickle

import pytest
import torch
from conftest import TOLERANCES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.convolution_cases import (
    ME,
    SparseConvolution,
    SparseConvolutionTranspose,
    both,
    outcome,
    places,
)
from helpers.sparse_conv_cases import largest_error

EXACT = TOLERANCES["float64 against float64"]
PLAIN, UP = "MinkowskiConvolution", "MinkowskiConvolutionTranspose"
CROSS = ME.RegionType.HYPER_CROSS


def assert_alike(theirs, ours, coordinates, run=lambda module, x: module(x), tensor_stride=1):
    features = torch.randn(len(coordinates), theirs.in_channels, dtype=torch.float64)
    expected, found = (
        outcome(lambda x, module=module: run(module, x), features, coordinates,
                [*module.parameters()], tensor_stride)
        for module in (theirs, ours)
    )
    assert torch.equal(found.pop("coordinates"), expected.pop("coordinates"))
    for name, value in expected.items():
        assert largest_error(found[name], value) <= EXACT, name
    return expected


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_kernels_and_strides(dimension, kernel_size, stride):
    if dimension == 4 and kernel_size > 3:
        kernel_size = [kernel_size, 1, 2, 3]
    theirs, ours = both(PLAIN, (3, 4), kernel_size=kernel_size, stride=stride, bias=True,
                        dimension=dimension)
    expected = assert_alike(theirs, ours, places(dimension))
    assert all(value.any() for value in expected.values())


@pytest.mark.parametrize("arguments", [
    {"kernel_size": 3, "dilation": 2}, {"kernel_size": 2, "dilation": 3},
    {"kernel_size": 3, "stride": 2, "dilation": 2}, {"kernel_size": (1, 3, 5)},
    {"kernel_size": (3, 2, 1), "stride": (2, 1, 3), "dilation": (1, 2, 1)},
    {"kernel_size": 3, "expand_coordinates": True},
    {"kernel_size": 2, "stride": 2, "expand_coordinates": True},
])
def test_dilations_and_uneven_kernels(arguments):
    assert_alike(*both(PLAIN, (3, 4), dimension=3, **arguments), places(3))


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [PLAIN, UP])
def test_crosses(kind, stride, kernel_size):
    cross = ME.KernelGenerator(kernel_size, stride, region_type=CROSS, dimension=3)
    assert_alike(*both(kind, (3, 4), kernel_generator=cross, dimension=3), places(3),
                 tensor_stride=stride if kind == UP else 1)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dimension", [2, 3])
def test_transposed_makes_the_same_coordinates(dimension, stride, kernel_size):
    theirs, ours = both(UP, (3, 4), kernel_size=kernel_size, stride=stride, bias=True,
                        dimension=dimension)
    assert_alike(theirs, ours, places(dimension), tensor_stride=stride)


@pytest.mark.parametrize("kernel_size", [2, 3])
@pytest.mark.parametrize("given_key", [False, True])
def test_transposed_leads_back_to_the_finer_coordinates(kernel_size, given_key):
    down = SparseConvolution(3, 3, kernel_size=2, stride=2, dimension=3).double()
    theirs, ours = both(UP, (3, 4), kernel_size=kernel_size, stride=2, dimension=3)

    def run(module, x):
        key = x.coordinate_map_key if given_key else None
        return module(down(x), key)

    assert_alike(theirs, ours, places(3), run)


# Coordinates that are given hold even where they would else expand.
@pytest.mark.parametrize("expands", [False, True])
@pytest.mark.parametrize("given", ["key", "tensor", "coordinates"])
def test_output_at_given_coordinates(given, expands):
    theirs, ours = both(PLAIN, (3, 4), kernel_size=3, expand_coordinates=expands, dimension=2)
    wanted = places(2, 40, seed=1)

    def run(module, x):
        other = ME.SparseTensor(torch.zeros(len(wanted), 1), wanted,
                                coordinate_manager=x.coordinate_manager)
        return module(x, {"key": other.coordinate_map_key, "tensor": other,
                          "coordinates": wanted}[given])

    assert_alike(theirs, ours, places(2), run)


coordinate = st.tuples(st.integers(0, 3), st.integers(-6, 6), st.integers(-9, 9))


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(coordinate, min_size=1, max_size=60), st.integers(1, 4), st.integers(1, 3),
       st.integers(1, 2), st.booleans())
def test_any_coordinates(spots, kernel_size, stride, dilation, transposed):
    """Scans far apart, empty ones between others, one voxel alone."""
    theirs, ours = both(UP if transposed else PLAIN, (2, 3), kernel_size=kernel_size,
                        stride=stride, dilation=dilation, dimension=2)
    assert_alike(theirs, ours, torch.tensor(sorted(spots), dtype=torch.int32),
                 tensor_stride=stride if transposed else 1)


def test_no_voxels():
    """MinkowskiEngine's own kernel map of no rows ends the process."""
    x = ME.SparseTensor(torch.zeros(1, 3), torch.zeros(1, 4, dtype=torch.int32))
    empty = ME.MinkowskiPruning()(x, torch.tensor([False]))
    for stride in (1, 2):
        module = SparseConvolution(3, 4, kernel_size=3, stride=stride, dimension=3)
        out = module(empty)
        assert out.F.shape == (0, 4)
        out.F.sum().backward()
        assert not module.kernel.grad.any()


def test_control_another_kernel_is_another_result():
    theirs, ours = both(PLAIN, (3, 3), kernel_size=3, dimension=3)
    with torch.no_grad():
        ours.kernel.copy_(theirs.kernel.flip(0))
    x = ME.SparseTensor(torch.randn(len(places(3)), 3, dtype=torch.float64), places(3))
    assert largest_error(ours(x).F, theirs(x).F) > 0.1


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_half_precision_under_autocast(kernel_size):
    module = SparseConvolution(8, 6, kernel_size=kernel_size, bias=True, dimension=3)
    x = ME.SparseTensor(torch.randn(len(places(3)), 8), places(3))
    plain = module(x).F
    with torch.autocast("cpu", torch.bfloat16):
        half = module(x).F
    assert half.dtype == torch.bfloat16
    assert 0 < largest_error(half, plain) < 0.02
    half.float().square().sum().backward()
    assert module.kernel.grad.dtype == torch.float32
    assert largest_error(module.double()(ME.SparseTensor(x.F.double(), places(3))).F, plain) < 1e-5


@pytest.mark.parametrize("engine", ["auto", "geonorm", "minkowski"])
def test_input_is_cast_to_the_weights(engine):
    module = SparseConvolution(3, 4, kernel_size=3, dimension=3)
    module.engine = engine
    x = ME.SparseTensor(torch.randn(len(places(3)), 3).double(), places(3))
    assert module(x).F.dtype == torch.float32


def test_engines_agree_and_only_ours_calls_the_operator():
    module = SparseConvolution(3, 4, kernel_size=3, dimension=3).double()
    x = ME.SparseTensor(torch.randn(len(places(3)), 3).double(), places(3))
    found = {}
    for engine in ("auto", "geonorm", "minkowski"):
        module.engine = engine
        with torch.autograd.profiler.profile() as profile:
            found[engine] = module(x).F
        called = {event.name for event in profile.function_events}
        assert ("geonorm::sparse_conv" in called) == (engine != "minkowski")
    assert torch.equal(found["auto"], found["geonorm"])
    assert 0 <= largest_error(found["minkowski"], found["auto"]) < EXACT


def test_inputs_that_do_not_fit_are_refused():
    module = SparseConvolution(3, 4, kernel_size=3, dimension=3)
    with pytest.raises(TypeError, match=r"takes MinkowskiEngine's SparseTensor; got Tensor"):
        module(torch.zeros(2, 3))
    with pytest.raises(TypeError, match=r"got TensorField.*\.sparse\(\)"):
        module(ME.TensorField(torch.zeros(1, 3), torch.zeros(1, 4)))
    with pytest.raises(ValueError, match=r"\(N, 3\) in 3 dimensions; got \(1, 5\) in 3"):
        module(ME.SparseTensor(torch.zeros(1, 5), torch.zeros(1, 4, dtype=torch.int32)))
    with pytest.raises(ValueError, match=r"\(N, 3\) in 3 dimensions; got \(1, 3\) in 2"):
        module(ME.SparseTensor(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.int32)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [SparseConvolution, SparseConvolutionTranspose])
def test_copies_are_whole(kind, bias):
    module = kind(3, 4, kernel_size=2, stride=2, bias=bias, dimension=3)
    module.engine = "geonorm"
    spots = places(3) * torch.tensor([1, 2, 2, 2]).int()
    x = ME.SparseTensor(torch.randn(len(spots), 3), spots, tensor_stride=2)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x).F, module(x).F)
        assert other.engine == "geonorm"
        other.engine = "minkowski"
        assert largest_error(other(x).F, module(x).F) < 1e-5
        nn.init.zeros_(other.kernel)
        assert module.kernel.any()
