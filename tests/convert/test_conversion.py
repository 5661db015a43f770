"""geonorm.convert on real models: every converted norm against instance norm in float64."""

import copy
import pickle

import pytest
import torch
import torchvision
from conftest import relative_error
from torch import nn

import geonorm
from geonorm import BatchNorm, InstanceBatchNorm, InstanceNorm, convert
from geonorm.convert.conversion import Conversion, ConversionReport
from geonorm.convert.sources import source_of
from geonorm.inputs import read
from helpers.minkunet_cases import ME, MinkUNet14A, batch, scan
from helpers.models import randomized, small
from helpers.norm_family_cases import per_instance, sparse, standardized

EXACT = 1e-5


def by_hand(norm, x):
    """Return float64 instance norm of what went into a converted norm, its layout to be told."""
    weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
    if not isinstance(x, torch.Tensor):
        rows, index = read(x).features.double(), read(x).instance
        return per_instance(
            lambda part, _: standardized(part, eps=norm.eps), rows, index) * weight + bias
    channel = getattr(norm, "layout", "BC").index("C")
    axes = [dim for dim in range(1, x.ndim) if dim != channel]
    shape = [1] * x.ndim
    shape[channel] = -1
    return standardized(x.double(), axes, norm.eps) * weight.view(shape) + bias.view(shape)


def worst_error(model, names, x):
    """Run a model and return the largest error of any of its norms, and how many ran."""
    errors = []

    def hook(norm, inputs, output):
        exact = by_hand(norm, inputs[0])
        out = read(output).features
        errors.append(relative_error(out, exact))

    for name in names:
        model.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        model(x)
    return max(errors), len(errors)


def clips():
    return torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))


def test_torchvisions_r3d_18():
    torch.manual_seed(0)
    model = randomized(torchvision.models.video.r3d_18(num_classes=5)).eval()
    before = {name: module for name, module in model.named_modules()
              if isinstance(module, nn.BatchNorm3d)}
    report = convert(model)
    assert len(report.rows) == len(before) == 20
    assert {(row.source, row.target, row.affine) for row in report.rows} == {
        ("BatchNorm3d", "InstanceNorm", "kept")}
    for name, old in before.items():
        new = model.get_submodule(name)
        assert torch.equal(new.weight, old.weight)
        assert torch.equal(new.bias, old.bias)
    assert worst_error(model, before, clips())[0] < EXACT
    print(report)


def test_a_minkunet_of_minkowski_engines_own_norms():
    torch.manual_seed(0)
    norm = {"default": "batch", "decoder": ME.MinkowskiInstanceNorm}
    model = MinkUNet14A(3, 5, norm=norm)
    report = convert(model)
    kinds = {row.source for row in report.rows}
    assert kinds == {"MinkowskiBatchNorm", "MinkowskiInstanceNorm"}
    names = [row.name for row in report.rows]
    assert not any(type(module).__name__.endswith("BatchNorm") for module in model.modules())
    error, count = worst_error(model, names, batch(scan(), scan(200, seed=1)))
    assert error < EXACT
    assert count == len(names) > 20
    print(report)


def test_minkowski_engines_instance_norm_keeps_its_function():
    x = batch(scan())
    model = nn.Sequential(ME.MinkowskiInstanceNorm(3))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0, 3.0, 4.0]]))
    expected = model(x).F
    assert convert(model).rows[0].affine == "kept"
    assert relative_error(model(x).F, expected) < EXACT


def test_minkowski_engines_eps_is_carried_over():
    """Beside a variance of 1e-6 its eps of 1e-8 is a hundredth, torch's 1e-5 tenfold."""
    coordinates, features = scan()
    model = nn.Sequential(ME.MinkowskiInstanceNorm(3))
    x = batch((coordinates, 1e-3 * features), (coordinates, 3e-4 * features))
    expected = model(x).F
    convert(model)
    assert model[0].eps == 1e-8
    assert relative_error(model(x).F, expected) < EXACT
    for eps in (1e-5, 1e-12):
        model[0].eps = eps
        assert relative_error(model(x).F, expected) > 1e-3, eps


def test_a_small_spconv_net():
    spconv = pytest.importorskip("spconv.pytorch")
    torch.manual_seed(0)
    model = spconv.SparseSequential(
        spconv.SubMConv3d(6, 8, 3, bias=False, indice_key="a"), nn.BatchNorm1d(8), nn.ReLU(),
        spconv.SparseSequential(spconv.SparseConv3d(8, 4, 2, 2, bias=False), nn.BatchNorm1d(4)),
    ).eval()
    x = sparse("spconv")
    report = convert(model)
    assert [(row.name, row.source, row.target) for row in report.rows] == [
        ("1", "BatchNorm1d", "InstanceNorm"), ("3.1", "BatchNorm1d", "InstanceNorm")]
    again = pickle.loads(pickle.dumps(model))
    error, count = worst_error(model, ["1.norm", "3.1.norm"], x)
    assert error < EXACT
    assert count == 2
    with torch.no_grad():
        assert torch.equal(again(x).features, model(x).features)
    print(report)


def test_spconvs_residual_blocks_are_refused_by_name():
    pytest.importorskip("spconv.pytorch")

    class Block(nn.Module):  # as in most detectors: x.replace_feature(self.bn1(x.features))
        def __init__(self):
            super().__init__()
            self.bn1 = nn.BatchNorm1d(4)

    with pytest.raises(ValueError, match=r"1 norms \(BatchNorm1d\) cannot be known: bn1\. Pass"):
        convert(Block())


def test_swin3d_t_is_refused_until_it_is_told_the_axes():
    torch.manual_seed(0)
    model = torchvision.models.video.swin3d_t(num_classes=5).eval()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    with pytest.raises(ValueError, match=rf"{len(names)} norms \(LayerNorm\) cannot be known: "
                                         r"patch_embed\.norm, .* more\. Pass layout="):
        convert(model)
    with pytest.warns(UserWarning, match="'norm' stands beside the global pool 'avgpool'"):
        report = convert(model, layout="BTHWC")
    assert [row.name for row in report.rows] == names
    assert {row.target for row in report.rows} == {"AxisInstanceNorm"}
    x = torch.randn(1, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    error, count = worst_error(model, names, x)
    assert error < EXACT
    assert count == len(names)
    print(report)


@pytest.mark.parametrize(("where", "names"), [
    (None, ["1", "3.1", "5"]), ("3", ["3.1"]), ("?.1", ["3.1"]), (nn.GroupNorm, ["3.1"]),
    ((nn.GroupNorm, nn.BatchNorm3d), ["3.1"]), (slice(0, 2), ["1", "3.1"]),
    (slice(-1, None), ["5"]), (lambda name, norm: name > "3", ["3.1", "5"]),
    (["1", nn.GroupNorm], ["1", "3.1"]),
])
def test_where(where, names):
    model = small()
    assert [row.name for row in convert(model, where=where).rows] == names
    assert [n for n, m in model.named_modules() if isinstance(m, InstanceNorm)] == names


def test_the_name_of_a_stage_is_not_the_beginning_of_anothers():
    stages = ("layer1", "layer10")
    model = nn.ModuleDict({name: nn.Sequential(nn.BatchNorm2d(3)) for name in stages})
    assert [row.name for row in convert(model, where="layer1").rows] == ["layer1.0"]


@pytest.mark.parametrize(("to", "kind"), [
    ("batch", "BatchNorm"), ("ibn-a", "InstanceBatchNorm"), ("group", "GroupNorm"),
    ("layer", "LayerNorm"), ("divisive", "DivisiveNorm"), ("none", "NoNorm"),
    ("sync-batch", "SyncBatchNorm"), (lambda channels: nn.GroupNorm(1, channels), "GroupNorm"),
])
def test_every_target(to, kind):
    model = randomized(small()).eval()
    old = copy.deepcopy(model)
    report = convert(model, to)
    assert {row.target for row in report.rows} == {kind}
    assert {row.affine for row in report.rows} == {"none" if to == "none" else "kept"}
    x = torch.randn(2, 3, 12, 12)
    assert model(x).isfinite().all()
    if to in ("batch", "sync-batch"):
        for at in (1, 5):
            probe = torch.randn(2, old[at].num_features, 3, 3)
            assert torch.equal(model[at](probe), old[at](probe))
    if to == "ibn-a":
        assert isinstance(model[1], InstanceBatchNorm)
        assert torch.equal(torch.cat([model[1].instance.weight, model[1].batch.weight]),
                           old[1].weight)
        assert torch.equal(model[1].batch.running_mean, old[1].running_mean[4:])


def test_eps_mode_device_and_dtype_are_kept():
    model = nn.Sequential(nn.BatchNorm2d(4, eps=0.25, dtype=torch.float64)).eval()
    convert(model)
    assert model[0].eps == 0.25
    assert model[0].weight.dtype == torch.float64
    assert not model[0].training
    model = nn.Sequential(nn.BatchNorm2d(4, eps=0.25), ME.MinkowskiBatchNorm(4, 0.125, 0.3))
    convert(model, "ibn-a")
    assert [(norm.instance.eps, norm.batch.eps) for norm in model] == [(0.25,) * 2, (0.125,) * 2]
    assert [norm.batch.momentum for norm in model] == [0.1, 0.3]
    plain = nn.Sequential(nn.InstanceNorm2d(4))
    assert convert(plain).rows[0].affine == "fresh"


def test_a_norm_used_twice_stays_one():
    norm = nn.BatchNorm2d(3)
    model = nn.ModuleDict({"a": norm, "b": nn.Sequential(norm)})
    assert len(convert(model).rows) == 1
    assert model["a"] is model["b"][0]
    assert isinstance(model["a"], InstanceNorm)


def test_norms_within_norms_are_left_to_these_and_others_of_like_names_are_not():
    model = nn.Sequential(*(InstanceBatchNorm(4) for _ in range(11)))
    assert [row.name for row in convert(model).rows] == [str(number) for number in range(11)]


def test_norms_of_domains_are_left_alone():
    model = nn.Sequential(geonorm.DomainBatchNorm(4, num_domains=2), nn.BatchNorm2d(4))
    assert [row.name for row in convert(model).rows] == ["1"]


BAD = {
    "unknown name": (lambda: convert(small(), "instence"),
                     r"norm 'instence' is unknown; choose from \['batch', .*Did you mean 'instanc"),
    "no norms": (lambda: convert(nn.Sequential(nn.Conv2d(3, 3, 1))), "Sequential holds no norms"),
    "nothing there": (lambda: convert(small(), where="3.2"),
                      r"where='3\.2' matches none of the 3 norms, 1, 3\.1, 5\. Did you mean '3"),
    "itself": (lambda: convert(nn.BatchNorm2d(3)), "BatchNorm2d is itself a norm and cannot"),
    "layer norm": (lambda: convert(nn.Sequential(nn.LayerNorm(3))),
                   r"1 norms \(LayerNorm\) cannot be known: 0\. Pass layout="),
    "layout to another": (lambda: convert(nn.Sequential(nn.LayerNorm(3)), "group", layout="BTC"),
                          "layout= serves to='instance' alone; got to='group'"),
    "bad layout": (lambda: convert(nn.Sequential(nn.LayerNorm(3)), layout="BTT"),
                   "layout must name every dimension"),
    "no data": (lambda: convert(small(), data=[]), "must hold one input or more; got none"),
    "nothing to fit": (lambda: convert(small(), "none", data=[torch.ones(1, 3, 9, 9)]),
                       "recalibration needs norms with a weight .*NoNorm at '1' has none"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_other_refusals():
    with pytest.raises(TypeError, match=r"to must build a torch\.nn\.Module; got int"):
        convert(small(), lambda channels: channels)
    spconv = pytest.importorskip("spconv.pytorch")
    net = spconv.SparseSequential(nn.BatchNorm1d(6))
    with pytest.raises(ValueError, match=r"shows 0 features without .* leave data out"):
        convert(net, data=[sparse("spconv")])


def test_norms_that_tell_their_layout_need_none():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.LayerNorm(3))
    convert(model, layout="BHWC")
    assert [type(norm).__name__ for norm in model] == ["InstanceNorm", "AxisInstanceNorm"]
    assert (model[1].layout, model[1].axes) == ("BHWC", "HW")
    first, last = (geonorm.AxisInstanceNorm(3, layout=layout, axes="T") for layout in
                   ("BCT", "BTC"))  # fmt: skip
    assert convert(nn.Sequential(first), "batch").rows[0].target == "BatchNorm"
    with pytest.raises(ValueError, match=r"1 norms \(AxisInstanceNorm\) cannot be known"):
        convert(nn.Sequential(last), "batch")


def test_which_of_torchs_norms_tell_that_channels_come_first():
    first = (nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d,
             nn.InstanceNorm3d, lambda channels: nn.GroupNorm(2, channels))  # fmt: skip
    untold = (nn.BatchNorm1d, nn.SyncBatchNorm, nn.LayerNorm, nn.RMSNorm,
              lambda channels: nn.LayerNorm((5, channels)))  # fmt: skip
    for layout, kinds in (("channels first", first), (None, untold)):
        for kind in kinds:
            source = source_of(kind(4), None)
            assert (source.channels, source.layout, source.obstacle) == (4, layout, None), kind


def test_only_the_first_of_many_names_are_listed():
    model = nn.Sequential(*(nn.LayerNorm(3) for _ in range(8)))
    with pytest.raises(ValueError, match=r"8 norms .* known: 0, 1, 2, 3, 4, 5 and 2 more\. Pass"):
        convert(model)
    mixed = nn.Sequential(nn.LayerNorm(3), nn.BatchNorm1d(3), nn.LayerNorm(3))
    with pytest.raises(ValueError, match=r"3 norms \(BatchNorm1d, LayerNorm\) cannot be known"):
        convert(mixed)
    with pytest.raises(ValueError, match=r"6 norms .* known: 0, 1, 2, 3, 4, 5\. Pass"):
        convert(model, where=slice(0, 6))


def test_a_report_in_words():
    rows = (Conversion("a", "Old", "New", "kept", "hooks"),
            Conversion("long", "Old", "New", "fitted", change=0.375))  # fmt: skip
    assert str(ConversionReport(rows, 0.5, 0.25)).splitlines() == [
        "2 norms converted",
        "  a     Old -> New, affine kept, hooks carried over",
        "  long  Old -> New, affine fitted, changed by 0.38",
        "the model's output changed by 0.5 with the old affine parameters, by 0.25 with fitted "
        "ones",
    ]


def test_a_refused_conversion_changes_nothing():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.LayerNorm(3))
    with pytest.raises(ValueError, match="cannot be known"):
        convert(model)
    assert type(model[0]) is nn.BatchNorm2d
    convert(model, where="0")
    assert type(model[0]) is geonorm.InstanceNorm
    assert type(convert(nn.Sequential(BatchNorm(3))).rows) is tuple
