"""`--model.compile` of train_action.py: the same weights under the same names, compiled."""

import pytest
import torch
from conftest import TOLERANCES, relative_error

from geonorm.training.action.module import ActionModule
from geonorm.training.invariance.plain import clips

CLASSES = ["up", "down", "left", "right"]


def module(compile):
    torch.manual_seed(0)
    return ActionModule("resnet3d_10", compile=compile, classes=CLASSES).eval()


def test_the_names_of_the_weights_stay_and_the_option_travels():
    plain, compiled = module("no"), module("reduce-overhead")
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    assert compiled.hparams["compile"] == "reduce-overhead"
    # What nn.Module.compile leaves behind; without it a call would run the plain network.
    assert compiled.model._compiled_call_impl is not None
    assert plain.model._compiled_call_impl is None


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_a_compiled_network_gives_what_the_plain_one_gives():
    video = clips(0, 2, 8, 64)[0]
    with torch.no_grad():
        expected, actual = module("no")(video), module("default")(video)
    assert relative_error(actual, expected) <= TOLERANCES["logits"]
