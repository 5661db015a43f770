"""geonorm.convert on models of timm and torchvision: no activation lost, nothing unfrozen."""

from collections import Counter

import pytest
import torch
import torchvision
from conftest import relative_error
from torch import nn

from geonorm import convert
from geonorm.convert.sources import source_of

timm = pytest.importorskip("timm", reason="pip install 'geonorm[test]'")
# Their own forward passes warn of matters of their own.
pytestmark = pytest.mark.filterwarnings("default")

SUITE = ("efficientnet_b0", "resnet18", "mobilenetv3_small_050", "resnetv2_50", "tv:r3d_18")
SLOW = (
    "regnetx_002", "regnety_002", "densenet121", "dla34", "hrnet_w18_small", "ghostnet_050",
    "mnasnet_050", "fbnetc_100", "tf_efficientnetv2_b0", "tinynet_e", "lcnet_035",
    "semnasnet_050", "spnasnet_100", "mobilenetv2_035", "mobilenetv4_conv_small_035",
    "skresnet18", "res2net50_26w_4s", "resnest14d", "seresnet18", "eca_resnet33ts",
    "cspresnet50", "darknet53", "convmixer_768_32", "convnext_atto", "xception41p",
    "repvgg_a0", "rexnet_100", "tv:mc3_18", "tv:r2plus1d_18", "tv:shufflenet_v2_x0_5",
    "tv:googlenet",
)


def build(name):
    """Return a model without weights, in evaluation, some parameters frozen, and an input."""
    torch.manual_seed(0)
    if name.startswith("tv:"):
        video = name in ("tv:r3d_18", "tv:mc3_18", "tv:r2plus1d_18")
        options = {"init_weights": False} if name == "tv:googlenet" else {}
        model = torchvision.models.get_model(name[3:], weights=None, **options)
    else:
        video, model = False, timm.create_model(name, pretrained=False)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 > 0)
    shape = (1, 3, 8, 32, 32) if video else (1, 3, 96, 96)
    for module in model.modules():  # else batch norm in evaluation does nothing
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval(), torch.randn(shape, generator=torch.Generator().manual_seed(1))


def activations(model, x):
    """Return the model's output and how often each type of activation ran."""
    ran = Counter()
    handles = []
    for module in model.modules():
        home = type(module).__module__
        if home == "torch.nn.modules.activation" or home.startswith("timm.layers.activations"):
            handles.append(module.register_forward_hook(
                lambda module, *_: ran.update([type(module).__name__])))
    with torch.no_grad():
        out = model(x)
    for handle in handles:
        handle.remove()
    return out, ran


def frozen(model):
    return Counter(p.requires_grad for p in model.parameters())


def check(name, to):
    model, x = build(name)
    before, ran = activations(model, x)
    kept = frozen(model)
    seen = [found for module in model.modules() if (found := source_of(module, None)) is not None]
    if any(source.layout is None or source.obstacle for source in seen):
        with pytest.raises(ValueError, match=r"cannot be (known|replaced)"):
            convert(model, to)
        return
    report = convert(model, to)
    after, ran_after = activations(model, x)
    assert ran_after == ran
    assert frozen(model) == kept
    assert len(report.rows) == len(seen) > 0
    if to == "batch" and {row.source for row in report.rows} <= {
        "BatchNorm2d", "BatchNorm3d", "BatchNormAct2d"}:
        assert relative_error(after, before) < 1e-5
    else:
        assert after.isfinite().all()
        assert relative_error(after, before) > 1e-6


@pytest.mark.parametrize("to", ["instance", "batch"])
@pytest.mark.parametrize("name", SUITE)
def test_models(name, to):
    check(name, to)


@pytest.mark.long
@pytest.mark.parametrize("to", ["instance", "batch"])
@pytest.mark.parametrize("name", SLOW)
def test_many_models(name, to):
    check(name, to)


def test_what_stands_beside_a_norm_in_timms_is_kept_where_it_does_something():
    dropping = {"apply_act": False, "drop_layer": nn.Dropout2d}
    both = {"drop_layer": nn.Dropout2d}
    for options, kept in (({}, ["ReLU"]), (dropping, ["Dropout2d"]), (both, ["Dropout2d", "ReLU"])):
        model = nn.Sequential(timm.layers.BatchNormAct2d(4, **options))
        report = convert(model)
        assert [type(part).__name__ for part in model[0]] == ["InstanceNorm", *kept]
        assert f"affine kept, {', '.join(kept)} carried over" in str(report)
    model = nn.Sequential(timm.layers.BatchNormAct2d(4, apply_act=False))
    convert(model)
    assert type(model[0]).__name__ == "InstanceNorm"  # and neither of two nn.Identity


@pytest.mark.parametrize("name", [
    "BatchNormAct2d", "SyncBatchNormAct", "GroupNorm", "GroupNorm1", "GroupNormAct",
    "GroupNorm1Act", "LayerNorm2d", "LayerNormAct2d", "LayerNorm", "LayerNormAct",
    "FrozenBatchNormAct2d",
])  # fmt: skip
def test_what_is_known_of_timms_norms(name):
    kind = getattr(timm.layers, name)
    source = source_of(kind(4, 2) if name in ("GroupNorm", "GroupNormAct") else kind(4), None)
    last = name in ("LayerNorm", "LayerNormAct")
    assert (source.channels, source.obstacle) == (4, None)
    assert source.layout == (None if last else "channels first")


def test_an_activation_inside_a_norm_is_told_in_the_report():
    model = timm.create_model("efficientnet_b0", pretrained=False)
    inside = [m for m in model.modules() if type(m).__name__ == "BatchNormAct2d"
              and not isinstance(m.act, nn.Identity)]
    report = convert(model)
    assert len(inside) == 33
    assert sum("SiLU carried over" in line for line in str(report).splitlines()) == 33
