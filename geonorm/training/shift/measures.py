"""Robo3D's mCE and mRR and Mini Kinetics-C's mPC and rPC, from scores by corruption and level."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

MEAN = None  # in place of a level: the score is the mean over the levels


class Scores(NamedTuple):
    """The scores of one network, in [0, 1].

    Each is an array whose first value is the score and whose others, if any, are the scores of
    bootstrap resamples of the data, the same resample at the same place everywhere.

    Attributes:
        clean: without corruption, (R,).
        corrupted: by corruption and level, or `MEAN` for a mean over its levels, (R,) each.
    """

    clean: np.ndarray
    corrupted: Mapping[str, Mapping[int | None, np.ndarray]]


class Measures(NamedTuple):
    """What is said of a corruption, or of the mean over several.

    Attributes:
        score: mean over the levels; over corruptions, video's mPC.
        retained: that over the clean score; over corruptions, mRR, which equals video's rPC.
        error: CE, (1 − score) over the baseline's; over corruptions, mCE. None without a baseline.
        over: corruptions in the mean.
        error_over: corruptions in the mean of the error, those that the baseline knows.
    """

    score: np.ndarray
    retained: np.ndarray
    error: np.ndarray | None
    over: int = 1
    error_over: int = 1


def measure(scores: Scores, baseline: Scores | None = None) -> dict[str, Measures]:
    """Return the measures of each corruption.

    With s_l a network's score at level l of L and b_l the baseline's,

        RR = Σ s_l / (L · clean),   CE = Σ (1 − s_l) / Σ (1 − b_l).

    A corruption that the baseline lacks has no CE, and RR is NaN where the clean score is 0.

    Args:
        scores: of the network.
        baseline: of the network that CE divides by.

    Raises:
        ValueError: the baseline makes no error, or the levels differ.

    Sources: Kong et al., "Robo3D", ICCV 2023; Yi et al., "Benchmarking the Robustness of
    Spatial-Temporal Models Against Corruptions", NeurIPS Datasets and Benchmarks 2021.

    >>> half, most = np.array([0.5]), np.array([0.8])
    >>> found = measure(Scores(most, {"fog": {1: half}}), Scores(most, {"fog": {1: most}}))
    >>> f"RR {found['fog'].retained[0]:.3f}, CE {found['fog'].error[0]:.1f}"
    'RR 0.625, CE 2.5'
    """
    return {
        name: _of_one(name, levels, scores.clean, baseline and baseline.corrupted.get(name))
        for name, levels in scores.corrupted.items()
    }


def _of_one(
    name: str,
    levels: Mapping[int | None, np.ndarray],
    clean: np.ndarray,
    baseline: Mapping[int | None, np.ndarray] | None,
) -> Measures:
    score = _mean_over_levels(levels)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a resample: it has no interval then
        retained = np.where(clean > 0, score / clean, np.nan)
        if baseline is None:
            return Measures(score, retained, None, error_over=0)
        if MEAN not in levels and MEAN not in baseline and levels.keys() != baseline.keys():
            raise ValueError(
                f"{name} must have the same levels as in the baseline; got "
                f"{_listed(levels)} and {_listed(baseline)}"
            )
        errors = 1 - _mean_over_levels(baseline)
        if not errors[0] > 0:
            raise ValueError(
                f"the baseline makes no error under {name}, and CE divides by its errors; take "
                "another baseline"
            )
        return Measures(score, retained, (1 - score) / errors)


def mean_over(each: Sequence[Measures]) -> Measures:
    """Return the means over corruptions: mPC, mRR or rPC, and mCE.

    Args:
        each: of the corruptions, at least one.
    """
    errors = [m.error for m in each if m.error is not None]
    return Measures(
        score=np.mean([m.score for m in each], axis=0),
        retained=np.mean([m.retained for m in each], axis=0),
        error=np.mean(errors, axis=0) if errors else None,
        over=len(each),
        error_over=len(errors),
    )


def _mean_over_levels(levels: Mapping[int | None, np.ndarray]) -> np.ndarray:
    mean: np.ndarray = np.mean([*levels.values()], axis=0)
    return mean


def _listed(levels: Mapping[int | None, np.ndarray]) -> str:
    return ", ".join(map(str, levels))
