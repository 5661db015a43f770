"""3D-ResNets: torchvision's outputs, Hara's keys and counts, any norm at any stage, weights."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torchvision
from conftest import TOLERANCES, relative_error
from torch import nn
from torch.nn import functional

from geonorm import BatchNorm, InstanceNorm, SpatioTemporalInstanceNorm
from geonorm.models import (
    MC3_18_Weights,
    Weights,
    load_checkpoint,
    mc3_18,
    r2plus1d_18,
    r3d_18,
    resnet3d,
)
from helpers.models import assert_normal, candidates

TORCHVISION = {  # parameters with 400 classes, norms, frames left of 16 at layer 4
    "r3d_18": (r3d_18, 33_371_472, 20, 2),
    "mc3_18": (mc3_18, 11_695_440, 20, 16),
    "r2plus1d_18": (r2plus1d_18, 31_505_325, 37, 2),
}
HARA = {  # parameters with 400 classes, norms, blocks
    10: (14_604_624, 12, (1, 1, 1, 1)), 18: (33_409_104, 20, (2, 2, 2, 2)),
    34: (63_718_736, 36, (3, 4, 6, 3)), 50: (47_018_576, 53, (3, 4, 6, 3)),
    101: (86_064_720, 104, (3, 4, 23, 3)), 152: (118_223_440, 155, (3, 8, 36, 3)),
    200: (127_423_056, 203, (3, 24, 36, 3)),
}


def clips(*shape, seed=0):
    return torch.randn(shape or (2, 3, 8, 32, 32), generator=torch.Generator().manual_seed(seed))


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def norms(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def randomized(model, seed=1):
    """Give every parameter and statistic of the norms a value of its own, none its default."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in model.state_dict().items():
        if value.ndim == 1 and value.is_floating_point() and not key.startswith("fc."):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model


def sizes(model, x):
    """Return frames, height and width of what each of the four stages puts out."""
    seen = []
    stages = [getattr(model, f"layer{number}") for number in (1, 2, 3, 4)]
    handles = [stage.register_forward_hook(lambda *args: seen.append((*args[2].shape[2:],)))
               for stage in stages]  # fmt: skip
    model(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_state_dict_loads_strictly_and_gives_torchvisions_outputs(name):
    theirs = randomized(getattr(torchvision.models.video, name)(num_classes=9))
    ours = TORCHVISION[name][0](num_classes=9, norm="batch")
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    outputs = {}
    for training in (False, True):
        outputs[training] = ours.train(training)(clips())
        expected = theirs.train(training)(clips())
        torch.testing.assert_close(outputs[training], expected, rtol=1e-5, atol=1e-5)
    assert relative_error(outputs[True], outputs[False]) > 1e-2
    for key, value in theirs.state_dict().items():  # running statistics moved alike
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TORCHVISION)
def test_counts_of_torchvisions_nets(name):
    build, count, norm_count, frames = TORCHVISION[name]
    with torch.device("meta"):
        model = build()
        assert parameters(model) == count
        assert norms(model, InstanceNorm) == norm_count
        assert norms(build(norm="batch"), BatchNorm) == norm_count
        assert norms(build(norm="none"), (BatchNorm, InstanceNorm, SpatioTemporalInstanceNorm)) == 0
        found = sizes(model, torch.empty(1, 3, 16, 112, 112))
    assert [size[1:] for size in found] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert found[-1][0] == frames


def hara_keys(depth):
    """Write out the parameter keys of Hara's files."""
    keys = ["conv1.weight", "bn1.weight", "bn1.bias", "fc.weight", "fc.bias"]
    for layer, blocks in enumerate(HARA[depth][2], 1):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            for number in (1, 2, 3) if depth >= 50 else (1, 2):
                keys.append(f"{at}.conv{number}.weight")
                keys += [f"{at}.bn{number}.weight", f"{at}.bn{number}.bias"]
            if block == 0 and (layer > 1 or depth >= 50):
                keys += [f"{at}.downsample.{key}" for key in ("0.weight", "1.weight", "1.bias")]
    return keys


@pytest.mark.parametrize("depth", HARA)
def test_counts_and_keys_of_haras_nets(depth):
    count, norm_count, _ = HARA[depth]
    with torch.device("meta"):
        model, batch = resnet3d(depth), resnet3d(depth, norm="batch")
        found = sizes(model, torch.empty(1, 3, 16, 112, 112))
    # Table 1 of Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and
    # ImageNet?", CVPR 2018: the first convolution halves the picture, the pool also the frames.
    assert found == [(8, 28, 28), (4, 14, 14), (2, 7, 7), (1, 4, 4)]
    assert parameters(model) == parameters(batch) == count
    assert norms(model, InstanceNorm) == norms(batch, BatchNorm) == norm_count
    assert sorted(dict(model.named_parameters())) == sorted(hara_keys(depth))
    assert sorted(dict(batch.named_parameters())) == sorted(hara_keys(depth))


@pytest.mark.parametrize(("depth", "convolutions"), [(18, 2), (50, 3)])
def test_haras_nets_join_their_parts_as_published(depth, convolutions):
    """Written out from the modules' parameters; a bottleneck halves in its middle."""

    def normed(norm, x):
        return functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    model = randomized(resnet3d(depth, num_classes=5, norm="batch", width=8)).eval()
    x = functional.max_pool3d(normed(model.bn1, model.conv1(clips())).relu(), 3, 2, 1)
    for number in (1, 2, 3, 4):
        for place, block in enumerate(getattr(model, f"layer{number}")):
            out, strides = x, []
            for part in range(1, convolutions + 1):
                conv = getattr(block, f"conv{part}")
                strides.append(conv.stride[0])
                out = normed(getattr(block, f"bn{part}"), conv(out))
                out = out if part == convolutions else out.relu()
            halved = 2 if number > 1 and place == 0 else 1
            assert strides == ([halved, 1] if convolutions == 2 else [1, halved, 1])
            if block.downsample is not None:
                assert block.downsample[0].stride == (halved,) * 3
                x = normed(block.downsample[1], block.downsample[0](x))
            x = (out + x).relu()
    expected = model.fc(x.mean((2, 3, 4)))
    assert relative_error(model(clips()), expected) < 1e-5
    assert expected.std() > 1e-3


def test_width_is_that_of_the_first_stage_and_doubles():
    model = resnet3d(10, num_classes=5, width=8)
    assert [model.conv1.out_channels, model.layer1[0].conv1.out_channels] == [64, 8]
    assert model.fc.in_features == 64
    assert model(torch.randn(1, 3, 8, 32, 32)).shape == (1, 5)
    with pytest.raises(ValueError, match="width must be at least 1; got 0"):
        resnet3d(10, width=0)
    with torch.device("meta"):
        narrow = resnet3d(10, width=1)
    assert (narrow.fc.in_features, narrow.report) == (8, None)


def test_norm_is_chosen_per_stage_and_inside_blocks():
    norm = {"stem": "none", "encoder": "batch", "layer4": "instance",
            "layer2": lambda channels: SpatioTemporalInstanceNorm(channels, axes="HW")}
    with torch.device("meta"):
        for model in (r2plus1d_18(norm=norm), resnet3d(50, norm=norm)):
            kinds = {
                stage: {type(m).__name__ + getattr(m, "axes", "")
                        for m in model.get_submodule(stage).modules()
                        if isinstance(m, (BatchNorm, InstanceNorm, SpatioTemporalInstanceNorm))}
                for stage in ("layer1", "layer2", "layer3", "layer4")
            }
            assert kinds == {
                "layer1": {"BatchNorm"}, "layer2": {"SpatioTemporalInstanceNormHW"},
                "layer3": {"BatchNorm"}, "layer4": {"InstanceNorm"},
            }
            stem = "stem" if hasattr(model, "stem") else "bn1"
            every = (BatchNorm, InstanceNorm, SpatioTemporalInstanceNorm)
            assert norms(model.get_submodule(stem), every) == 0


def test_wrong_norms_are_refused():
    with pytest.raises(ValueError, match=r"'instence' is unknown.*Did you mean 'instance'"):
        r3d_18(norm="instence")
    with pytest.raises(ValueError, match=r"no stage 'layer5'.*Did you mean"):
        resnet3d(10, norm={"default": "batch", "layer5": "none"})
    with pytest.raises(ValueError, match="says nothing about stage 'layer1'"):
        resnet3d(10, norm={"stem": "batch"})


def test_fused_relu_gives_what_a_norm_without_activation_gives():
    fused = randomized(resnet3d(10, num_classes=5))
    plain = resnet3d(10, num_classes=5, norm=lambda c: nn.InstanceNorm3d(c, affine=True))
    plain.load_state_dict(fused.state_dict())
    assert norms(fused, nn.ReLU) < norms(plain, nn.ReLU)
    x, upstream = clips(2, 3, 16, 64, 64), torch.randn(2, 5)
    gradients = []
    for model in (fused, plain):
        out = model(x)
        gradients.append([out, *torch.autograd.grad(out, list(model.parameters()), upstream)])
    for one, other in zip(*gradients, strict=True):
        assert relative_error(one, other) < TOLERANCES["logits"]


@pytest.mark.parametrize("build", [r3d_18, lambda **kwargs: resnet3d(10, **kwargs)])
def test_logits_stay_under_the_gain_of_one_clip_where_batch_norm_moves(build):
    x = clips(2, 3, 8, 48, 48)
    changed = x.clone()
    changed[1] *= 30
    moved = {}
    for norm in ("instance", "batch"):
        model = randomized(build(num_classes=5, norm=norm)).train()
        with torch.no_grad():
            moved[norm] = relative_error(model(changed), model(x))
    assert moved["instance"] < TOLERANCES["logits"]
    assert moved["batch"] > 0.05


def test_channels_last_clips_give_the_same_logits():
    model = randomized(resnet3d(10, num_classes=5)).eval()
    x = clips(2, 3, 16, 64, 64)
    with torch.no_grad():
        expected = model(x)
        last = torch.channels_last_3d
        found = model.to(memory_format=last)(x.contiguous(memory_format=last))
    assert relative_error(found, expected) < TOLERANCES["logits"]


def test_compiles_into_one_graph():
    torch.compiler.reset()
    model = randomized(resnet3d(10, num_classes=5)).requires_grad_(False)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert relative_error(compiled(clips()), model(clips())) < TOLERANCES["logits"]


@pytest.mark.parametrize(("x", "error", "match"), [
    (torch.zeros(3, 8, 32, 32), ValueError, r"got \(3, 8, 32, 32\).*unsqueeze\(0\)"),
    (torch.zeros(2, 8, 3, 32, 32), ValueError, r"\(B, 3, T, H, W\).*transpose\(1, 2\)"),
    (torch.zeros(2, 2, 3, 32, 32), ValueError, r"got \(2, 2, 3, 32, 32\)"),
    (torch.zeros(2, 3, 32, 32), ValueError, r"got \(2, 3, 32, 32\)"),
    (torch.zeros(2, 3, 8, 32, 32, 1), ValueError, r"got \(2, 3, 8, 32, 32, 1\)"),
    (torch.zeros(2, 3, 8, 32, 32, dtype=torch.uint8), TypeError, r"uint8.*/ 255"),
])
def test_bad_clips_are_refused(x, error, match):
    with pytest.raises(error, match=match):
        resnet3d(10, num_classes=2)(x)


def test_an_unknown_depth_is_refused():
    with pytest.raises(ValueError, match=r"depth must be one of \[10, 18, .*200\]; got 20"):
        resnet3d(20)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Give torch an empty cache folder and a network on which nobody answers."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path / "hub" / "checkpoints"


def test_weights_come_from_the_cache_folder(hub):
    theirs = randomized(torchvision.models.video.mc3_18()).eval()
    hub.mkdir(parents=True)
    torch.save(theirs.state_dict(), hub / "mc3_18-a90a0ba3.pth")
    with pytest.raises(ValueError, match=r"KINETICS400_V1: its sha256 begins .* expected a90a0ba3"):
        mc3_18(weights="KINETICS400_V1")

    class Own(Weights):
        RANDOM = replace(
            MC3_18_Weights.KINETICS400_V1.value,
            sha256=hashlib.sha256((hub / "mc3_18-a90a0ba3.pth").read_bytes()).hexdigest(),
        )

    batch = mc3_18(norm="batch", weights=Own.RANDOM, input_norm="batch").eval()
    batch.input_norm = nn.Identity()
    assert relative_error(batch(clips()), theirs(clips())) < 1e-5
    assert batch.report.dropped == ()

    ours = mc3_18(num_classes=7, weights=Own.RANDOM)
    assert ours.fc.out_features == 7
    for key, value in ours.state_dict().items():
        assert key.startswith("fc.") or torch.equal(value, theirs.state_dict()[key])
    assert len(ours.report.dropped) == 20 * 3
    assert "running_mean" in str(ours.report)


def test_weights_without_a_network_say_where_to_put_the_file(hub):
    place = hub / "r3d_18-b3b3357e.pth"
    with pytest.raises(OSError, match="could not be fetched") as caught:
        r3d_18(weights="KINETICS400_V1")
    assert "https://download.pytorch.org/models/r3d_18-b3b3357e.pth" in str(caught.value)
    with pytest.raises(OSError, match=r"R2Plus1D_18_Weights.KINETICS400_V1 could not be fetched"):
        r2plus1d_18(weights="DEFAULT")
    assert str(place) in str(caught.value)
    with pytest.raises(ValueError, match=r"one of \['KINETICS400_V1', .* got 'KINETICS'"):
        r3d_18(weights="KINETICS")


@pytest.mark.parametrize("name", [*TORCHVISION, "resnet3d_50"])
def test_training_begins_where_the_published_networks_did(name):
    """He's initialization by what leaves a convolution, and a last layer of deviation 0.01."""
    torch.manual_seed(0)
    model = resnet3d(50, 300, "batch") if name == "resnet3d_50" else TORCHVISION[name][0](300)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv3d)]
    assert any(conv.out_channels > conv.in_channels > 3 for conv in convolutions)
    for conv in convolutions:
        volume = conv.kernel_size[0] * conv.kernel_size[1] * conv.kernel_size[2]
        assert_normal(conv.weight, (2 / (volume * conv.out_channels)) ** 0.5)
        assert conv.bias is None
    assert_normal(model.fc.weight, 0.01)
    assert (model.fc.bias == 0).all()
    for module in model.modules():
        if isinstance(module, (BatchNorm, InstanceNorm)):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_haras_files_load(tmp_path):
    theirs = randomized(resnet3d(10, num_classes=5, norm="batch")).eval()
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    path = tmp_path / "r3d10.pth"
    torch.save({"epoch": 200, "arch": "resnet-10", "state_dict": state}, path)

    same = resnet3d(10, num_classes=5, norm="batch").eval()
    load_checkpoint(same, path)
    assert torch.equal(same(clips()), theirs(clips()))

    ours = resnet3d(10, num_classes=5)
    report = load_checkpoint(ours, path)
    assert len(report.dropped) == 12 * 3
    assert torch.equal(ours.bn1.weight, theirs.bn1.weight)
    with pytest.raises(ValueError, match=r"it fits resnet3d\(10, num_classes=5\)"):
        load_checkpoint(resnet3d(18, num_classes=5), path)


def test_the_models_import_without_minkowski_engine():
    code = ("import sys; from geonorm.models import r3d_18, resnet3d; "
            "assert callable(resnet3d); sys.exit('MinkowskiEngine' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_state_dict_may_be_of_every_published_net():
    nets = [f"{name}(num_classes=7)" for name in TORCHVISION]
    nets += [f"resnet3d({depth}, num_classes=7)" for depth in HARA]
    assert candidates(r3d_18(num_classes=3), {"fc.bias": (7,)}) == nets
    assert candidates(r3d_18(num_classes=3), {"fc.weight": (7, 512)}) == []
    _, first = next(resnet3d(10, 3).candidates({"fc.bias": torch.Size([7])}))
    assert {tensor.device.type for tensor in first.state_dict().values()} == {"meta"}
