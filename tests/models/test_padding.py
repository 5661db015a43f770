"""What convolutions of 3D-ResNets see beyond the edge of a clip, and what that lets through."""

import pytest
import torch
from conftest import relative_error
from torch import nn
from torch.nn import functional as F

from geonorm.models import mc3_18, r2plus1d_18, r3d_18, resnet3d
from geonorm.recompute import recompute_activations
from geonorm.training.action.module import ActionModule

NETWORKS = {"r3d_18": r3d_18, "mc3_18": mc3_18, "r2plus1d_18": r2plus1d_18,
            "resnet3d(10)": lambda *args, **options: resnet3d(10, *args, **options)}  # fmt: skip

# Of these clips one position is left at the last stage, of which instance norm makes its bias.
SPARED = {"default": "instance", "layer4": "none"}


def clips(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_padded_convolution_repeats_the_edge(name):
    model = NETWORKS[name](5, padding_mode="replicate")
    padded = [m for m in model.modules() if isinstance(m, nn.Conv3d) and any(m.padding)]
    assert padded
    bare = [m for m in model.modules() if isinstance(m, nn.Conv3d) and not any(m.padding)]
    assert {conv.padding_mode for conv in bare} == {"zeros"}
    for conv in padded:
        x = torch.randn(1, conv.in_channels, 2, 9, 9)
        t, h, w = conv.padding
        wider = F.pad(x, (w, w, h, h, t, t), mode="replicate")
        expected = F.conv3d(wider, conv.weight, stride=conv.stride)
        assert relative_error(conv(x), expected) < 1e-5
        zeros = F.conv3d(x, conv.weight, stride=conv.stride, padding=conv.padding)
        assert relative_error(zeros, expected) > 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_zeros_are_the_default_and_the_weights_are_the_same(name):
    torch.manual_seed(0)
    plain = NETWORKS[name](5)
    torch.manual_seed(0)
    repeated = NETWORKS[name](5, padding_mode="replicate")
    assert all(m.padding_mode == "zeros" for m in plain.modules() if isinstance(m, nn.Conv3d))
    for (key, a), (other, b) in zip(plain.state_dict().items(), repeated.state_dict().items(),
                                    strict=True):  # fmt: skip
        assert key == other
        assert torch.equal(a, b)
    repeated.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("name", NETWORKS)
def test_an_offset_passes_zeros_and_not_repeated_edges(name):
    torch.manual_seed(0)
    plain = NETWORKS[name](5, SPARED).eval()
    torch.manual_seed(0)
    repeated = NETWORKS[name](5, SPARED, padding_mode="replicate").eval()
    x = clips()
    with torch.no_grad():
        assert relative_error(repeated(x + 3), repeated(x)) < 1e-3
        assert relative_error(plain(x + 3), plain(x)) > 0.05


def test_recomputing_gives_the_same_gradients_with_repeated_edges():
    torch.manual_seed(0)
    model = resnet3d(10, 5, SPARED, width=8, padding_mode="replicate")
    found = []
    for _ in range(2):
        model.zero_grad()
        model(clips()).square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters()])
        recompute_activations(model)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(g.any() for g in found[0])


def test_training_takes_the_mode_and_others_are_refused():
    module = ActionModule("resnet3d_slim", padding_mode="replicate", classes=["a", "b"])
    assert module.model.conv1.padding_mode == "replicate"
    assert module.hparams["padding_mode"] == "replicate"
    with pytest.raises(ValueError, match="padding_mode must be one of zeros, replicate; got 'edge"):
        r3d_18(5, padding_mode="edge")
