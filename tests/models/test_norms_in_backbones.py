"""Every norm by name in every backbone: forward, backward, half precision, state, placement."""

import pytest
import torch
from conftest import TOLERANCES, relative_error
from torch import nn

from geonorm import (
    BatchNorm,
    DomainBatchNorm,
    DomainInstanceNorm,
    InstanceBatchNorm,
    InstanceNorm,
    set_domain,
)
from geonorm.models import resnet3d
from geonorm.models.norm import resolve
from geonorm.norms.registry import NORMS, PLACED
from helpers.minkunet_cases import MinkUNet14A, batch, scan

NAMES = sorted({*NORMS, *PLACED})
CALLABLES = {
    "domain batch": lambda channels: DomainBatchNorm(channels, num_domains=2),
    "domain instance": lambda channels: DomainInstanceNorm(channels, num_domains=2),
}
INDEPENDENT = ("divisive", "group", "instance", "layer", "none", "domain instance")


def scans():
    return batch(scan(), scan(200, seed=7))


def clips():
    return torch.randn(2, 3, 8, 40, 40, generator=torch.Generator().manual_seed(0))


def minkunet(norm):
    return MinkUNet14A(3, 5, norm=norm)


def resnet(norm):
    return resnet3d(10, num_classes=5, norm=norm, width=16)


BACKBONES = {"MinkUNet": (minkunet, scans), "ResNet3D": (resnet, clips)}


def build(backbone, name, seed=0):
    torch.manual_seed(seed)
    model = BACKBONES[backbone][0](CALLABLES.get(name, name))
    if name in CALLABLES:
        set_domain(model, 1)
    return model


def logits(model, x):
    out = model(x)
    return out if isinstance(out, torch.Tensor) else out.F


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", [*NAMES, *CALLABLES])
def test_every_norm_in_every_backbone(name, backbone):
    model, x = build(backbone, name), BACKBONES[backbone][1]()
    out = logits(model, x)
    nn.functional.cross_entropy(out, torch.arange(len(out)) % 5).backward()
    trained = [p.grad for key, p in model.named_parameters() if ".norms.0." not in key]
    assert all(grad is not None and grad.isfinite().all() for grad in trained)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = logits(model, x)
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()
    model.eval()
    other = build(backbone, name, seed=1).eval()
    with torch.no_grad():
        expected = logits(model, x)
        assert relative_error(logits(other, x), expected) > 1e-2
        assert not any(other.load_state_dict(model.state_dict()))
        assert relative_error(logits(other, x), expected) < TOLERANCES["logits"]
    norms = [m for m in model.modules() if type(m).__module__.startswith("geonorm.norms")]
    assert all(type(norm).__name__ in repr(model) for norm in norms)


@pytest.mark.parametrize("name", [*NAMES, *CALLABLES])
def test_which_norms_make_a_scan_depend_on_its_company(name):
    model = build("MinkUNet", name)
    with torch.no_grad():
        among, alone = model(scans()).F[:300], model(batch(scan())).F
    moved = relative_error(among, alone)
    assert moved < TOLERANCES["logits"] if name in INDEPENDENT else moved > 1e-2


@pytest.mark.parametrize(
    "name", ["ibn-a", *(pytest.param(name, marks=pytest.mark.slow)
                        for name in ("ibn-b", "group", "layer", "divisive"))],
)  # fmt: skip
def test_compiles_into_one_graph(name):
    torch.compiler.reset()
    model = build("ResNet3D", name).eval().requires_grad_(False)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert relative_error(compiled(clips()), model(clips())) < TOLERANCES["logits"]


def where(model, kind):
    return [key for key, module in model.named_modules() if type(module) is kind]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_ibn_a_stands_after_the_first_convolution_of_each_block_alone(backbone):
    found = where(build(backbone, "ibn-a"), InstanceBatchNorm)
    if backbone == "ResNet3D":
        assert found == [f"layer{stage}.0.bn1" for stage in (1, 2, 3, 4)]
    else:
        assert found == [f"block{number}.0.norm1" for number in range(1, 9)]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_ibn_b_stands_in_the_stem_and_after_the_last_sum_of_each_stage(backbone):
    model = build(backbone, "ibn-b")
    found = where(model, InstanceNorm)
    if backbone == "ResNet3D":
        assert found == ["bn1", *(f"layer{stage}.0.after" for stage in (1, 2, 3, 4))]
        published = resnet3d(10, norm="ibn-b")  # of full width, where layer1 has no downsampling
        assert len(where(published, BatchNorm)) == 11
        block = resnet3d(18, norm={"default": "batch", "layer2": "ibn-b"})
        assert where(block, InstanceNorm) == ["layer2.1.after"]
    else:
        assert found == ["bn0", *(f"block{number}.0.after" for number in range(1, 9))]
        assert not where(model, BatchNorm)  # MinkowskiEngine's own, for its checkpoints


def test_the_sum_is_normalized_before_its_relu():
    block = resnet3d(10, norm="ibn-b").layer1[0]
    sums = []
    block.after.register_forward_pre_hook(lambda module, inputs: sums.append(inputs[0].clone()))
    out = block(torch.randn(2, 64, 4, 8, 8))
    normed = InstanceNorm(64)(sums[0])
    assert relative_error(out, normed.relu()) < TOLERANCES["logits"]
    assert normed.mean((2, 3, 4)).abs().max() < 1e-5


def test_every_width_has_a_number_of_groups():
    norms = [NORMS["group"](channels) for channels in (32, 45, 96, 921)]
    assert [norm.num_groups for norm in norms] == [32, 1, 32, 1]


def test_a_place_of_its_own_and_the_default():
    names = {**NORMS, "batch": nn.BatchNorm1d}
    stages = {"stem": "stem"}

    def built(norm, place):
        return type(resolve(norm, "stem", 8, stages, place, names=names))

    assert built("ibn-a", "first") is InstanceBatchNorm
    assert built("ibn-a", "inner") is built("ibn-a", "shortcut") is nn.BatchNorm1d
    assert built("ibn-b", "stem") is InstanceNorm
    assert built("ibn-b", "first") is nn.BatchNorm1d
    assert built("ibn-a", "sum") is built("batch", "sum") is type(None)
    assert built("ibn-b", "sum") is InstanceNorm
    assert built(nn.LayerNorm, "sum") is type(None)
