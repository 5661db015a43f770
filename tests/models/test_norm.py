"""The `norm` argument shared by the backbones."""

import pytest
from torch import nn

from geonorm.models.norm import resolve

NAMES = {"batch": nn.BatchNorm1d, "none": lambda channels: nn.Identity()}
STAGES = {"stem": "stem", "layer1": "encoder", "layer2": "encoder"}


def build(norm, stage="layer1"):
    return resolve(norm, stage, 8, NAMES, STAGES)


def test_name_is_built_with_the_number_of_channels():
    assert build("batch").num_features == 8
    assert isinstance(build("none"), nn.Identity)


def test_callable_is_called_with_the_number_of_channels():
    assert build(lambda channels: nn.GroupNorm(2, channels)).num_channels == 8


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("stem", nn.GroupNorm), ("layer1", nn.BatchNorm1d), ("layer2", nn.Identity)],
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
    with pytest.raises(ValueError, match=r"choose from \['batch', 'none'\]$"):
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
