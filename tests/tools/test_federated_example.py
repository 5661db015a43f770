"""The federated example: its options, clients of one's own, and Flower's averaging."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import federated
import pytest
import torch
from torch import nn

from geonorm.studies.federated_rounds import State, weighted_mean

ROOT = Path(__file__).resolve().parents[2]
MINE = '''
import torch
from torch.utils.data import TensorDataset
import geonorm

def network():
    # Without a bias before the norm: its gradient is rounding, which AdamW makes a step of.
    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1, bias=False), geonorm.BatchNorm(3),
                               torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                               torch.nn.Linear(3, 2))

def read(offset, count):
    generator = torch.Generator().manual_seed(count)
    x, y = torch.randn(count, 2, 4, 4, generator=generator) + offset, torch.arange(count) % 2
    return TensorDataset(x, y), TensorDataset(x[:4], y[:4])

def clients():
    return {"a": lambda: read(0, 6), "b": lambda: read(5, 9), "c": lambda: read(-3, 14)}
'''
CONFIG = {"keep": "nothing", "steps": 3, "batch_size": 4, "rate": 0.01, "seed": 5, "drop": ""}


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """Return the path of a file with three clients of different sizes."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return str(path)


def averaged(config: dict, rounds: int) -> State:
    """Return the weights of the same training without Flower, by the study's own mean."""
    model = federated.fresh(config)
    shared = {k: v.clone() for k, v in model.state_dict().items()}
    for number in range(1, rounds + 1):
        states, counts = {}, {}
        for client in range(3):
            if f"{client}@{number}" not in config["drop"].split(","):
                model.load_state_dict(shared)
                counts[client] = federated.train(model, config, client, number)
                states[client] = {k: v.clone() for k, v in model.state_dict().items()}
        shared = weighted_mean(states, counts)
    return shared


def commands() -> list[str]:
    """Return the documented command lines, without the program."""
    texts = [(ROOT / "docs/federated.md").read_text(), federated.__doc__]
    found = {re.split(r"\s{2,}|#", line)[0].strip() for text in texts
             for line in re.findall(r"^ *python tools/federated\.py([^\n]*)", text, re.MULTILINE)}
    return sorted(found)


@pytest.mark.parametrize("words", commands())
def test_documented_options_exist(words: str, monkeypatch, mine, capsys) -> None:
    """Each command line comes to the simulation with a value of its own, or shows the options."""
    begun = []
    monkeypatch.setattr(federated, "simulate", lambda *given: begun.append(given) or ({}, {}))
    words = words.replace("mine.py", mine)
    if words == "--help":
        with pytest.raises(SystemExit, match=r"^0$"):
            federated.main(["--help"])
        assert "--keep {nothing,statistics,norms}" in capsys.readouterr().out
        return
    assert federated.main(shlex.split(words)) is None
    ((config, rounds),) = begun
    assert rounds == (3 if "--rounds" in words else 5)
    assert config["keep"] == ("norms" if "--keep" in words else "nothing")
    assert config["file"] == (mine if mine in words else "")
    assert bool(config["drop"]) == ("--drop" in words)


def test_without_flower_it_says_how_to_get_it(monkeypatch, mine) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    said = federated.main(["--clients", mine])
    assert said == "needs Flower, flwr.app is missing: pip install 'geonorm[federated]'"


def test_bad_files_and_clients_are_refused(tmp_path: Path, mine) -> None:
    (tmp_path / "half.py").write_text("def network(): pass\n")
    said = federated.main(["--clients", str(tmp_path / "half.py")])
    assert said.endswith("half.py must define network() and clients(); it lacks ['clients']")
    for drop in ("3@1", "0@0", "0@6", "first"):
        said = federated.main(["--clients", mine, "--drop", drop])
        assert f"--drop takes CLIENT@ROUND, such as 2@5; got {{'{drop}'}}" in said


def test_a_client_trains_as_seed_client_and_round_say(mine) -> None:
    config = CONFIG | {"file": mine}

    def weights(seed: int, client: int, number: int) -> torch.Tensor:
        model = federated.fresh(config)
        federated.train(model, config | {"seed": seed}, client, number)
        return nn.utils.parameters_to_vector(model.parameters())

    first = weights(5, 1, 1)
    assert torch.equal(first, weights(5, 1, 1))
    for other in ((6, 1, 1), (5, 2, 1), (5, 1, 2)):
        assert not torch.equal(first, weights(*other))
    assert federated.train(federated.fresh(config), config, 2, 1) == 14


@pytest.mark.parametrize(("keep", "kept"), [
    ("nothing", {"1.num_batches_tracked"}),
    ("statistics", {"1.num_batches_tracked", "1.running_mean", "1.running_var"}),
    ("norms", {"1.num_batches_tracked", "1.running_mean", "1.running_var", "1.weight", "1.bias"}),
])  # fmt: skip
def test_what_stays_with_a_client(mine, keep, kept) -> None:
    model = federated.fresh(CONFIG | {"file": mine})
    own, shared = federated.parts(model, keep)
    assert {*own} == kept
    assert {*own, *shared} == {*model.state_dict()}
    assert not {*own} & {*shared}


def test_replies_are_told_by_their_client_and_failures_come_first() -> None:
    replies = [SimpleNamespace(has_error=lambda: False, content={"metrics": {"client": number}})
               for number in (10, 2, 0)]  # fmt: skip
    failed = SimpleNamespace(has_error=lambda: True)
    found = sorted([replies[0], failed, *replies[1:]], key=federated.client_of)
    assert found == [failed, replies[2], replies[1], replies[0]]


def test_a_loss_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE + "\ndef loss(network, batch):\n    return network(batch[0]).sum() * 0\n")
    config = CONFIG | {"file": str(path)}
    model = federated.fresh(config)
    before = model[1].bias.clone()
    federated.train(model, config | {"rate": 0.0}, 0, 1)
    assert torch.equal(model[1].bias, before)
    assert federated.task_of(str(path)).loss(model, (torch.ones(1, 2, 4, 4), None)).item() == 0


def test_built_in_clients_are_the_sensors() -> None:
    task = federated.task_of("")
    names = [*task.clients()]
    assert len(names) == 4
    assert names[1] == "mast64, gain 0.55"
    assert task.network()(torch.zeros(2, 4, 7)).shape == (2, 11, 7)


@pytest.mark.long
def test_flowers_average_is_ours() -> None:
    """Of state dicts of random values, by counts that differ, in the order of the ids."""
    pytest.importorskip("flwr", reason="pip install 'geonorm[federated]'")
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy import FedAvg

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 7))
    states, counts = {}, {0: 3, 1: 10, 2: 1, 3: 6}
    for client in counts:
        states[client] = {key: torch.randn(value.shape) * 10 ** client
                          if value.is_floating_point() else value + 4
                          for key, value in model.state_dict().items()}  # fmt: skip
    replies = []
    for client, state in states.items():
        metrics = MetricRecord({"num-examples": counts[client]})
        content = RecordDict({"arrays": ArrayRecord(state), "metrics": metrics})
        # A Message of Flower's belongs to a run, and there is none here.
        replies.append(SimpleNamespace(content=content, has_error=lambda: False))
    arrays, _ = FedAvg().aggregate_train(1, replies)
    found, mean = arrays.to_torch_state_dict(), weighted_mean(states, counts)
    assert found.keys() == mean.keys()
    for key, value in mean.items():
        torch.testing.assert_close(found[key].to(value.dtype), value, rtol=1e-6, atol=1e-5)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("drop", ["", "1@2"])
def test_flowers_simulation_ends_where_the_weighted_mean_does(mine, tmp_path, drop) -> None:
    """Twice, to 1e-6: with all clients, and with one that drops out in the second round."""
    pytest.importorskip("flwr", reason="pip install 'geonorm[federated]'")
    ends = []
    for number in range(2):
        out = tmp_path / f"{number}.pt"
        run = subprocess.run(
            [sys.executable, ROOT / "tools/federated.py", "--clients", mine, "--rounds=3",
             "--steps=3", "--rate=0.01", "--seed=5", f"--drop={drop}", f"--out={out}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert len(re.findall(r"^round \d: a \d.\d{3}, b \d.\d{3}, c", run.stdout, re.M)) == 3
        assert ("client 1 drops out, as --drop says" in run.stderr) == bool(drop)
        ends.append(torch.load(out))
    ours = averaged(CONFIG | {"file": mine, "drop": drop}, rounds=3)
    del ours["1.num_batches_tracked"]  # which stays with each client
    assert ours.keys() == ends[0].keys() == ends[1].keys()
    for key, value in ours.items():
        torch.testing.assert_close(ends[0][key], ends[1][key], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ends[0][key], value, rtol=1e-5, atol=1e-6)
    if drop:
        whole = averaged(CONFIG | {"file": mine}, rounds=3)
        assert not torch.allclose(whole["0.weight"], ours["0.weight"], rtol=1e-3)
