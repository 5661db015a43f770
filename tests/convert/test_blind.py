"""Instance norms beside a global mean are found, warned of, and truly let nothing through."""

import warnings

import pytest
import torch
import torchvision
from conftest import relative_error
from torch import nn

from geonorm import InstanceNorm, convert
from geonorm.norms.axis_instance_norm import SpatioTemporalInstanceNorm
from helpers.minkunet_cases import ME

SelectAdaptivePool2d = pytest.importorskip("timm.layers").SelectAdaptivePool2d


def ends_in(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers, nn.Linear(4, 2)).eval()


def depends(model: nn.Module) -> bool:
    """Tell whether a model's output differs between inputs."""
    torch.manual_seed(0)
    with torch.no_grad():
        a, b = model(torch.randn(1, 3, 8, 8)), model(torch.randn(1, 3, 8, 8))
    return relative_error(a, b) > 1e-5


def mean(size: int | tuple[int, int] = 1) -> nn.Module:
    return nn.AdaptiveAvgPool2d(size)


class Permute(nn.Module):
    """torchvision's, by another library."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 1, 3, 2)


BLIND = {
    "directly": (nn.BatchNorm2d(4), mean(), nn.Flatten()),
    "pair of ones": (nn.BatchNorm2d(4), mean((1, 1)), nn.Flatten()),
    "behind it": (mean(), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
    "dropout between": (nn.BatchNorm2d(4), nn.Dropout(), nn.Identity(), mean(), nn.Flatten()),
    "other dropouts between": (nn.BatchNorm2d(4), nn.Dropout2d(), nn.AlphaDropout(), mean(),
                               nn.Flatten()),
    "permuted between": (nn.BatchNorm2d(4), Permute(), mean(), nn.Flatten()),
    "end of a sequence": (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)), mean(), nn.Flatten()),
    "begin of a sequence": (mean(), nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten())),
    "behind a maximum": (nn.AdaptiveMaxPool2d((1, 1)), nn.BatchNorm2d(4), nn.Flatten()),
    "behind timm's": (SelectAdaptivePool2d(1, "max"), nn.BatchNorm2d(4), nn.Flatten()),
    "before timm's": (nn.BatchNorm2d(4), SelectAdaptivePool2d(1, "fast", flatten=True)),
    "before timm's mean": (nn.BatchNorm2d(4), SelectAdaptivePool2d(1, "avg", flatten=True)),
    "before timm's fast mean": (nn.BatchNorm2d(4), SelectAdaptivePool2d(1, "fastavg", True)),
    "timm's of nothing between": (nn.BatchNorm2d(4), SelectAdaptivePool2d(pool_type=""), mean(),
                                  nn.Flatten()),
    "both in sequences": (nn.Sequential(nn.BatchNorm2d(4)), nn.Sequential(mean(), nn.Flatten())),
}
SEEING = {
    "ReLU between": (nn.BatchNorm2d(4), nn.ReLU(), mean(), nn.Flatten()),
    "convolution between": (nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, bias=False), nn.ReLU(), mean(),
                            nn.Flatten()),
    "transposed convolution behind it": (mean(), nn.ConvTranspose2d(4, 4, 3), nn.BatchNorm2d(4),
                                         nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten()),
    "not global": (nn.BatchNorm2d(4), mean(2), nn.Flatten(), nn.Linear(16, 4)),
    "one axis": (nn.BatchNorm2d(4), mean((1, 2)), nn.Flatten(), nn.Linear(8, 4)),
    "before timm's maximum": (nn.BatchNorm2d(4), SelectAdaptivePool2d(1, "max", flatten=True)),
    "before timm's mean of both": (nn.BatchNorm2d(4), SelectAdaptivePool2d(1, "avgmax", "NCHW"),
                                   nn.Flatten()),
    "maximum": (nn.BatchNorm2d(4), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
}


@pytest.mark.parametrize("layers", BLIND.values(), ids=BLIND)
def test_a_norm_beside_a_global_mean_is_blind_and_warned_of(layers: tuple[nn.Module, ...]) -> None:
    model = ends_in(*layers)
    assert depends(model)
    with pytest.warns(UserWarning, match="stands beside the global pool") as caught:
        report = convert(model)
    assert not depends(model)
    (name,) = report.blind
    (text,) = report.warnings
    assert name == report.rows[0].name
    assert "Pool" in type(model.get_submodule(report.blind[name])).__name__
    assert text == str(caught[0].message) == str(report).splitlines()[-1]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("layers", SEEING.values(), ids=SEEING)
def test_any_other_norm_is_not_warned_of(layers: tuple[nn.Module, ...]) -> None:
    model = ends_in(*layers)
    report = convert(model)
    assert depends(model)
    assert not report.blind


def test_pools_of_every_number_of_axes() -> None:
    for axes, norm in ((1, nn.InstanceNorm1d(4)), (2, nn.BatchNorm2d(4)), (3, nn.BatchNorm3d(4))):
        average, maximum = (getattr(nn, f"Adaptive{kind}Pool{axes}d")(1) for kind in ("Avg", "Max"))
        dropout = getattr(nn, f"Dropout{axes}d")()
        for layers, blind in (((norm, average), {"0": "1"}), ((average, norm), {"1": "0"}),
                              ((norm, maximum), {}), ((maximum, norm), {"1": "0"}),
                              ((norm, dropout, average), {"0": "2"})):  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert convert(nn.Sequential(*layers)).blind == blind


def test_of_two_pools_the_one_behind_the_norm_is_named() -> None:
    model = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.BatchNorm2d(4), mean())
    with pytest.warns(UserWarning, match="'1' stands beside the global pool '2'"):
        assert convert(model).blind == {"1": "2"}


def test_norms_that_were_not_converted_are_not_warned_of() -> None:
    model = ends_in(nn.InstanceNorm2d(4), mean(), nn.Flatten())
    model.insert(1, nn.BatchNorm2d(4))
    assert not convert(model, where=nn.BatchNorm2d).blind


@pytest.mark.parametrize("to", ["group", "layer", "batch"])
def test_other_norms_see_beside_a_mean(to: str) -> None:
    assert not convert(ends_in(nn.BatchNorm2d(4), mean(), nn.Flatten()), to).blind


def test_a_norm_with_an_activation_of_its_own_sees() -> None:
    model = ends_in(InstanceNorm(4, activation="relu"), mean(), nn.Flatten())
    assert not convert(model).blind
    assert depends(model)


def test_other_instance_norms_are_blind_too() -> None:
    for to in (nn.InstanceNorm2d, lambda channels: nn.InstanceNorm2d(channels, affine=True)):
        with pytest.warns(UserWarning, match="stands beside the global pool"):
            assert convert(ends_in(nn.BatchNorm2d(4), mean(), nn.Flatten()), to).blind
    model = nn.Sequential(nn.BatchNorm3d(3), nn.AdaptiveAvgPool3d(1))
    with pytest.warns(UserWarning, match="stands beside the global pool '1'"):
        convert(model, lambda channels: SpatioTemporalInstanceNorm(channels, axes="T"))


def test_a_model_that_is_fitted_to_data_is_warned_of_as_well() -> None:
    model = ends_in(nn.BatchNorm2d(4), mean(), nn.Flatten())
    with pytest.warns(UserWarning, match="stands beside the global pool '2'"):
        report = convert(model, data=[torch.randn(2, 3, 8, 8)])
    assert report.blind == {"1": "2"}


def test_minkowski_engines_global_means() -> None:
    pytest.importorskip("MinkowskiEngine")
    for pool, blind in ((ME.MinkowskiGlobalAvgPooling(), True), (ME.MinkowskiGlobalPooling(), True),
                        (ME.MinkowskiGlobalMaxPooling(), False),
                        (ME.MinkowskiGlobalPooling(ME.PoolingMode.GLOBAL_MAX_POOLING_DEFAULT),
                         False)):  # fmt: skip
        model = nn.Sequential(ME.MinkowskiBatchNorm(4), pool)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = convert(model)
        assert bool(report.blind) == bool(caught) == blind
    for pool in (ME.MinkowskiGlobalMaxPooling(), ME.MinkowskiGlobalSumPooling()):
        with pytest.warns(UserWarning, match="stands beside the global pool '0'"):
            convert(nn.Sequential(pool, ME.MinkowskiBatchNorm(4)))


def test_torchvisions_networks() -> None:
    """The last norm of a Swin transformer and the first of ConvNeXt's classifier, and no other."""
    kinds = torchvision.models
    for build, layout, blind in (
        (kinds.resnet18, None, {}), (kinds.video.r3d_18, None, {}),
        (kinds.mobilenet_v3_small, None, {}), (kinds.densenet121, None, {}),
        (kinds.convnext_tiny, "BHWC", {"classifier.0": "avgpool"}),
        (kinds.swin_t, "BHWC", {"norm": "avgpool"}),
        (kinds.video.swin3d_t, "BTHWC", {"norm": "avgpool"}),
    ):  # fmt: skip
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert convert(build(), layout=layout).blind == blind, build
