"""The `norm` argument shared by the backbones."""

import pytest
import torch
from torch import nn

from geonorm import BatchNorm, InstanceNorm
from geonorm.models.norm import norm_act, resolve
from geonorm.norms.no_norm import NoNorm
from geonorm.norms.registry import NORMS, PLACED

STAGES = {"stem": "stem", "layer1": "encoder", "layer2": "encoder"}


def build(norm, stage="layer1", **options):
    return resolve(norm, stage, 8, STAGES, **options)


def test_name_is_built_with_the_number_of_channels():
    assert build("batch").num_features == 8
    assert build("batch").activation is None
    assert type(build("ibn-a")) is BatchNorm
    assert isinstance(build("none"), NoNorm)


def test_callable_is_called_with_the_number_of_channels():
    assert build(lambda channels: nn.GroupNorm(2, channels)).num_channels == 8


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("stem", nn.GroupNorm), ("layer1", BatchNorm), ("layer2", NoNorm)],
)
def test_mapping_prefers_the_stage_then_its_group_then_the_default(stage, kind):
    norm = {
        "default": lambda channels: nn.GroupNorm(1, channels),
        "encoder": "batch",
        "layer2": "none",
    }
    assert isinstance(build(norm, stage), kind)


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"norm 'bach' is unknown; .*Did you mean 'batch'\?"):
        build("bach")


def test_unknown_name_far_from_all_lists_them_without_a_guess():
    with pytest.raises(ValueError, match=r"choose from \['batch', 'divisive', .*'sync-batch'\]$"):
        build("zzz")


def test_unknown_stage_is_refused_even_when_another_key_matches():
    with pytest.raises(ValueError, match=r"no stage 'encodr'; .*Did you mean 'encoder'\?"):
        build({"layer1": "batch", "encodr": "none"})


def test_unknown_name_inside_a_mapping_is_refused():
    with pytest.raises(ValueError, match="norm 'bacth' is unknown"):
        build({"default": "bacth"})


def test_mapping_that_leaves_the_stage_out_is_refused():
    with pytest.raises(ValueError, match=r"nothing about stage 'layer1'; add 'encoder' or 'def"):
        build({"stem": "batch"})


@pytest.mark.parametrize("norm", [None, 3, {"default": {"stem": "batch"}}])
def test_other_kinds_are_refused(norm):
    with pytest.raises(TypeError, match="norm must be a name, a callable"):
        build(norm)


def test_callable_must_return_a_module():
    with pytest.raises(TypeError, match=r"must return a torch\.nn\.Module .* returned int"):
        build(lambda channels: channels)


def test_an_activation_goes_to_the_norms_of_this_library_alone():
    assert build("instance", activation="relu").activation == "relu"
    assert not hasattr(build(lambda channels: nn.GroupNorm(1, channels), activation="relu"),
                       "activation")
    with pytest.raises(ValueError, match="InstanceNorm with activation='leaky_relu'; the network"):
        build(lambda channels: InstanceNorm(channels, activation="leaky_relu"), activation="relu")


@pytest.mark.parametrize("norm", [*NORMS, lambda channels: nn.GroupNorm(2, channels)])
def test_a_norm_with_its_relu_is_the_same_in_one_pass_or_in_three(norm):
    x, y = torch.randn(2, 3, 8, 5, 5)
    for residual in (None, y):
        torch.manual_seed(1)
        fused, plain = build(norm, activation="relu"), build(norm)
        out = norm_act(fused, x, residual)
        expected = plain(x) if residual is None else plain(x) + y
        assert torch.allclose(out, expected.relu(), atol=1e-6)
        assert (out == 0).any()


def test_every_name_is_in_one_table():
    assert {"ibn-a", "ibn-b", *NORMS} == {*NORMS, *PLACED}
    assert {placed.default for placed in PLACED.values()} <= {*NORMS}
