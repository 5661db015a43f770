"""Every operator and norm layer on a CUDA device against exact arithmetic on the CPU."""

import pytest
import torch
from conftest import TOLERANCES, relative_error

import geonorm
from geonorm.functional import axis_instance_norm, instance_norm
from helpers import axis_norm_cases as dense
from helpers import segment_norm_cases as rows_of
from helpers.cuda_cases import CUDA, fixed_upstream, no_synchronization, on_cuda, step, to

pytestmark = on_cuda
FLOAT32 = TOLERANCES["float32 against float64"]
FLOAT64 = TOLERANCES["float64 against float64"]
RESULTS = ("output", "rows", "weight", "bias")


@pytest.fixture(params=["chosen by device", "reference"], autouse=True)
def kernels(request):
    """Run each test on what runs by itself and on the reference."""
    geonorm.force_backend(None if request.param == "chosen by device" else request.param)
    yield request.param
    geonorm.force_backend(None)


def check(actual, exact, dtype):
    """Compare results with exact ones; half precision is judged by twice its own rounding."""
    for name, a, e in zip(RESULTS, actual, exact, strict=True):
        assert a.device.type == "cuda"
        limit = FLOAT64 if dtype == torch.float64 else FLOAT32
        if a.dtype not in (torch.float32, torch.float64):
            limit = max(limit, 2 * relative_error(e.to(a.dtype), e))
        elif dtype not in (torch.float32, torch.float64):
            limit = 1e-2  # a sum of half-precision products
        assert relative_error(a.cpu(), e) <= limit, name


SEGMENT = [
    pytest.param({}, 5, 0.0, id="plain"),
    pytest.param({"activation": "relu"}, 33, 0.0, id="relu, odd C"),
    pytest.param({"activation": "leaky_relu", "slope": 0.2}, 64, 0.0, id="leaky"),
    pytest.param({"groups": 4}, 32, 0.0, id="groups"),
    pytest.param({"weighted": True}, 16, 0.0, id="weights"),
    pytest.param({"per_instance": True}, 8, 0.0, id="an affine per instance"),
    pytest.param({}, 32, 1e4, id="mean 1e4"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("options", "channels", "mean"), SEGMENT)
@pytest.mark.usefixtures("poisoned")
def test_segment_norm_gives_what_exact_arithmetic_gives(options, channels, mean, dtype):
    if mean and dtype != torch.float32:
        pytest.skip("at mean 1e4 half precision holds no spread of 1; float64's judge loses digits")
    options = dict(options)
    rows, index = rows_of.batch((700, 0, 1, 4000, 33), channels, mean, seed=3)
    rows, instances = rows.to(dtype), 5
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    shape = (instances, channels) if options.pop("per_instance", False) else (channels,)
    weight, bias = rows_of.parameters(shape, wide)
    if options.pop("weighted", False):
        options["row_weights"] = torch.randint(1, 5, (len(rows),)).to(wide)
    upstream = rows_of.upstream_of(rows)
    exact = rows_of.exact_results(rows, index, instances, weight, bias, upstream, **options)
    on_device = dict(zip(options, to(CUDA, *options.values()), strict=True))
    actual = rows_of.results(rows_of.segment_norm, *to(CUDA, rows, index, instances, weight, bias,
                                                       upstream), **on_device)
    check(actual, exact, dtype)


def test_a_wrong_instance_is_noticed_by_the_comparison():
    rows, index = rows_of.batch((50, 60), 8)
    weight, bias = rows_of.parameters(8)
    upstream = rows_of.upstream_of(rows)
    exact = rows_of.exact_results(rows, index, 2, weight, bias, upstream)
    index[0] = 1 - index[0]
    actual = rows_of.results(rows_of.segment_norm, *to(CUDA, rows, index, 2, weight, bias,
                                                       upstream))
    with pytest.raises(AssertionError, match="output"):
        check(actual, exact, torch.float32)


def test_rows_and_gradients_that_are_views():
    rows, index = rows_of.batch((40, 30), 12)
    weight, bias = rows_of.parameters(6)
    upstream = torch.randn(70, 1, generator=torch.Generator().manual_seed(4)).expand(70, 6)
    exact = rows_of.exact_results(rows[:, ::2], index, 2, weight, bias, upstream)
    device_rows, device_index = to(CUDA, rows, torch.stack([index, index], 1))
    actual = rows_of.results(rows_of.segment_norm, device_rows[:, ::2], device_index[:, 0], 2,
                             *to(CUDA, weight, bias, upstream))
    check(actual, exact, torch.float32)


def test_no_rows_at_all():
    x = torch.empty(0, 4, device=CUDA, requires_grad=True)
    out = instance_norm(x, torch.empty(0, dtype=torch.long, device=CUDA), 3)
    out.sum().backward()
    assert out.shape == x.grad.shape == (0, 4)


def test_segment_stats_and_their_gradient():
    rows, index = rows_of.batch((50, 0, 20), 6, dtype=torch.float64)
    stats = torch.ops.geonorm.segment_stats
    expected = stats(rows, index, 3, None, 6)
    for a, e in zip(stats(*to(CUDA, rows, index), 3, None, 6), expected, strict=True):
        assert relative_error(a.cpu(), e) <= FLOAT64
    device_rows, device_index = to(CUDA, rows.requires_grad_(), index)
    assert torch.autograd.gradcheck(
        lambda x: stats(x, device_index, 3, None, 6), device_rows.detach().requires_grad_(),
        nondet_tol=1e-12,  # atomics add up in any order
    )


@pytest.mark.parametrize("layout", dense.LAYOUTS)
@pytest.mark.parametrize("axes", dense.AXES)
@pytest.mark.usefixtures("poisoned")
def test_axis_norm_gives_what_exact_arithmetic_gives_and_keeps_the_layout(axes, layout):
    x = dense.with_layout(layout, mean=3.0)
    weight, bias = dense.parameters(5)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    exact = dense.results(dense.by_torch, x.double(), axes, *(t.double() for t in
                                                              (weight, bias, upstream)))
    device_x = torch.empty_strided(x.shape, x.stride(), device=CUDA) if layout != "expanded" else x
    device_x = x.to(CUDA) if layout == "expanded" else device_x.copy_(x)
    actual = dense.results(dense.axis_norm, device_x, axes, *to(CUDA, weight, bias, upstream))
    check(actual, exact, torch.float32)
    assert actual[0].stride() == torch.empty_like(device_x).stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_axis_norm_in_other_precisions(dtype):
    x = dense.with_layout("channels_last_3d").to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    weight, bias = dense.parameters(5, wide)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(9)).to(dtype)
    exact = dense.results(dense.by_torch, x.double(), [2, 3, 4],
                          *(t.double() for t in (weight, bias, upstream)))
    actual = dense.results(dense.axis_norm, *to(CUDA, x), [2, 3, 4],
                           *to(CUDA, weight, bias, upstream))
    assert actual[0].dtype == dtype
    check(actual, exact, dtype)


LAYERS = ("sparse", "T, H and W", "H and W", "one axis")


def layer(name, device):
    """Return a norm layer on a device, an input for it, and how it takes that."""
    rows, index = to(device, *rows_of.batch((300, 0, 5), 16))
    clip = torch.randn(2, 16, 4, 6, 6, generator=torch.Generator().manual_seed(7)).to(device)
    module = {
        "sparse": geonorm.SparseInstanceNorm(16, activation="relu"),
        "T, H and W": geonorm.SpatioTemporalInstanceNorm(16),
        "H and W": geonorm.SpatioTemporalInstanceNorm(16, axes="HW"),
        "one axis": geonorm.AxisInstanceNorm(16, layout="BCTHW", axes="T"),
    }[name].to(device)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(0.5, 2, 16))
    if name == "sparse":
        return module, rows, lambda norm, x: norm(x, index, num_instances=3)
    return module, clip, lambda norm, x: norm(x)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_moved_to_the_device_does_the_same(name):
    module, x, run = layer(name, torch.device("cpu"))
    expected = step(module.double(), run, x.double(), fixed_upstream)
    module, x, run = layer(name, CUDA)
    actual = step(module, run, x, fixed_upstream)
    assert actual.keys() == expected.keys()
    for key, value in actual.items():
        assert relative_error(value, expected[key]) <= FLOAT32, key


@pytest.mark.parametrize("name", LAYERS)
def test_no_layer_makes_the_host_wait(name):
    module, x, run = layer(name, CUDA)
    x, upstream = x.requires_grad_(), torch.randn_like(x)
    run(module, x).backward(upstream)  # the first time kernels are compiled
    with no_synchronization():
        run(module, x).backward(upstream)


def test_a_wait_of_the_host_is_noticed():
    x = torch.ones(3, device=CUDA)
    with no_synchronization(), pytest.raises(RuntimeError, match="synchroniz"):
        x.sum().item()


def test_values_are_checked_on_request_and_not_otherwise():
    features, index = torch.randn(4, 2, device=CUDA), torch.tensor([0, 1, 5, 0], device=CUDA)
    with pytest.raises(ValueError, match="pass num_instances"):
        instance_norm(features, index)
    geonorm.validate(True)
    try:
        with pytest.raises(ValueError, match="it goes from 0 to 5"):
            instance_norm(features, index, 2)
    finally:
        geonorm.validate(False)
    with pytest.raises(ValueError, match="is on cpu, the features on cuda"):
        instance_norm(features, index.cpu(), 6)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_compiles_whole(name):
    module, x, run = layer(name, CUDA)
    expected = run(module, x)
    torch.compiler.reset()
    compiled = torch.compile(lambda value: run(module, value), fullgraph=True)
    assert relative_error(compiled(x), expected) <= FLOAT32


def test_a_cuda_graph_replays_the_norm_on_new_values():
    x = torch.randn(2, 8, 4, 6, 6, device=CUDA)
    weight, bias = to(CUDA, *dense.parameters(8))
    for _ in range(3):  # outside the graph first, as torch asks
        axis_instance_norm(x, axes=(2, 3, 4), weight=weight, bias=bias)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = axis_instance_norm(x, axes=(2, 3, 4), weight=weight, bias=bias)
    x.copy_(torch.randn_like(x) * 3 + 1)
    graph.replay()
    expected = dense.by_torch(x.double(), [2, 3, 4], weight.double(), bias.double())
    assert relative_error(out, expected) <= FLOAT32
