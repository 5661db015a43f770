"""Triton kernels on a GPU: no synchronization, CUDA graphs, many rows."""

import pytest
import torch
from conftest import relative_error

import geonorm
from helpers.axis_norm_cases import axis_norm
from helpers.axis_norm_cases import parameters as axis_parameters
from helpers.cuda_cases import no_synchronization, on_cuda
from helpers.segment_norm_cases import (
    FLOAT32,
    batch,
    exact_results,
    parameters,
    results,
    segment_norm,
)

pytestmark = on_cuda


@pytest.fixture(autouse=True)
def chosen():
    if geonorm.backends()["triton"] != "available":
        pytest.skip(geonorm.backends()["triton"])
    assert geonorm.ops.backends.backend_for(torch.device("cuda")) == "triton"


def segment_step(weighted=True):
    """Return a function that runs forward and backward, and what it reads."""
    rows, index = batch((700, 0, 3, 2000), channels=33)
    rows, index = rows.cuda().requires_grad_(), index.cuda()
    weight, bias = (p.cuda().requires_grad_() for p in parameters((4, 33)))
    weights = torch.rand(len(rows), device="cuda") + 0.1
    upstream = torch.randn_like(rows)

    def step():
        out = segment_norm(rows, index, 4, weight, bias, weights, 11, activation="relu")
        return out, *torch.autograd.grad(out, (rows, weight, bias), upstream)

    return step, rows


def axis_step(memory_format=torch.channels_last_3d):
    x = torch.randn(2, 5, 8, 40, 40, device="cuda").to(memory_format=memory_format)
    x.requires_grad_()
    weight, bias = (p.cuda().requires_grad_() for p in axis_parameters(5))
    upstream = torch.randn_like(x)

    def step():
        out = axis_norm(x, [2, 3, 4], weight, bias, activation="leaky_relu")
        return out, *torch.autograd.grad(out, (x, weight, bias), upstream)

    return step, x


STEPS = [segment_step, axis_step]


@pytest.mark.parametrize("make", STEPS)
def test_nothing_synchronizes(make):
    step, _ = make()
    step()  # compiles
    with no_synchronization():
        step()
        with pytest.raises(RuntimeError, match="synchroniz"):  # the control
            torch.ones(1, device="cuda").item()


@pytest.mark.parametrize("make", STEPS)
def test_a_cuda_graph_computes_the_same_on_other_values(make):
    step, x = make()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x) * 3 + 1)
    graph.replay()
    for one, other in zip(captured, step(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("make", STEPS)
def test_repeated_runs_are_bit_equal(make):
    step, _ = make()
    first = step()
    for _ in range(20):
        for one, other in zip(step(), first, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("instances", [200, 20_000])  # keys of two and of four bytes
def test_many_instances(instances):
    rows, index = batch((5,) * instances, channels=8)
    upstream = torch.randn(rows.shape, generator=torch.Generator().manual_seed(9))
    arguments = (rows, index, instances, *parameters(8), upstream)
    there = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
    found = results(segment_norm, *there)
    if instances == 200:  # torch's loop takes minutes for more
        for one, exact in zip(found, exact_results(*arguments), strict=True):
            assert relative_error(one.cpu(), exact) < FLOAT32
        return
    geonorm.force_backend("reference")
    try:
        exact = results(segment_norm, *(t.double() if isinstance(t, torch.Tensor) and
                                        t.is_floating_point() else t for t in there))
    finally:
        geonorm.force_backend(None)
    for one, other in zip(found, exact, strict=True):
        assert relative_error(one, other) < FLOAT32


def test_the_launches_do_not_depend_on_the_instances():
    def launches(instances):
        rows = torch.randn(64 * instances, 32, device="cuda")
        index = torch.arange(instances, device="cuda").repeat_interleave(64)
        segment_norm(rows, index, instances)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            segment_norm(rows, index, instances)
            torch.cuda.synchronize()
        return sum(e.count for e in profile.key_averages() if "slot" in e.key or "norm" in e.key)

    assert launches(100) == launches(2) > 0


def test_offsets_beyond_2_to_the_31():
    count = 2**25 + 6  # times 64 channels, more values than int32 counts
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GiB")
    rows = torch.randn(count, 64, device="cuda", dtype=torch.bfloat16)
    out = segment_norm(rows, torch.arange(count, device="cuda") % 2, 2)
    for k in (0, 1):
        sample = rows[k::2].float()
        expected = (sample - sample.mean(0)) / sample.var(0, correction=0).add(1e-5).sqrt()
        for end in (slice(0, 1000), slice(-1000, None)):
            assert relative_error(out[k::2][end], expected[end]) < 2**-8
