"""Federated averaging: clients train by themselves, and a server averages what they share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from geonorm.convert.norm_state import norm_state

State = dict[str, Tensor]
# What of the norms stays with a client: FedBN keeps all, SiloBN the running statistics.
Keep = Literal["nothing", "statistics", "norms"]
Draw = Callable[[], Any]
Loss = Callable[[nn.Module, Any], Tensor]


def keys_kept(model: nn.Module, keep: Keep) -> set[str]:
    """Return the keys of the state dict that a client does not share."""
    found = norm_state(model)
    return {"nothing": set(), "statistics": {*found.statistics},
            "norms": {*found.statistics, *found.parameters}}[keep]  # fmt: skip


def weighted_mean(states: Mapping[int, Mapping[str, Tensor]], counts: Mapping[int, int]) -> State:
    """Return the mean of the clients' state dicts, weighted by their numbers of examples.

    Sums are taken in float64 and in the order of the clients' ids, so that a result does not depend
    on who answers first. Of counters, the rounded mean is returned.

    Args:
        states: of each client that took part, by its id.
        counts: the examples of each client, by its id; others than those of `states` are ignored.

    Raises:
        ValueError: no client, one without examples, or clients with different keys.

    From federated averaging (McMahan et al., 2017).
    """
    if not states:
        raise ValueError("expected the state dict of one client or more; got none")
    clients = sorted(states)
    if bad := [client for client in clients if counts.get(client, 0) < 1]:
        raise ValueError(f"expected a number of examples above 0 of each client; none for {bad}")
    keys = list(states[clients[0]])
    if bad := [client for client in clients if states[client].keys() != {*keys}]:
        raise ValueError(f"clients {clients[0]} and {bad[0]} have different keys in their states")
    total = sum(counts[client] for client in clients)
    mean = {}
    for key in keys:
        like = states[clients[0]][key]
        value = torch.zeros_like(like, dtype=torch.float64)
        for client in clients:
            value += states[client][key].double() * (counts[client] / total)
        mean[key] = (value if like.is_floating_point() else value.round()).to(like.dtype)
    return mean


class Trained(NamedTuple):
    """The end of a federated training.

    Attributes:
        states: of each client after the last averaging: what is shared, and what is its own.
        apart: of each client before the last averaging.
    """

    states: list[State]
    apart: list[State]


def train_locally(
    model: nn.Module,
    draw: Draw,
    loss: Loss,
    *,
    steps: int,
    rate: float,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
) -> None:
    """Train a network in place, by a new optimizer.

    Lightning's trainer takes longer to start than these few steps take.
    """
    model.train()
    updates = optimizer(model.parameters(), rate)
    for _ in range(steps):
        updates.zero_grad()
        loss(model, draw()).backward()
        updates.step()


def federate(
    model: nn.Module,
    draws: Sequence[Draw],
    counts: Sequence[int],
    loss: Loss,
    *,
    rounds: int,
    keep: Keep = "nothing",
    rate: float = 3e-3,
    **training: Any,
) -> Trained:
    """Train a network by federated averaging; the rate falls linearly from round to round.

    Args:
        model: the network; the clients begin with its weights, and train it in turn.
        draws: what returns a client's next batch, for each client.
        counts: each client's number of examples.
        loss: of the network on a batch.
        rounds: how often is averaged.
        keep: what of the norms stays with each client.
        rate: the learning rate of the first round.
        training: further arguments of `train_locally`.
    """
    states = [_copied(model)] * len(draws)
    apart = states
    by_id, local = dict(enumerate(counts)), keys_kept(model, keep)
    for number in range(rounds):
        apart = []
        for state, draw in zip(states, draws, strict=True):
            model.load_state_dict(state)
            train_locally(model, draw, loss, rate=rate * (1 - number / rounds), **training)
            apart.append(_copied(model))
        mean = weighted_mean(dict(enumerate(apart)), by_id)
        states = [{key: state[key] if key in local else value for key, value in mean.items()}
                  for state in apart]  # fmt: skip
    return Trained(states, apart)


def _copied(model: nn.Module) -> State:
    return {key: value.clone() for key, value in model.state_dict().items()}
