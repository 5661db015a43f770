"""The study of patch tokens: its patches, its mirror statements, and a mean that is the bias."""

import pytest
import torch
from torch import nn

from geonorm.norms.axis_instance_norm import AxisInstanceNorm
from geonorm.studies.outcome import Outcome
from geonorm.studies.report import as_page
from geonorm.studies.tokens import (
    CHANNEL,
    FRAMES,
    KEPT,
    SIDE,
    STUDY,
    TOKEN,
    VITS,
    WIDTH,
    Embedding,
    TokenNorm,
    VideoTransformer,
    by_patch,
    exact,
    swin,
    trained,
)
from helpers.studies import SETTING, of_docs, run_parts

MUTATED = SETTING._replace(variant="mutated")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_parts(STUDY, ("tokens",), 5, tmp_path_factory.mktemp("cache"))


def clips(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, FRAMES, SIDE, SIDE, dtype=torch.float64)


def test_a_gain_by_patch_is_a_gain_of_that_patch_and_of_its_token() -> None:
    x, gains = clips(1), torch.rand(1, 1, 3, 4, 4, dtype=torch.float64) + 0.5
    lit = by_patch(x, gains)
    torch.testing.assert_close(lit[0, :, 2:4, 8:16, 24:32],
                               x[0, :, 2:4, 8:16, 24:32] * gains[0, 0, 1, 1, 3])  # fmt: skip
    embed = Embedding().double()
    torch.testing.assert_close(embed(lit), embed(x) * gains.flatten()[None, :, None])


def test_tokens_are_patches_in_order() -> None:
    embed, x = Embedding().double(), clips()
    patch = x[1, :, 2:4, 8:16, 24:32]
    by_hand = (embed.map.weight * patch).sum((1, 2, 3, 4))
    torch.testing.assert_close(embed(x)[1, 1 * 16 + 1 * 4 + 3], by_hand)


@pytest.mark.parametrize(("name", "axis"), [("layer", 2), ("instance", 1), ("batch", (0, 1))])
def test_norms_of_tokens(name: str, axis: int | tuple[int, int]) -> None:
    x = torch.randn(3, 7, WIDTH, dtype=torch.float64) * 3 + 5
    variance, mean = torch.var_mean(x, axis, correction=0, keepdim=True)
    expected = (x - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(TokenNorm(name, SETTING).double()(x), expected)
    if name != "batch":
        other = {"layer": "instance", "instance": "layer"}[name]
        torch.testing.assert_close(TokenNorm(other, MUTATED).double()(x), expected)


def test_the_two_norms_mirror_each_other() -> None:
    layer, instance = exact("layer", SETTING), exact("instance", SETTING)
    assert layer[TOKEN] < 0.01 < 0.1 < instance[TOKEN]
    assert instance[CHANNEL] < 0.01 < 0.1 < layer[CHANNEL]
    assert layer["a gain by patch"] < 0.01 < 0.1 < instance["a gain by patch"]
    assert instance["an offset"] < 1e-6 < 0.1 < layer["an offset"]
    assert instance[KEPT] < 1e-9 < 0.1 < layer[KEPT]


def test_verdict_and_what_turns_it(short: Outcome) -> None:
    failed = [each.test.says for each in short.judge() if not each.passed]
    assert failed == [
        "as worded: instance norm over tokens takes the look out, a colour cast too"]
    assert {1, 2, 3, 4, 5, 6} <= {*short.turned("mutated")}
    assert {2, 5, 8} <= {*short.turned("broken")}


@pytest.mark.parametrize("kind", VITS)
def test_norms_of_the_transformer(kind: str) -> None:
    model = VideoTransformer(kind, SETTING)
    inner, last, _ = kind.split(", ")
    types = {"layer": nn.LayerNorm, "instance": AxisInstanceNorm}
    for layer in model.layers.layers:
        assert type(layer.norm1) is type(layer.norm2) is types[inner]
    assert type(model.layers.norm) is types[last]
    exchanged = VideoTransformer(kind, MUTATED)
    assert type(exchanged.layers.norm) is not types[last]


@pytest.mark.parametrize("kind", VITS)
def test_a_mean_behind_instance_norm_is_its_bias(kind: str) -> None:
    model = VideoTransformer(kind, SETTING).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        a, b = model(clips(1)), model(clips(1))
        if kind == "instance, instance, mean":
            expected = model.head(model.layers.norm.bias)
            torch.testing.assert_close(a[0], expected)
            torch.testing.assert_close(b[0], expected)
        else:
            assert (a - b).norm() / b.norm() > 0.01


@pytest.mark.long
def test_swin_that_ends_in_instance_norm_is_blind() -> None:
    torch.manual_seed(0)
    whole, rest = swin("instance", SETTING), swin("instance but for the last", SETTING)
    assert whole["how much clips differ"] < 1e-4 < 0.01 < rest["how much clips differ"]
    assert rest["an offset"] < 0.01


@pytest.mark.filterwarnings("default")  # Lightning warns about matters of its own
@pytest.mark.long
def test_training_ends_at_chance_behind_the_mean_of_an_instance_norm() -> None:
    torch.manual_seed(0)
    blind = trained("instance, instance, mean", SETTING)
    assert {*blind.values()} == {0.5}
    assert trained("instance, layer, mean", SETTING)["as trained"] > 0.8


def test_what_the_page_says() -> None:
    outcome = of_docs(STUDY)
    assert outcome.turned("mutated")
    assert outcome.turned("broken")
    assert "{" not in as_page(outcome)
    assert outcome.mean("trained", "as trained", "instance, instance, mean") == pytest.approx(0.5)
