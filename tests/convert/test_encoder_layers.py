"""torch's transformer encoders, which in inference hand their norms' weights to a fused kernel."""

import copy

import pytest
import torch
from conftest import relative_error
from torch import nn
from torch.nn import functional as F

from geonorm import convert


def encoder_layer(*, norm_first: bool) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True, norm_first=norm_first)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer.eval()


def by_hand(layer: nn.TransformerEncoderLayer, x: torch.Tensor) -> torch.Tensor:
    """Return a layer's output with instance norms over the tokens, through torch's own norm."""

    def norm(module, x):
        out = F.instance_norm(x.transpose(1, 2), weight=module.weight, bias=module.bias)
        return out.transpose(1, 2)

    def feed(x):
        return layer.linear2(layer.linear1(x).relu())

    def attend(x):
        return layer.self_attn(x, x, x, need_weights=False)[0]

    if layer.norm_first:
        x = x + attend(norm(layer.norm1, x))
        return x + feed(norm(layer.norm2, x))
    x = norm(layer.norm1, x + attend(x))
    return norm(layer.norm2, x + feed(x))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("which", ["norm1", "norm2", None])
def test_torchs_encoder_layer_calls_its_new_norms_in_inference(norm_first, which):
    layer = encoder_layer(norm_first=norm_first)
    x = torch.randn(3, 7, 16)
    old = copy.deepcopy(layer)
    convert(layer, layout="BNC", where=which)
    with torch.no_grad():
        fast, before = layer(x), old(x)
    torch.testing.assert_close(fast, layer(x))
    assert relative_error(fast, before) > 0.05
    if which is None:
        torch.testing.assert_close(fast, by_hand(layer, x))


def test_torchs_encoder_layer_is_left_as_it_is_where_no_norm_changes():
    model = nn.Sequential(encoder_layer(norm_first=False), encoder_layer(norm_first=False))
    convert(model, layout="BNC", where="0.*")
    assert (model[0].activation_relu_or_gelu, model[1].activation_relu_or_gelu) == (0, 1)


def test_torchs_encoder_packs_no_padded_sequences_for_new_norms():
    model = nn.TransformerEncoder(encoder_layer(norm_first=False), 2).eval()
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[0, 5:] = True
    x = torch.randn(2, 7, 16)
    assert model.use_nested_tensor
    convert(model, layout="BNC")
    with torch.no_grad():
        fast = model(x, src_key_padding_mask=padding)
    torch.testing.assert_close(fast, model(x, src_key_padding_mask=padding))
    assert fast.shape == (2, 7, 16)


def test_an_encoder_without_new_norms_goes_on_packing():
    encoders = [nn.TransformerEncoder(encoder_layer(norm_first=False), 2) for _ in range(2)]
    model = nn.ModuleList(encoders)
    convert(model, layout="BNC", where="0.layers.1.*")
    assert [encoder.use_nested_tensor for encoder in encoders] == [False, True]
