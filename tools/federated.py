#!/usr/bin/env python
"""Train one network at several clients whose data stay where they are, by Flower's simulation.

  python tools/federated.py                          four clients, each a built-in LiDAR sensor
  python tools/federated.py --keep norms             FedBN; --keep statistics is SiloBN
  python tools/federated.py --clients mine.py        a network and clients of your own

Needs Flower: pip install 'geonorm[federated]'. mine.py defines network(), and clients(): by name,
functions that read two torch Datasets of (input, label), one to train and one to test with.
"""

import os
import runpy
import sys
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import nn
from torch.utils.data import DataLoader, Dataset

from geonorm.studies import federated_clients
from geonorm.studies.federated_rounds import Keep, State, keys_kept, train_locally
from geonorm.studies.training import cross_entropy


@cache
def task_of(file: str) -> SimpleNamespace:
    """Return network, clients and loss of a file, or the built-in ones; the loss is optional."""
    found = runpy.run_path(file) if file else vars(federated_clients)
    if missing := [name for name in ("network", "clients") if not callable(found.get(name))]:
        raise ValueError(f"{file} must define network() and clients(); it lacks {missing}")
    return SimpleNamespace(**{"loss": cross_entropy} | found)


@cache
def data_of(file: str, number: int) -> tuple[Dataset[Any], Dataset[Any]]:
    """Return what a client trains and tests with."""
    return [*task_of(file).clients().values()][number]()


def fresh(config: Any) -> nn.Module:
    """Return the network as every client and the server begin with it."""
    torch.manual_seed(config["seed"])
    return task_of(config["file"]).network()


def train(model: nn.Module, config: Any, number: int, round_number: int) -> int:
    """Train a network in place, as seed, client and round say; return the number of examples."""
    data = data_of(config["file"], number)[0]
    torch.set_num_threads(1)  # sums come out the same on whatever machine
    torch.manual_seed(hash((config["seed"], number, round_number)))
    loader = DataLoader(data, config["batch_size"], shuffle=True)
    endless = (batch for _ in iter(int, 1) for batch in loader)
    train_locally(model, partial(next, endless), task_of(config["file"]).loss,
                  steps=config["steps"], rate=config["rate"])
    return len(data)


def parts(model: nn.Module, keep: Keep) -> tuple[State, State]:
    """Return what of a network's state stays with a client, counters among it, and what not."""
    state, kept = model.state_dict(), keys_kept(model, keep)
    own = {k: v for k, v in state.items() if k in kept or not v.is_floating_point()}
    return own, {k: state[k] for k in state if k not in own}


def client_of(reply: Any) -> int:
    """Return which client a reply comes from, or -1 where it says what went wrong."""
    return -1 if reply.has_error() else reply.content["metrics"]["client"]


def client_app() -> Any:
    """Return what Flower runs at each client."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    def begin(message: Message, context: Context) -> tuple[nn.Module, Any, int]:
        """Return the network as it comes from the server, with what the client has kept."""
        model = fresh(config := message.content["config"])
        model.load_state_dict(message.content["arrays"].to_torch_state_dict(), strict=False)
        if "own" in context.state:
            model.load_state_dict(context.state["own"].to_torch_state_dict(), strict=False)
        return model, config, int(context.node_config["partition-id"])

    @app.train()
    def at_train(message: Message, context: Context) -> Message:
        model, config, number = begin(message, context)
        if f"{number}@{config['server-round']}" in config["drop"].split(","):
            raise RuntimeError(f"client {number} drops out, as --drop says")
        count = train(model, config, number, config["server-round"])
        context.state["own"], shared = map(ArrayRecord, parts(model, config["keep"]))
        metrics = MetricRecord({"num-examples": count, "client": number})
        return Message(RecordDict({"arrays": shared, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def at_evaluate(message: Message, context: Context) -> Message:
        model, config, number = begin(message, context)
        data = data_of(config["file"], number)[1]
        metrics = MetricRecord({"num-examples": len(data), "client": number,
                                "accuracy": federated_clients.accuracy(model, data)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def simulate(config: dict[str, Any], rounds: int) -> tuple[State, dict[int, dict[str, float]]]:
    """Run Flower's simulation; return the shared weights and each round's accuracy by client."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    names, ended = [*task_of(config["file"]).clients()], []

    def by_client(records: list[RecordDict], _: str) -> MetricRecord:
        found = sorted((each["metrics"]["client"], each["metrics"]["accuracy"]) for each in records)
        return MetricRecord({names[client]: accuracy for client, accuracy in found})

    class InOrder(FedAvg):
        """Federated averaging that adds in the order of the clients, whoever answers first."""

        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            return super().aggregate_train(server_round, sorted(replies, key=client_of))

    server = ServerApp()

    @server.main()
    def at_server(grid: Any, context: Any) -> None:
        model = fresh(config)
        strategy = InOrder(min_available_nodes=len(names), min_train_nodes=len(names),
                           evaluate_metrics_aggr_fn=by_client)
        ended.append(strategy.start(grid, ArrayRecord(parts(model, config["keep"])[1]), rounds,
                                    train_config=ConfigRecord(config),
                                    evaluate_config=ConfigRecord(config)))

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client_app(), len(names), backend_config=resources)
    if not ended or not ended[0].arrays:
        raise RuntimeError("no client has trained; Flower's messages above say why")
    scores = ended[0].evaluate_metrics_clientapp
    return ended[0].arrays.to_torch_state_dict(), {n: dict(scores[n]) for n in scores}


def federated(
    clients: Path | None = None, keep: Keep = "nothing", rounds: int = 5, steps: int = 8,
    batch_size: int = 4, rate: float = 3e-3, seed: int = 0, drop: str = "", out: Path | None = None,
) -> None:
    """Train and print each client's accuracy.

    Args:
        clients: a file with network() and clients(); the built-in ones if not given.
        keep: what of the norms stays with each client.
        rounds: how often is averaged.
        steps: of a client in each round.
        batch_size: examples of a step.
        rate: the learning rate.
        seed: of everything drawn; the same one gives the same weights.
        drop: who does not answer when: CLIENT@ROUND,CLIENT@ROUND… from client 0 and round 1.
        out: where to save the shared weights.
    """
    file = str(clients.resolve()) if clients else ""
    count = len(task_of(file).clients())
    known = {f"{client}@{number}" for client in range(count) for number in range(1, rounds + 1)}
    if unknown := {*drop.split(",")} - {"", *known}:
        raise ValueError(f"--drop takes CLIENT@ROUND, such as {count - 1}@{rounds}; got {unknown}")
    config = {"file": file, "keep": keep, "steps": steps, "batch_size": batch_size, "rate": rate,
              "seed": seed, "drop": drop}
    weights, scores = simulate(config, rounds)
    for number, accuracies in scores.items():
        print(f"round {number}: " + ", ".join(f"{n} {x:.3f}" for n, x in accuracies.items()))
    if out is not None:
        torch.save(weights, out)


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Run the command line; return what was wrong, or None."""
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    parser = ArgumentParser(description=__doc__)
    parser.add_function_arguments(federated)
    try:
        federated(**parser.parse_args(arguments).as_dict())
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("flwr", "ray"):
            raise
        return f"needs Flower, {error.name} is missing: pip install 'geonorm[federated]'"
    except ValueError as error:
        return f"tools/federated.py: {error}"
    return None


if __name__ == "__main__":
    import federated as by_name  # Ray's workers find functions by their module, not __main__'s

    sys.exit(by_name.main())
