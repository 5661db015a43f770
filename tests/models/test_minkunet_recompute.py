"""recompute_activations on MinkUNet: the same bits of every gradient, about half the memory."""

import MinkowskiEngine as ME
import pytest
import torch
from torch import Tensor

from geonorm.models import MinkUNet14A, MinkUNet18, MinkUNet50
from geonorm.models.minkunet import MinkUNet
from geonorm.recompute import recompute_activations
from helpers.memory import kept_bytes


def voxels(side: int = 12) -> ME.SparseTensor:
    """Return two scans of three walls each."""
    grid = torch.cartesian_prod(torch.arange(2), *[torch.arange(side)] * 3).int()
    walls = grid[(grid[:, 1:] == 0).any(1)]
    features = torch.randn(len(walls), 4, generator=torch.Generator().manual_seed(3))
    return ME.SparseTensor(features, walls)


def gradients(model: MinkUNet, x: ME.SparseTensor) -> list[Tensor]:
    out = model(x).F
    wave = torch.arange(out.numel()).reshape(out.shape).sin()
    return [*torch.autograd.grad((out * wave).sum(), [*model.parameters()])]


@pytest.mark.parametrize("variant", [MinkUNet14A, MinkUNet50])
@pytest.mark.parametrize("norm", ["instance", "ibn-b", "group"])
def test_gradients_are_the_same_bits(variant, norm) -> None:
    torch.manual_seed(0)
    model, x = variant(4, 5, norm=norm), voxels(8)
    expected = gradients(model, x)
    with recompute_activations(model):
        actual = gradients(model, x)
    assert all(map(torch.equal, actual, expected))


def test_in_half_precision_too() -> None:
    torch.manual_seed(0)
    model, x = MinkUNet14A(4, 5), voxels(8)
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(model, x)
        with recompute_activations(model):
            assert all(map(torch.equal, gradients(model, x), expected))


def test_a_unet_keeps_little_more_than_half() -> None:
    model, x = MinkUNet18(4, 5), voxels(40)
    model(x)  # MinkowskiEngine's maps of these voxels stay from here on
    ordinary = kept_bytes(model, x)
    with recompute_activations(model):
        less = kept_bytes(model, x)
    assert less < 0.6 * ordinary


def test_convolutions_that_are_left_to_minkowski_engine_are_refused() -> None:
    model = MinkUNet14A(4, 5, convolution="minkowski")
    with pytest.raises(ValueError, match="which keeps its input"):
        recompute_activations(model)
