"""The study of federated learning: averaging by hand, what is exact, verdicts of variants."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import geonorm
from geonorm.studies import federated, federated_clients, federated_rounds
from geonorm.studies.broken import broken_instance_norm
from geonorm.studies.federated_rounds import federate, keys_kept, train_locally, weighted_mean
from geonorm.studies.point_nets import mean_iou
from geonorm.studies.report import as_page
from geonorm.studies.study import Setting, Variant
from geonorm.studies.training import cross_entropy
from helpers.studies import NOTHING, of_docs, run_apart


def setting(variant: Variant = "claimed", seed: int = 0) -> Setting:
    torch.manual_seed(seed)
    return Setting(seed, variant, NOTHING)


def test_mean_is_weighted_by_hand() -> None:
    states = {3: {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(7)},
              1: {"w": torch.tensor([5.0, 10.0]), "n": torch.tensor(6)}}  # fmt: skip
    mean = weighted_mean(states, {1: 1, 3: 3, 8: 100})
    assert mean["w"].tolist() == [2.0, 4.0]
    assert mean["n"].tolist() == 7  # 6.75, rounded
    assert mean["w"].dtype == torch.float32
    assert mean["n"].dtype == torch.int64


def test_mean_does_not_depend_on_who_answers_first() -> None:
    """In float32, in the order of arrival, it would: a large number hides small ones."""
    values = torch.tensor([1e8, -1e8, 1.0, 0.5])
    states = {number: {"w": value} for number, value in enumerate(values)}
    counts = dict.fromkeys(states, 1)
    forward = weighted_mean(states, counts)["w"]
    backward = weighted_mean(dict(reversed(states.items())), counts)["w"]
    assert torch.equal(forward, backward)
    torch.testing.assert_close(forward, values.double().mean().float(), rtol=1e-6, atol=0)


def test_a_client_that_drops_out_is_left_out() -> None:
    states = {n: {"w": torch.tensor(float(n))} for n in range(3)}
    counts = {0: 1, 1: 5, 2: 3}
    del states[1]
    assert weighted_mean(states, counts)["w"].item() == pytest.approx(6 / 4)


def test_means_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="state dict of one client or more; got none"):
        weighted_mean({}, {})
    one = {"w": torch.zeros(2)}
    for counts in ({0: 1}, {0: 1, 1: 0}):
        with pytest.raises(ValueError, match=r"number of examples above 0 .* none for \[1\]"):
            weighted_mean({0: one, 1: one}, counts)
    with pytest.raises(ValueError, match="clients 0 and 2 have different keys"):
        weighted_mean({0: one, 1: one, 2: {"v": torch.zeros(2)}}, {0: 1, 1: 1, 2: 1})


def two_clients(keep: federated_rounds.Keep) -> tuple[nn.Module, federated_rounds.Trained]:
    """Train a batch norm and a layer for two rounds at clients of other offsets."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), geonorm.BatchNorm(4), nn.Linear(4, 2))
    draws: list[Callable[[], Any]] = [
        lambda offset=offset: (torch.randn(8, 3) + offset, torch.randint(2, (8,)))
        for offset in (0.0, 3.0)
    ]  # type: ignore[misc]
    return model, federate(model, draws, [1, 3], cross_entropy, rounds=2,
                           steps=2, keep=keep)  # fmt: skip


@pytest.mark.parametrize("keep", ["nothing", "statistics", "norms"])
def test_what_clients_keep_stays_and_the_rest_is_the_mean(keep: federated_rounds.Keep) -> None:
    model, trained = two_clients(keep)
    kept = keys_kept(model, keep)
    norms = {f"1.{name}" for name in model[1].state_dict()}
    assert kept == {"nothing": set(), "norms": norms,
                    "statistics": norms - {"1.weight", "1.bias"}}[keep]  # fmt: skip
    mean = weighted_mean(dict(enumerate(trained.apart)), {0: 1, 1: 3})
    for state, apart in zip(trained.states, trained.apart, strict=True):
        for key, value in state.items():
            assert torch.equal(value, apart[key] if key in kept else mean[key]), key
    differ = {key for key in kept if not torch.equal(*(s[key] for s in trained.states))}
    assert differ == kept - {"1.num_batches_tracked"}
    assert trained.states[0]["1.num_batches_tracked"] == 4


def test_the_rate_falls_and_the_optimizer_is_new_in_each_round() -> None:
    """Of plain descent on w, with gradient 1, the way is the sum of the rates."""
    model = nn.Linear(1, 1, bias=False)
    start = model.weight.item()
    trained = federate(model, [lambda: None], [1], lambda net, _: net.weight.sum(), rounds=4,
                       steps=3, rate=0.1, optimizer=torch.optim.SGD)  # fmt: skip
    way = 3 * 0.1 * (1 + 0.75 + 0.5 + 0.25)
    assert trained.states[0]["weight"].item() == pytest.approx(start - way, abs=1e-5)
    torch.manual_seed(0)
    one = nn.Linear(1, 1, bias=False)
    begin = one.weight.item()
    for _ in range(2):  # AdamW's first step is the rate, but for the decay of 0.01
        train_locally(one, lambda: None, lambda net, _: net.weight.sum() ** 3, steps=1, rate=0.1)
    expected = (begin * (1 - 1e-3) - 0.1) * (1 - 1e-3) - 0.1
    assert one.weight.item() == pytest.approx(expected, abs=1e-4)


def test_averaged_statistics_follow_from_the_clients() -> None:
    batch = federated.averaged("batch", setting())
    assert batch["the same over its closed form"] == pytest.approx(1, abs=0.01)
    assert batch["a client's mean, farthest from 0"] > 0.5
    assert batch["mean of variances over variance of all"] < 0.9
    assert federated.averaged("instance", setting())["a client's mean, farthest from 0"] < 1e-9
    assert federated.averaged("instance", setting("mutated")) == batch


@pytest.mark.parametrize("column", ["group", "instance"])
def test_one_step_a_round_is_training_on_everything(column: str) -> None:
    assert federated.one_step(column, setting())["difference"] < 1e-9


def test_batch_statistics_are_those_of_a_client() -> None:
    assert federated.one_step("batch", setting())["difference"] > 0.01
    mutated = federated.one_step("instance", setting("mutated"))
    assert mutated == federated.one_step("batch", setting())
    with broken_instance_norm():
        assert federated.one_step("instance", setting("broken"))["difference"] > 1e-3


def test_quick_verdict(tmp_path: Path) -> None:
    outcome = run_apart(federated.STUDY, 1, tmp_path, quick=True)
    assert outcome.verdict() == "holds (16 of 21 tests not judged)"
    assert outcome.turned("mutated") == [3, 4]
    assert outcome.turned("broken") == [4]


def test_sensors_differ_in_what_they_say() -> None:
    """The same streets: places of points as they are, intensities by another formula."""
    plain, other = federated_clients.SENSORS[0], federated_clients.SENSORS[2]
    (a, labels), (b, same) = (federated_clients.scans(sensor, 2, 3).tensors
                              for sensor in (plain, other))  # fmt: skip
    assert a.shape == (2, 4, federated_clients.POINTS)
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert torch.equal(labels, same)
    # gain · signal ** response + offset, but for noise and the drifts, which are the same draws.
    assert torch.corrcoef(torch.stack([a[0, 3], b[0, 3]]))[0, 1] > 0.9
    # With responses of 1/2 and 1 the other's is the plain one's square: no straight line.
    inside = (a[0, 3] < 0.95) & (a[0, 3] > 0.1)
    square = np.polyfit(a[0, 3][inside].numpy(), b[0, 3][inside].numpy(), 2)[0]
    assert 0.15 < square < 0.7


def test_new_beams_are_those_of_another_sensor() -> None:
    new = federated_clients.NEW_SENSORS[1]
    points = federated_clients.scans(new, 1, 0).tensors[0][0, :3]
    rise = torch.rad2deg(torch.asin(points[2] / points.norm(dim=0)))
    steps = (rise + 28) / 30 * (new.beams - 1)
    assert (steps - steps.round()).abs().max() < 1e-2


def test_cameras_film_and_labels_are_skewed() -> None:
    clips, labels = federated_clients.differences(federated_clients.CAMERAS[0], 20, 0, 0.95).tensors
    assert clips.shape == (20, 3, 5, 24, 24)
    assert labels.tolist() == [0] * 19 + [1]
    camera = federated_clients.Camera(1.0, 0.5, 2.0, (1.0, 0.5, 1.0))
    filmed = federated_clients.differences(camera, 20, 0, 0.95).tensors[0]
    plain = federated_clients.drawn_clips(40, 6, 24, 0, federated_clients.DIRECTIONS)[0][0]
    by_hand = (plain**2 * torch.tensor([1, 0.5, 1]).view(3, 1, 1, 1) + 0.5).clamp(0, 1)
    torch.testing.assert_close(filmed[0], by_hand[:, 1:] - by_hand[:, :-1])


class Said(nn.Module):
    """Scores of a classification that is given."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x, 4).movedim(-1, 1).float()


def test_scores_by_hand() -> None:
    truth = torch.tensor([[0, 0, 1, 1, 2, 2]])
    said = torch.tensor([[0, 0, 1, 3, 2, 1]])
    # 2/2; 1 of 1, 1 and the wrong 1; 1 of 2, 2; class 3 does not occur
    data = TensorDataset(said, truth)
    assert mean_iou(Said(), data) == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert federated_clients.accuracy(Said(), data) == pytest.approx(4 / 6)


def test_spread_by_hand() -> None:
    norm = geonorm.BatchNorm(2)
    states = []
    for weight, mean in ((1.0, 0.0), (3.0, 4.0)):
        state = {key: value.clone() for key, value in norm.state_dict().items()}
        state["weight"].fill_(weight)
        state["running_mean"].fill_(mean)
        state["running_var"].fill_(4.0)
        states.append(state)
    found = federated._spread(norm, federated_rounds.Trained(states, states))
    assert found == {"spread of weights and biases": 0.5, "spread of running means": 1.0}


def test_statistics_of_a_new_sensor_are_estimated() -> None:
    norm = nn.Sequential(geonorm.BatchNorm(3))
    features = torch.randn(4, 3, 50) * 5 + 2
    federated._estimate(norm, features)
    torch.testing.assert_close(norm[0].running_mean, features.mean((0, 2)))
    assert norm[0].momentum == 0.1


@pytest.mark.long
def test_sensors_cost_batch_norm_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """With half the rounds, at one seed."""
    monkeypatch.setattr(federated, "ROUNDS", 10)
    federated.trained_on.cache_clear()
    lost = {column: federated.alike(column, setting())["lost to the sensors' differences"]
            for column in ("batch", "instance")}  # fmt: skip
    assert lost["batch"] > lost["instance"]
    assert federated.sensors("instance", setting("mutated")) == federated.sensors(
        "batch", setting()
    )
    federated.trained_on.cache_clear()


def test_what_the_page_says() -> None:
    outcome = of_docs(federated.STUDY)
    assert {*outcome.turned("mutated")} >= {3, 4}
    assert outcome.turned("broken")
    assert "{" not in as_page(outcome)
