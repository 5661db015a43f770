"""MinkUNet: sizes, keys, every norm, independence of scans, half precision, errors."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from conftest import TOLERANCES, relative_error
from torch import nn

import geonorm
from geonorm.norms.no_norm import NoNorm
from helpers.minkunet_cases import ME, MUST_MOVE, batch, build, minkunet, scan
from helpers.models import assert_normal, candidates

PARAMETERS = {
    "14": 11_580_852, "14A": 8_024_500, "14B": 8_961_588, "14C": 11_919_924, "14D": 43_315_764,
    "18": 21_704_244, "18A": 15_493_172, "18B": 17_204_660, "18D": 79_874_484,
    "34": 37_856_052, "34A": 36_607_412, "34B": 36_226_484, "34C": 37_856_052,
    "50": 31_763_444, "101": 70_809_588,
}

@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters_is_the_published_one(name, norm):
    with torch.device("meta"):
        model = getattr(minkunet, f"MinkUNet{name}")(3, 20, norm=norm)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_number_of_parameters_without_norm_is_smaller():
    with torch.device("meta"):
        model = minkunet.MinkUNet14A(3, 20, norm="none")
    assert sum(p.numel() for p in model.parameters()) < PARAMETERS["14A"]


def norm_keys(prefix):
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{prefix}.bn.{leaf}" for leaf in leaves}


@pytest.mark.parametrize(("name", "convolutions"), [("34C", 2), ("50", 3)])
def test_keys_with_batch_norm_are_those_of_public_checkpoints(name, convolutions):
    with torch.device("meta"):
        model = getattr(minkunet, f"MinkUNet{name}")(3, 20, norm="batch")
    plain = ["conv0p1s1", "conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2"]
    plain += ["convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2"]
    expected = {f"{conv}.kernel" for conv in plain} | {"final.kernel", "final.bias"}
    norms = [f"bn{level}" for level in range(5)] + [f"bntr{level}" for level in range(4, 8)]
    for block, depth in enumerate((2, 3, 4, 6, 2, 2, 2, 2), start=1):
        for i in range(depth):
            place = f"block{block}.{i}"
            for part in range(1, convolutions + 1):
                expected.add(f"{place}.conv{part}.kernel")
                norms.append(f"{place}.norm{part}")
        if name == "50" or block > 1:
            expected.add(f"block{block}.0.downsample.0.kernel")
            norms.append(f"block{block}.0.downsample.1")
    for norm in norms:
        expected |= norm_keys(norm)
    assert set(model.state_dict()) == expected


@pytest.mark.parametrize("name", ["14A", "50"])
def test_training_begins_where_the_published_networks_did(name):
    """The engine's own example: its He initialization, and even draws for what goes up.

    It takes the first extent of a 1×1 kernel, (in, out), for what leaves it.
    """
    model = build(name)
    for key, kernel in model.named_parameters():
        if not key.endswith("kernel"):
            continue
        if "convtr" in key:  # even up to 1 / √(out · volume); the variance is a third of its square
            limit = (kernel.shape[0] * kernel.shape[2]) ** -0.5
            drawn = kernel.detach().double() / limit
            assert 0.99 < drawn.abs().max() <= 1 + 1e-6, key
            assert abs(drawn.square().mean() - 1 / 3) < 5 * (4 / 45 / drawn.numel()) ** 0.5, key
            assert abs(drawn.mean()) < 5 * (3 * drawn.numel()) ** -0.5, key
        else:
            wide = kernel.dim() == 3
            fan = kernel.shape[0] * kernel.shape[2] if wide else kernel.shape[0]
            assert_normal(kernel, (2 / fan) ** 0.5)
    drawn = model.final.bias.abs() * model.final.kernel.shape[0] ** 0.5
    assert 0.1 < drawn.max() <= 1
    for module in model.modules():
        if isinstance(module, geonorm.InstanceNorm):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("kind", [ME.SparseTensor, ME.TensorField])
def test_forward_and_backward_reach_every_parameter(kind, norm):
    model = build(norm=norm)
    x = batch(scan(), scan(200, seed=1), kind=kind)
    out = model(x)
    assert type(out) is kind
    assert out.F.shape == (500, 5)
    assert torch.equal(out.C, x.C)
    out.F.backward(torch.randn(out.F.shape))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_mapping_gives_each_stage_its_norm():
    def slow(channels):
        return ME.MinkowskiBatchNorm(channels, momentum=0.02)

    norm = {"default": "instance", "decoder": "batch", "decoder2": "none", "bottleneck": slow}
    model = build("18A", norm=norm)
    kinds = {
        geonorm.SparseInstanceNorm: (
            "bn0", "bn1", "bn2", "bn3", "block1.1.norm2", "block3.0.norm1", "block2.0.downsample.1",
        ),
        ME.MinkowskiBatchNorm: (
            "bn4", "block4.1.norm2", "bntr4", "block5.0.norm1", "bntr6", "block8.1.norm2",
        ),
        NoNorm: ("bntr5", "block6.0.norm1", "block6.0.downsample.1"),
    }
    for kind, places in kinds.items():
        for place in places:
            assert type(model.get_submodule(place)) is kind, place
    assert model.bn4.bn.momentum == 0.02
    assert model.bntr4.bn.momentum == 0.1


def by_hand(model, x):
    """Run the U-Net as MinkowskiEngine's own example (examples/minkunet.py) wires it."""
    relu = ME.MinkowskiReLU()

    def blocks(each, x):
        for block in each:
            shortcut = x if block.downsample is None else block.downsample(x)
            out = relu(block.norm1(block.conv1(x)))
            out = block.norm2(block.conv2(out))
            if hasattr(block, "conv3"):
                out = block.norm3(block.conv3(relu(out)))
            x = relu(out + shortcut)
        return x

    stem = relu(model.bn0(model.conv0p1s1(x)))
    second = blocks(model.block1, relu(model.bn1(model.conv1p1s2(stem))))
    fourth = blocks(model.block2, relu(model.bn2(model.conv2p2s2(second))))
    eighth = blocks(model.block3, relu(model.bn3(model.conv3p4s2(fourth))))
    x = blocks(model.block4, relu(model.bn4(model.conv4p8s2(eighth))))
    x = blocks(model.block5, ME.cat(relu(model.bntr4(model.convtr4p16s2(x))), eighth))
    x = blocks(model.block6, ME.cat(relu(model.bntr5(model.convtr5p8s2(x))), fourth))
    x = blocks(model.block7, ME.cat(relu(model.bntr6(model.convtr6p4s2(x))), second))
    x = blocks(model.block8, ME.cat(relu(model.bntr7(model.convtr7p2s2(x))), stem))
    return model.final(x)


@pytest.mark.parametrize("name", ["14A", "50"])
def test_parts_are_joined_as_in_the_published_network(name):
    model = build(name, norm="batch").eval()
    for key, value in model.state_dict().items():
        if ".bn." in key and value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=torch.Generator().manual_seed(7)) + 0.5)
    x = batch(scan(), scan(200, seed=1))
    with torch.no_grad():
        expected = by_hand(model, x).F
        assert relative_error(model(x).F, expected) <= TOLERANCES["logits"]
    assert expected.std() > 0.01


def test_misspelt_stage_is_refused():
    with pytest.raises(ValueError, match=r"no stage 'enocder'.*Did you mean 'encoder'"):
        build(norm={"default": "batch", "enocder": "none"})


def test_rows_of_scans_interleave_below_stride_one():
    """The premise of the next test: without it, sorted rows alone would be tried."""
    x = batch(scan(), scan(200, seed=1))
    down = minkunet.Convolution(3, 3, kernel_size=2, stride=2, dimension=3)(x)
    assert (down.C[1:, 0] != down.C[:-1, 0]).sum() > 2


def moved_by_company(norm, **arguments):
    """Return how far a scan's logits are among others from what they are alone."""
    model = build(norm=norm, **arguments)
    among = model(batch(scan(), scan(200, seed=7), scan(250, seed=3))).F[:300]
    return relative_error(among, model(batch(scan())).F)


def test_scan_is_independent_of_the_batch_with_instance_norm():
    assert moved_by_company("instance") <= TOLERANCES["logits"]


def test_scan_depends_on_the_batch_with_batch_norm():
    assert moved_by_company("batch") > MUST_MOVE


def test_one_stage_of_batch_norm_is_enough_to_depend_on_the_batch():
    assert moved_by_company({"default": "instance", "decoder4": "batch"}) > MUST_MOVE


@pytest.mark.parametrize("norm", ["instance", "batch", {"default": "none", "stem": "instance"}])
def test_state_dict_round_trip(norm):
    model, other = build(norm=norm, point_stem=8), build(norm=norm, point_stem=8, seed=1)
    x = batch(scan(), scan(200, seed=1), kind=ME.TensorField)
    model(x)
    model.eval()
    other.eval()
    expected = model(x).F
    assert relative_error(other(x).F, expected) > MUST_MOVE
    other.load_state_dict(model.state_dict())
    assert relative_error(other(x).F, expected) <= TOLERANCES["float32 against float64"]


def logits_under(model, x, dtype):
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        return model(x).F


# Rounding grows with every norm over few voxels: MinkUNet50 has three times as many of them.
@pytest.mark.parametrize(
    ("name", "dtype", "share"),
    [("18", torch.bfloat16, 0.9),
     pytest.param("50", torch.bfloat16, 0.25, marks=pytest.mark.slow),
     pytest.param("50", torch.float16, 0.5, marks=pytest.mark.slow)],
)
def test_train_step_in_half_precision(name, dtype, share):
    model = build(name, "instance")
    x = batch(scan(500, extent=40), scan(500, seed=1, extent=40))
    labels = torch.arange(len(x)) % 5
    logits, plain = logits_under(model, x, dtype), logits_under(model, x, torch.float32)
    assert logits.dtype is dtype
    # The plain tolerance is for float32; that the casts change nothing else is what is asked here.
    assert relative_error(logits, plain) < 0.2
    gradients = []
    for result in (logits, plain):
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(result.float(), labels).backward()
        for key, parameter in model.named_parameters():
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().sum() > 0, key
        gradients.append(torch.cat([p.grad.double().flatten() for p in model.parameters()]))
    # A step along the one goes down by at least this share of a step along the other.
    half, exact = gradients
    assert half @ exact > share * exact @ exact


def test_engine_itself_refuses_mixed_precision():
    """The premise of the cast in our convolutions."""
    wide = ME.MinkowskiConvolution(3, 8, kernel_size=1, dimension=3)
    deep = ME.MinkowskiConvolution(8, 8, kernel_size=3, dimension=3)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises((AssertionError, RuntimeError)):
        deep(wide(batch(scan())))


def test_copies_are_whole_and_independent():
    model, x = build(), batch(scan())
    expected = model(x).F
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x).F, expected)
        nn.init.zeros_(other.final.kernel)
        assert torch.equal(model(x).F, expected)
    with pytest.raises(AttributeError, match="dimension"):  # why ours need a mend
        copy.deepcopy(ME.MinkowskiConvolution(3, 8, kernel_size=3, dimension=3))(x)


def test_double_precision():
    x = batch(scan(), scan(200, seed=1))
    exact = build().double()(x).F
    assert exact.dtype == torch.float64
    assert relative_error(build()(x).F, exact) <= TOLERANCES["logits"]


@pytest.mark.parametrize("dimension", [2, 4])
def test_other_dimensions(dimension):
    coordinates, features = scan(60)
    coordinates = torch.cat((coordinates, coordinates[:, :1]), dim=1)[:, :dimension]
    model = build("14A", D=dimension)
    assert model(batch((coordinates, features))).F.shape[1] == 5


def test_other_inputs_are_refused():
    model = build()
    with pytest.raises(TypeError, match=r"MinkUNet14A takes a MinkowskiEngine .* got Tensor"):
        model(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"must be \(N, 3\); got \(300, 4\).*in_channels=4"):
        model(batch(scan(channels=4)))
    with pytest.raises(ValueError, match=r"must be \(N, 3\); got \(300, 2\).*in_channels=2"):
        model(batch(scan(channels=2)))
    with pytest.raises(ValueError, match=r"batch column and 3 dim.* got 2 dim.*MinkUNet14A.*D=2"):
        model(batch((torch.tensor([[0, 1], [2, 3]]).int(), torch.ones(2, 3))))
    with pytest.raises(ValueError, match=r"batch column and 3 dim.* got 4 dim.*MinkUNet14A.*D=4"):
        model(batch((torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]).int(), torch.ones(2, 3))))
    with pytest.raises(TypeError, match=r"floating point; got torch\.int64"):
        model(batch((scan()[0], torch.ones(300, 3, dtype=torch.int64))))


IMPORTS = """
import sys
import geonorm.models
geonorm.models.load_checkpoint
print('MinkowskiEngine' in sys.modules)
sys.modules['MinkowskiEngine'] = None
try:
    geonorm.models.MinkUNet14
except ImportError as error:
    print(error)
del sys.modules['MinkowskiEngine']
geonorm.models.MinkUNet14
print('MinkowskiEngine' in sys.modules)
"""


def test_engine_is_imported_only_by_models_that_need_it_and_missed_helpfully():
    command = [sys.executable, "-W", "ignore", "-c", IMPORTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    before, missing, after = done.stdout.splitlines()
    assert (before, after) == ("False", "True")
    assert missing.startswith("MinkUNet needs MinkowskiEngine, which cannot be imported here")
    assert "run `python tools/install_minkowski.py`" in missing


def test_every_listed_name_can_be_imported_and_others_are_refused():
    import geonorm.models

    assert set(geonorm.models.__all__) <= set(dir(geonorm.models))
    for name in geonorm.models.__all__:
        assert callable(getattr(geonorm.models, name))
    with pytest.raises(AttributeError, match=r"has no attribute 'MinkUNet33'; it has \["):
        _ = geonorm.models.MinkUNet33


@pytest.mark.parametrize(("taps", "written"), [
    (5, "in_channels=4, out_channels=20, D=1"), (25, "in_channels=4, out_channels=20, D=2"),
    (125, "in_channels=4, out_channels=20"), (625, "in_channels=4, out_channels=20, D=4"),
    (15625, "in_channels=4, out_channels=20, D=6"), (27, None), (24, None), (126, None),
    (1, None), (5**7, None),
])
def test_a_state_dict_tells_channels_and_dimension(taps, written):
    shapes = {"conv0p1s1.kernel": (taps, 4, 32), "final.kernel": (96, 20)}
    expected = [f"{variant.__name__}({written})" for variant in minkunet.VARIANTS if written]
    assert candidates(minkunet.MinkUNet14A, shapes) == expected
    assert candidates(minkunet.MinkUNet14A, shapes | {"conv0p1s1.kernel": (4, 32)}) == []
    assert candidates(minkunet.MinkUNet14A, shapes | {"final.kernel": (1, 96, 20)}) == []


def test_nets_that_a_state_dict_may_be_of_take_no_memory():
    shapes = {"conv0p1s1.kernel": torch.Size([125, 4, 32]), "final.kernel": torch.Size([96, 20])}
    nets = minkunet.MinkUNet14A.candidates(shapes)
    first = next(nets)[1]
    assert torch.empty(1).device.type == "cpu"
    nets.close()
    assert {tensor.device.type for tensor in first.state_dict().values()} == {"meta"}
