"""Confidence intervals of scores: the data drawn anew from themselves, many times."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A score with its 95% interval, which is None where it cannot be told."""

    value: float
    low: float | None
    high: float | None


def resamples(items: int, number: int, seed: int) -> np.ndarray:
    """Return how often each item is drawn: once each in the first row, then at random.

    Of one item there is nothing to draw, and the first row stands alone.

    Args:
        items: scans or videos, N.
        number: of resamples, each of N items drawn with replacement.
        seed: of the draws.

    Shape:
        - result: (1 + number, N), float64; (1, 1) of one item

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.

    >>> resamples(3, 2, seed=0).sum(axis=1)
    array([3., 3., 3.])
    """
    if items == 1:
        return np.ones((1, 1))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(items, np.full(items, 1 / items), size=number)
    return np.concatenate([np.ones((1, items)), drawn])


def interval(values: np.ndarray) -> Interval:
    """Return a score and the 2.5 and 97.5 percentiles of its resamples.

    There is no interval where there are no resamples, or one of them has no score.

    Args:
        values: the score, then those of resamples, (R,).
    """
    drawn = values[1:]
    if not len(drawn) or not np.isfinite(drawn).all():
        return Interval(float(values[0]), None, None)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(float(values[0]), float(low), float(high))
