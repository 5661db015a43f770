"""The U-Net for clips: against a plain computation, its norms by stage, its time, its errors."""

import math

import pytest
import torch
from conftest import TOLERANCES, relative_error
from torch import nn
from torch.nn import functional as F

from geonorm import BatchNorm, GroupNorm, InstanceBatchNorm, InstanceNorm
from geonorm.models import VideoUNet
from geonorm.models.video_unet import time_waves
from geonorm.norms.no_norm import NoNorm
from geonorm.norms.registry import NORMS, PLACED
from helpers.models import assert_normal

STAGES = ("encoder1", "encoder2", "bottleneck", "decoder1", "decoder2", "output")


def clips(batch: int = 2, size: int = 9) -> torch.Tensor:
    """Return clips whose height is odd at each level."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, 3, size, size + 3, generator=generator, dtype=torch.float64)


def net(norm="instance", **options) -> VideoUNet:
    torch.manual_seed(0)
    model = VideoUNet(norm=norm, widths=(4, 6, 8), time_embedding=10, **options).double()
    for name, parameter in model.named_parameters():
        if "norm" in name:  # affine parameters that a mistake cannot hide behind
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def norms(model: VideoUNet) -> dict[str, list[nn.Module]]:
    blocks = dict(zip(STAGES, [*model.down, *model.up], strict=False))
    found = {stage: [block.norm1, block.norm2] for stage, block in blocks.items()}
    return found | {"output": [model.output_norm]}


def by_hand(model, x, time, mode):
    """Compute the network's output from its parameters alone."""

    def conv(layer, x, stride=1):
        pad = layer.weight.shape[-1] // 2
        x = F.pad(x, (pad,) * 6, mode=mode) if pad else x
        return F.conv3d(x, layer.weight, layer.bias, (1, stride, stride))

    def norm(layer, x):
        mean = x.mean((2, 3, 4), keepdim=True)
        variance = (x - mean).square().mean((2, 3, 4), keepdim=True)
        shape = (1, -1, 1, 1, 1)
        scaled = (x - mean) / (variance + 1e-5).sqrt() * layer.weight.view(shape)
        return scaled + layer.bias.view(shape)

    half = 5
    frequencies = torch.tensor([10_000 ** (-k / half) for k in range(half)])
    angles = time[:, None].float() * frequencies
    waves = torch.cat([angles.cos(), angles.sin()], 1).double()
    embedded = F.silu(model.time[2](F.silu(model.time[0](waves))))

    def block(layers, x, stride):
        out = norm(layers.norm1, conv(layers.conv1, x, stride))
        scale, shift = layers.time(embedded)[:, :, None, None, None].chunk(2, 1)
        out = norm(layers.norm2, conv(layers.conv2, (out * (1 + scale) + shift).clamp(min=0)))
        return (out + conv(layers.shortcut, x, stride)).clamp(min=0)

    first = block(model.down[0], x, 1)
    second = block(model.down[1], first, 2)
    deepest = block(model.down[2], second, 2)
    for level, skip in zip(model.up, (second, first), strict=True):
        rows, columns = (torch.arange(n) * m // n for n, m in
                         zip(skip.shape[3:], deepest.shape[3:], strict=True))  # fmt: skip
        wide = deepest[..., rows, :][..., columns]
        deepest = block(level, torch.cat([wide, skip], 1), 1)
    return norm(model.output_norm, conv(model.final, deepest))


@pytest.mark.parametrize(("padding_mode", "mode"),
                         [("zeros", "constant"), ("replicate", "replicate")])  # fmt: skip
def test_a_plain_computation_gives_the_same(padding_mode, mode):
    model = net({"default": "instance", "output": "instance"}, padding_mode=padding_mode)
    time = torch.tensor([3, 700])
    out = model(clips(), time)
    assert relative_error(out, by_hand(model, clips(), time, mode)) < 1e-6
    other = {"constant": "replicate", "replicate": "constant"}[mode]
    assert relative_error(out, by_hand(model, clips(), time, other)) > 0.01
    assert relative_error(out, by_hand(model, clips(), time.flip(0), mode)) > 0.01


def test_waves_of_time():
    waves = time_waves(torch.tensor([0, 7]), 4)
    expected = [[1, 1, 0, 0],
                [math.cos(7), math.cos(0.07), math.sin(7), math.sin(0.07)]]  # fmt: skip
    torch.testing.assert_close(waves, torch.tensor(expected))
    assert time_waves(torch.tensor([0.5]).double(), 4).dtype == torch.float32


@pytest.mark.parametrize("stage", STAGES)
def test_a_norm_stands_in_the_stage_that_names_it(stage):
    found = norms(net({"default": "none", stage: "batch"}))
    for other, layers in found.items():
        expected = BatchNorm if other == stage else nn.Identity if other == "output" else NoNorm
        assert [type(layer) for layer in layers] == [expected] * len(layers)


def test_stages_together_and_no_norm_at_the_output_unless_it_is_named():
    found = norms(net({"encoder": "instance", "bottleneck": "none", "decoder": "group"}))
    kinds = {stage: type(layers[0]) for stage, layers in found.items()}
    assert kinds == {"encoder1": InstanceNorm, "encoder2": InstanceNorm, "bottleneck": NoNorm,
                     "decoder1": GroupNorm, "decoder2": GroupNorm,
                     "output": nn.Identity}  # fmt: skip
    assert type(net("instance").output_norm) is nn.Identity


def test_an_instance_norm_at_the_output_gives_every_clip_one_deviation():
    model = net({"default": "none", "output": "instance"})
    out = model(clips() * torch.tensor([1.0, 9.0]).view(2, 1, 1, 1, 1), torch.tensor([5, 5]))
    deviations = out.std((2, 3, 4), correction=0)
    torch.testing.assert_close(deviations[0], deviations[1], rtol=1e-3, atol=0)
    torch.testing.assert_close(deviations[0], model.output_norm.weight, rtol=1e-3, atol=0)


@pytest.mark.parametrize("norm", ["instance", "none", "group"])
def test_the_time_is_seen_through_every_norm(norm):
    model = net(norm)
    early, late = (model(clips(), torch.tensor([t, t])) for t in (5, 900))
    assert relative_error(early, late) > 0.01


@pytest.mark.parametrize("name", sorted({*NORMS, *PLACED}))
def test_every_name_builds_a_net_that_trains_in_half_precision(name):
    model = net(name).float()
    x, time = clips().float(), torch.tensor([3, 700])
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x, time)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "name", [name if name in ("instance", "ibn-a") else pytest.param(name, marks=pytest.mark.slow)
             for name in sorted({*NORMS, *PLACED})],
)  # fmt: skip
def test_every_name_compiles(name):
    torch.compiler.reset()
    model, x, time = net(name).float(), clips().float(), torch.tensor([3, 700])
    model.eval().requires_grad_(False)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert relative_error(compiled(x, time), model(x, time)) < TOLERANCES["logits"]


def test_without_a_time():
    model = VideoUNet(2, 5, widths=(4, 8), time_embedding=None)
    assert model(torch.randn(1, 2, 1, 7, 6)).shape == (1, 5, 1, 7, 6)
    assert not [name for name, _ in model.named_parameters() if "time" in name]


def test_every_parameter_gets_a_gradient():
    model = net({"default": "instance", "output": "instance"})
    (model(clips(), torch.tensor([3, 700])) * clips()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    # What a bias adds in front of an instance norm, the norm takes out.
    idle = {name for name, p in model.named_parameters() if p.grad.abs().max() < 1e-12}
    blocks = [f"{part}.{n}" for part, count in (("down", 3), ("up", 2)) for n in range(count)]
    assert idle == {"final.bias", *(f"{b}.conv{n}.bias" for b in blocks for n in (1, 2))}


def test_what_is_built_by_default():
    with torch.device("meta"):
        model = VideoUNet()
        assert [block.conv1.out_channels for block in model.down] == [32, 64, 128]
        assert [block.conv1.out_channels for block in model.up] == [64, 32]
        assert (model.final.in_channels, model.final.out_channels) == (32, 3)
        assert [layer.out_features for layer in model.time[::2]] == [128, 128]
        assert VideoUNet(2, widths=(1, 1), time_embedding=2).final.out_channels == 2


def test_training_begins_with_hes_initialization_of_the_wide_convolutions():
    torch.manual_seed(0)
    model = VideoUNet(widths=(8, 24))
    for block in [*model.down, *model.up]:
        for conv in (block.conv1, block.conv2):
            assert_normal(conv.weight, (2 / (27 * conv.in_channels)) ** 0.5)
    for conv in (model.final, model.down[1].shortcut):
        assert conv.weight.abs().max() <= conv.in_channels**-0.5


def test_ibn_a_stands_behind_the_first_convolutions():
    for block in [*(model := net("ibn-a")).down, *model.up]:
        assert (type(block.norm1), type(block.norm2)) == (InstanceBatchNorm, BatchNorm)


@pytest.mark.parametrize(("options", "message"), [
    ({"widths": (8,)}, r"widths must be two or more .* got \(8,\)"),
    ({"widths": (8, 0)}, r"widths must be two or more .* got \(8, 0\)"),
    ({"time_embedding": 7}, "time_embedding must be an even number, 2 or more, or None; got 7"),
    ({"time_embedding": 0}, "time_embedding must be an even number, 2 or more, or None; got 0"),
    ({"padding_mode": "edge"}, "padding_mode must be one of zeros, replicate; got 'edge'"),
    ({"norm": "instanze"}, "did you mean 'instance'"),
    ({"norm": {"default": "none", "encoder4": "batch"}}, "norm has no stage 'encoder4'"),
    ({"norm": {"encoder": "none", "decoder": "batch"}}, "says nothing about stage 'bottleneck'"),
])  # fmt: skip
def test_arguments_that_are_refused(options, message):
    with pytest.raises(ValueError, match=f"(?i){message}"):
        VideoUNet(**options)


@pytest.mark.parametrize(("shape", "time", "message"), [
    ((3, 4, 8, 8), [1, 2, 3], r"clips must be \(B, 3, T, H, W\); got \(3, 4, 8, 8\)"),
    ((2, 4, 3, 8, 8), [1, 2], r"got \(2, 4, 3, 8, 8\).*need transpose\(1, 2\)"),
    ((2, 3, 4, 8, 8), None, r"the network takes a time \(B,\).*got none"),
    ((2, 3, 4, 8, 8), [1], r"time must be \(2,\), one for each clip; got \(1,\)"),
    ((2, 3, 4, 8, 8), [1, 2, 3], r"time must be \(2,\), one for each clip; got \(3,\)"),
    ((2, 3, 4, 8, 8), [[1], [2]], r"time must be \(2,\), one for each clip; got \(2, 1\)"),
])  # fmt: skip
def test_inputs_that_are_refused(shape, time, message):
    time = None if time is None else torch.tensor(time)
    with pytest.raises(ValueError, match=message):
        VideoUNet(widths=(4, 8))(torch.randn(shape), time)


def test_further_inputs_that_are_refused():
    with pytest.raises(TypeError, match=r"clips must be floating point; got torch.uint8"):
        VideoUNet(widths=(4, 8))(torch.zeros(1, 3, 2, 8, 8, dtype=torch.uint8), torch.tensor([1]))
    with pytest.raises(ValueError, match="time_embedding=None and takes no time; got one"):
        VideoUNet(widths=(4, 8), time_embedding=None)(torch.randn(1, 3, 2, 8, 8), torch.tensor([1]))
