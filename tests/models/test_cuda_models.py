"""Networks, loaders, memory and invariance on a CUDA device, against the CPU."""

import numpy as np
import pytest
import torch
from conftest import TOLERANCES, relative_error
from torch.nn import functional as F

import geonorm
from geonorm.models import mc3_18, r2plus1d_18, r3d_18, resnet3d
from geonorm.training.invariance.plain import clips, street
from helpers.cuda_cases import (
    CUDA,
    fixed_upstream,
    minkowski_on_cuda,
    no_synchronization,
    on_cuda,
    step,
)

pytestmark = on_cuda
LOGITS = TOLERANCES["logits"]
MIB = 2**20


@pytest.fixture(autouse=True)
def full_float32():
    """Keep TF32, which holds ten bits of a product, out of the comparisons."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def compare(actual, single, exact):
    """Let a device err as much as the logits' tolerance, or twice what float32 errs on the CPU."""
    assert actual.keys() == exact.keys()
    for name, value in exact.items():
        limit = max(LOGITS, 2 * relative_error(single[name], value))
        assert relative_error(actual[name], value) <= limit, name


NETWORKS = {
    "r3d_18": r3d_18,
    "mc3_18": mc3_18,
    "r2plus1d_18": r2plus1d_18,
    "resnet3d_50": lambda classes: resnet3d(50, classes),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_resnet_gives_what_the_cpu_gives(name):
    torch.manual_seed(0)
    network, x = NETWORKS[name](5), clips(0, 2, 8, 48)[0]

    def run(module, clip):
        return module(clip)

    single = step(network, run, x, fixed_upstream)
    exact = step(network.double(), run, x.double(), fixed_upstream)
    compare(step(network.float().to(CUDA), run, x.to(CUDA), fixed_upstream), single, exact)


def sparse_steps(network, batch, device, dtype):
    """Return the logits, in the order of the coordinates, and all gradients."""
    import MinkowskiEngine as ME

    network = network.to(device=device, dtype=dtype)
    coordinates = batch.coordinates.to(device)

    def run(module, features):
        out = module(ME.SparseTensor(features, coordinates))
        assert torch.equal(out.C, coordinates)  # rows stay in the order of the labels
        return out.F

    return step(network, run, batch.features.to(device=device, dtype=dtype), fixed_upstream)


def scans(points=2000):
    from geonorm.datasets.voxelize import collate_scans

    return collate_scans([street(0, points), street(1, points)], 0.3)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("name", ["MinkUNet14A", "MinkUNet50"])
def test_a_minkunet_gives_what_the_cpu_gives(name, norm):
    minkowski_on_cuda()
    torch.manual_seed(0)
    network, batch = getattr(geonorm.models, name)(4, 5, norm=norm), scans()
    single = sparse_steps(network, batch, torch.device("cpu"), torch.float32)
    exact = sparse_steps(network, batch, torch.device("cpu"), torch.float64)
    compare(sparse_steps(network, batch, CUDA, torch.float32), single, exact)


@pytest.mark.parametrize("half", [False, True])
def test_a_minkunet_learns(half):
    minkowski_on_cuda()
    import MinkowskiEngine as ME

    torch.manual_seed(0)
    network, batch = geonorm.models.MinkUNet14A(4, 4).to(CUDA), scans()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    features, coordinates = batch.features.to(CUDA), batch.coordinates.to(CUDA)
    losses = []
    for _ in range(30):
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            logits = network(ME.SparseTensor(features, coordinates)).F
        loss = F.cross_entropy(logits.float(), batch.labels.to(CUDA), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", ["SparseTensor", "TensorField"])
def test_the_sparse_norm_on_the_engines_tensors(kind):
    minkowski_on_cuda()
    import MinkowskiEngine as ME

    batch, results = scans(), {}
    torch.manual_seed(0)
    rows = torch.randn(len(batch.coordinates), 16)
    for device in (torch.device("cpu"), CUDA):
        coordinates = batch.coordinates.to(device)
        x = getattr(ME, kind)(rows.to(device),
                              coordinates.float() if kind == "TensorField" else coordinates)
        strided = ME.MinkowskiAvgPooling(2, 2, dimension=3)(x) if kind == "SparseTensor" else x
        out = geonorm.SparseInstanceNorm(16).to(device)(strided)
        order = torch.from_numpy(np.lexsort(out.C.cpu().numpy().T))
        results[device.type] = out.C.cpu()[order], out.F.cpu()[order]
    assert torch.equal(results["cuda"][0], results["cpu"][0])
    error = relative_error(results["cuda"][1], results["cpu"][1])
    assert error <= TOLERANCES["float32 against float64"]


def test_duplicated_points_move_ours_nowhere_and_batch_norm_everywhere():
    minkowski_on_cuda()
    from geonorm.training.invariance.points import point_rows

    drawn = [street(seed, 3000) for seed in (7, 8)]
    rows = point_rows(drawn, device="cuda")
    assert len(rows) == 28
    assert [row for row in rows if row.breaches] == []
    levels = {row.level for row in point_rows(drawn, "batch", "cuda") if row.breaches}
    assert levels == {"op", "layer", "MinkUNet", "file to logits"}


def test_light_moves_our_clips_nowhere_and_batch_norm_everywhere():
    from geonorm.training.invariance.video import video_rows

    drawn = clips(0, 3, 8, 48)[0]
    rows = video_rows(drawn, device="cuda")
    assert len(rows) == 12
    assert [row for row in rows if row.breaches] == []
    levels = {row.level for row in video_rows(drawn, "batch", "cuda") if row.breaches}
    assert levels == {"video layer", "r3d_18"}


def peak_of(norm, x, run):
    """Return the bytes that a norm's forward and backward pass ask for beyond what was there."""
    upstream = torch.randn_like(run(norm, x))
    for _ in range(2):  # the first time kernels and workspaces are loaded
        norm.zero_grad()
        x.grad = None
        torch.cuda.synchronize()
        # What is asked for, and not max_memory_allocated: that counts blocks, which may be 1 MiB
        # larger each, by what happened before.
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_stats()["requested_bytes.all.current"]
        run(norm, x).backward(upstream)
        torch.cuda.synchronize()
    return torch.cuda.memory_stats()["requested_bytes.all.peak"] - before


def rows_to_norm():
    """Return a norm of rows, rows in which two instances alternate, how it takes them, and bytes
    for the order in which they are read: sorting takes keys and places, twice, and room to work.
    """
    rows = torch.randn(400_000, 32, device=CUDA, requires_grad=True)
    index = torch.arange(2, device=CUDA).repeat(200_000)
    return (geonorm.SparseInstanceNorm(32).to(CUDA), rows,
            lambda norm, x: norm(x, index, num_instances=2), 32 * len(rows))


def clips_to_norm(memory_format):
    """Return a norm of clips, clips, and how it takes them; nothing has to be sorted."""
    x = torch.randn(4, 64, 8, 56, 56, device=CUDA).to(memory_format=memory_format)
    norm = geonorm.SpatioTemporalInstanceNorm(64).to(CUDA)
    return norm, x.requires_grad_(), lambda norm, x: norm(x), 0


@pytest.mark.parametrize("make", [
    rows_to_norm,
    lambda: clips_to_norm(torch.contiguous_format),
    lambda: clips_to_norm(torch.channels_last_3d),
], ids=["rows", "clips", "clips, channels last"])  # fmt: skip
def test_a_fused_norm_takes_its_output_one_gradient_and_the_statistics(make):
    if geonorm.backends()["triton"] != "available":
        pytest.skip(geonorm.backends()["triton"])
    norm, x, run, extra = make()
    assert 2 * x.nbytes <= peak_of(norm, x, run) <= 2 * x.nbytes + extra + MIB
    geonorm.force_backend("reference")  # the control: whole tensors in between
    try:
        assert peak_of(norm, x, run) > 3 * x.nbytes
    finally:
        geonorm.force_backend(None)


def test_a_step_of_minkunet_takes_hardly_more_memory_than_with_batch_norm():
    minkowski_on_cuda()
    import MinkowskiEngine as ME

    batch, peaks = scans(20_000), {}
    features, coordinates = batch.features.to(CUDA), batch.coordinates.to(CUDA)
    for norm in ("instance", "batch"):
        network = geonorm.models.MinkUNet14A(4, 4, norm=norm).to(CUDA)
        peaks[norm] = peak_of(network, features.clone().requires_grad_(),
                              lambda net, x: net(ME.SparseTensor(x, coordinates)).F)
    assert peaks["instance"] <= 1.3 * peaks["batch"], peaks


def test_a_pinned_batch_goes_to_the_device_without_a_wait():
    pytest.importorskip("lightning")
    from lightning.fabric.utilities import move_data_to_device
    from torch.utils.data._utils.pin_memory import pin_memory

    batch = scans()
    pinned = pin_memory(batch)
    assert all(t.is_pinned() for t in pinned if isinstance(t, torch.Tensor))
    with no_synchronization():
        moved = move_data_to_device(pinned, CUDA)
    assert moved.names == batch.names
    assert torch.equal(moved.features.cpu(), batch.features)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_resnet_trains_as_the_plain_one(mode):
    x, labels = (t.to(CUDA) for t in clips(1, 4, 8, 32))
    losses = {}
    torch.compiler.reset()
    for way in ("no", mode):
        torch.manual_seed(0)
        network = r3d_18(num_classes=4).to(CUDA)
        if way != "no":
            network.compile(mode=way)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
        losses[way] = []
        for _ in range(4):
            loss = F.cross_entropy(network(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[way].append(loss.item())
    assert losses[mode] == pytest.approx(losses["no"], rel=1e-2)
    assert losses["no"][-1] != pytest.approx(losses["no"][0], rel=1e-2)  # something was learnt
