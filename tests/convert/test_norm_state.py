"""Which keys of a state dict belong to norms: of the backbones and of every library's norms."""

import pytest
import timm.layers
import torch
import torchvision
from spconv.pytorch import SparseSequential
from torch import nn
from torch.nn.utils import parametrizations

import geonorm
from geonorm import norm_state
from geonorm.convert.norm_state import NormState
from geonorm.models import r3d_18
from geonorm.norms.activated import Activated
from geonorm.norms.base import Norm
from helpers.minkunet_cases import ME, MinkUNet14A

AFFINE = ("weight", "bias")
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


def of_one(norm: nn.Module) -> NormState:
    """Return the keys of a norm between two convolutions, without its prefix."""
    found = norm_state(nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 4, 1)))
    assert all(key.startswith("1.") for keys in found for key in keys)
    return NormState(*(tuple(key[2:] for key in keys) for keys in found))


ONES = [
    (nn.BatchNorm1d(4), AFFINE, RUNNING),
    (nn.BatchNorm3d(4, track_running_stats=False), AFFINE, ()),
    (nn.BatchNorm2d(4, affine=False), (), RUNNING),
    (nn.SyncBatchNorm(4), AFFINE, RUNNING),
    (nn.LazyBatchNorm2d(), AFFINE, RUNNING),
    (nn.InstanceNorm2d(4), (), ()),
    (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), AFFINE, RUNNING),
    (nn.GroupNorm(2, 4), AFFINE, ()),
    (nn.LayerNorm(4), AFFINE, ()),
    (nn.RMSNorm(4), ("weight",), ()),
    (torchvision.ops.FrozenBatchNorm2d(4), AFFINE, RUNNING[:2]),
    (geonorm.InstanceNorm(4), AFFINE, ()),
    (geonorm.InstanceNorm(4, affine=False), (), ()),
    (geonorm.AxisInstanceNorm(4, layout="BCHW", axes="HW"), AFFINE, ()),
    (geonorm.SpatioTemporalInstanceNorm(4), AFFINE, ()),
    (geonorm.GroupNorm(4, num_groups=2), AFFINE, ()),
    (geonorm.LayerNorm(4), AFFINE, ()),
    (geonorm.BatchNorm(4), AFFINE, RUNNING),
    (geonorm.SyncBatchNorm(4), AFFINE, RUNNING),
    (geonorm.RetinexNorm(4, surround="mean"), AFFINE, ()),
    (geonorm.AdaptiveInstanceNorm(4), (), ()),
    (geonorm.DomainInstanceNorm(4, num_domains=3), AFFINE, ()),
    (ME.MinkowskiInstanceNorm(4), AFFINE, ()),
    (ME.MinkowskiBatchNorm(4), ("bn.weight", "bn.bias"), tuple(f"bn.{x}" for x in RUNNING)),
    (timm.layers.BatchNormAct2d(4, act_layer=nn.PReLU), AFFINE, RUNNING),
    (timm.layers.RmsNorm2d(4), ("weight",), ()),
    (timm.layers.FilterResponseNormTlu2d(4), ("weight", "bias", "tau"), ()),
    (timm.layers.EvoNorm2dB0(4), ("weight", "bias", "v"), ("running_var",)),
    (Activated(nn.BatchNorm1d(4), 4), ("norm.weight", "norm.bias"),
     tuple(f"norm.{x}" for x in RUNNING)),
    (SparseSequential(nn.BatchNorm1d(4)), ("0.weight", "0.bias"),
     tuple(f"0.{x}" for x in RUNNING)),
]  # fmt: skip


@pytest.mark.parametrize(("norm", "parameters", "statistics"), ONES,
                         ids=[type(norm).__name__ for norm, _, _ in ONES])  # fmt: skip
def test_norms_of_every_library(
    norm: nn.Module, parameters: tuple[str, ...], statistics: tuple[str, ...]
) -> None:
    found = of_one(norm)
    assert sorted(found.parameters) == sorted(parameters)
    assert sorted(found.statistics) == sorted(statistics)


@pytest.mark.filterwarnings("default")  # torch_geometric's import warns of a matter of its own
def test_norms_of_torch_geometric() -> None:
    nn_of_pyg = pytest.importorskip("torch_geometric.nn")
    assert of_one(nn_of_pyg.GraphNorm(4)) == (("weight", "bias", "mean_scale"), ())
    batch = of_one(nn_of_pyg.BatchNorm(4))
    assert batch.parameters == ("module.weight", "module.bias")
    assert batch.statistics == tuple(f"module.{name}" for name in RUNNING)
    assert of_one(nn_of_pyg.HeteroBatchNorm(4, 2)) == (AFFINE, RUNNING)
    # An attention whose module is called a norm's.
    polynormer = nn_of_pyg.attention.PolynormerAttention(4, heads=1)
    assert of_one(polynormer).parameters == tuple(
        key for key in polynormer.state_dict() if key.startswith("lns.")
    )


def test_norms_of_several_parts() -> None:
    both = of_one(geonorm.InstanceBatchNorm(4))
    assert both.parameters == ("instance.weight", "instance.bias", "batch.weight", "batch.bias")
    assert both.statistics == tuple(f"batch.{name}" for name in RUNNING)
    domains = of_one(geonorm.DomainBatchNorm(4, num_domains=2))
    assert domains.statistics == tuple(f"norms.{i}.{name}" for i in (0, 1) for name in RUNNING)
    assert len(domains.parameters) == 4
    divisive = geonorm.DivisiveNorm(4, num_groups=2)
    assert of_one(divisive) == (tuple(divisive.state_dict()), ())


def of_kinds(model: nn.Module, *kinds: type[nn.Module]) -> set[str]:
    """Return the keys of the modules of some types, found in another way."""
    return {f"{name}.{key}" for name, module in model.named_modules()
            if isinstance(module, kinds) for key in module.state_dict()}  # fmt: skip


@pytest.mark.parametrize("norm", ["batch", "instance", "ibn-a", "ibn-b", "group", "layer"])
def test_minkunet(norm: str) -> None:
    model = MinkUNet14A(4, 5, norm=norm)
    found = norm_state(model)
    expected = of_kinds(model, Norm, ME.MinkowskiBatchNorm)
    assert {*found.parameters, *found.statistics} == expected
    assert len(expected) > 50
    assert bool(found.statistics) == (norm in ("batch", "ibn-a", "ibn-b"))
    order = [*model.state_dict()]
    for keys in found:
        assert [*keys] == sorted(keys, key=order.index)


def test_minkunet_of_minkowski_engines_norms() -> None:
    model = MinkUNet14A(4, 5, norm={"default": ME.MinkowskiBatchNorm,
                                    "decoder": ME.MinkowskiInstanceNorm})  # fmt: skip
    found = norm_state(model)
    assert {*found.parameters, *found.statistics} == of_kinds(
        model, ME.MinkowskiBatchNorm, ME.MinkowskiInstanceNorm
    )
    assert all(".bn.running_" in key or key.endswith(".bn.num_batches_tracked")
               for key in found.statistics)  # fmt: skip
    assert found.statistics


@pytest.mark.parametrize("make", [lambda: r3d_18(norm="batch"), torchvision.models.video.r3d_18])
def test_r3d_18(make) -> None:
    """Batch norms are the vectors in it but for the last layer's bias."""
    model = make()
    found, state = norm_state(model), model.state_dict()
    assert {*found.parameters} == {
        key for key, value in state.items()
        if value.ndim == 1 and "running" not in key and key != "fc.bias"
    }  # fmt: skip
    assert {*found.statistics} == {key for key in state if key.rpartition(".")[2] in RUNNING}
    assert len(found.parameters) == 40
    assert len(found.statistics) == 60


def test_fedbn_and_silobn_leave_with_a_client_what_they_should() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    for number, value in enumerate(other.state_dict().values()):
        value.fill_(number + 5)
    before, found = {k: v.clone() for k, v in model.state_dict().items()}, norm_state(model)
    for local in ({*found.statistics}, {*found.parameters, *found.statistics}):
        model.load_state_dict(before)
        shared = {k: v for k, v in other.state_dict().items() if k not in local}
        model.load_state_dict(shared, strict=False)
        for key, value in model.state_dict().items():
            expected = before[key] if key in local else other.state_dict()[key]
            assert torch.equal(value, expected), key


def test_a_norm_under_two_names_a_parametrized_one_and_a_wrapped_model() -> None:
    norm = nn.BatchNorm2d(4)
    assert len(norm_state(nn.ModuleDict({"a": norm, "b": norm})).statistics) == 6
    assert norm_state(norm).parameters == AFFINE
    bound = parametrizations.spectral_norm(nn.InstanceNorm1d(4, affine=True), "weight")
    assert {*of_one(bound).parameters} == {*bound.state_dict()}
    # What bounds a convolution's weight is called a norm and is none.
    assert norm_state(parametrizations.spectral_norm(nn.Conv2d(3, 4, 1))) == ((), ())
    compiled = torch.compile(nn.Sequential(nn.BatchNorm2d(4)))
    assert norm_state(compiled).parameters == ("_orig_mod.0.weight", "_orig_mod.0.bias")


class Homemade(nn.Module):
    """A norm of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4))
        self.inner = nn.Linear(4, 4)


class Estimated(Homemade):
    """The same with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.ones(4))


def test_norms_of_ones_own() -> None:
    model = nn.Sequential(Homemade(), nn.Linear(4, 4))
    assert norm_state(model) == ((), ())
    assert norm_state(model, also=(Homemade,)).parameters == (
        "0.gain", "0.inner.weight", "0.inner.bias"
    )  # fmt: skip
    assert of_one(Estimated()) == (("gain",), RUNNING[:2])
    centred = Homemade()
    centred.register_buffer("running_mean", torch.zeros(4))
    assert of_one(centred) == ((), ())


def test_statistics_that_are_not_saved_are_no_keys() -> None:
    norm = nn.BatchNorm2d(4)
    norm._non_persistent_buffers_set.update(RUNNING)
    assert of_one(norm) == (AFFINE, ())


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a model, .* got OrderedDict"):
        norm_state(nn.BatchNorm2d(4).state_dict())  # type: ignore[arg-type]
    for also in ([Homemade], (Homemade(),), Homemade, (int,)):
        with pytest.raises(TypeError, match="also must be a tuple of types of modules"):
            norm_state(nn.BatchNorm2d(4), also)  # type: ignore[arg-type]
