"""What of its input a network's score came from."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = (16, 32, 64, 128, 256, 512)
ROUNDING = 1e-4


class Attribution(NamedTuple):
    """What each element of an input added to a score.

    Attributes:
        values: of the input's shape.
        score: of the input.
        baseline_score: of the baseline.
        steps: points of the path at which gradients were taken.
    """

    values: Tensor
    score: float
    baseline_score: float
    steps: int

    @property
    def gap(self) -> float:
        """What the values' sum lacks of `score - baseline_score`, as a share of that."""
        whole = self.score - self.baseline_score
        # In float32 a difference far below the scores is rounding.
        least = ROUNDING * max(abs(self.score), abs(self.baseline_score))
        gap = abs(self.values.double().sum().item() - whole)
        return gap / max(abs(whole), least) if gap else 0.0


def integrated_gradients(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    *,
    steps: int | None = None,
    at_a_time: int = 1,
    tolerance: float = 0.01,
) -> Attribution:
    """Return what each element of an input added to a score, by integrated gradients.

        values = (x − b) ∫₀¹ ∂score/∂x at b + α (x − b) dα

    They sum to score(x) − score(b), which is called completeness, as far as the sum over `steps`
    is the integral. Where that is missed by more than the tolerance at 512 steps, a warning says
    so: take another baseline.

    With instance norms the baseline matters. Where it is constant, such as zero, what follows the
    first norm is the same for nearly all α, since the norm takes the factor α out: all of the
    change lies next to α = 0, between the steps. A baseline that the norm does not map to its bias
    avoids that: of a scan the mean of each feature, since voxels have different neighbours; of a
    clip its blurred frames.

    Args:
        score: takes several inputs, (K, …), and returns one number for each, (K,).
        x: the input, without a dimension for the batch.
        baseline: what it is compared with, of the same shape.
        steps: of Gauss-Legendre; by default 16, twice as many while the tolerance is missed.
        at_a_time: steps that go through the network together.
        tolerance: share of the difference that the sum may miss.

    Shape:
        x, baseline and values: any, the same

    Raises:
        ValueError: x and baseline of different shapes, or steps below 1.
        ModuleNotFoundError: captum is not installed: `pip install 'geonorm[train]'`.

    From axiomatic attribution (Sundararajan et al., 2017), by captum (Kokhlikyan et al., 2020).

    >>> found = integrated_gradients(lambda x: x[:, 0] * x[:, 1], torch.ones(2), torch.zeros(2))
    >>> [round(value, 3) for value in found.values.tolist()]
    [0.5, 0.5]
    """
    if x.shape != baseline.shape:
        raise ValueError(
            f"baseline must have the shape of x, {tuple(x.shape)}; got {tuple(baseline.shape)}"
        )
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    with torch.no_grad():
        of_x, of_baseline = (float(score(each[None])) for each in (x, baseline))
    for taken in STEPS if steps is None else (steps,):
        values = _integrated(score, x, baseline, taken, at_a_time)
        found = Attribution(values, of_x, of_baseline, taken)
        if not found.gap > tolerance:
            break
    if steps is None and found.gap > tolerance:
        warnings.warn(
            f"after {taken} steps the attributions miss {found.gap:.1%} of the difference of the "
            "scores: take another baseline, such as a blurred input",
            stacklevel=2,
        )
    return found


def _integrated(
    score: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, steps: int, at_a_time: int
) -> Tensor:
    try:
        from captum.attr import IntegratedGradients
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "integrated gradients need captum: pip install 'geonorm[train]', or captum alone"
        ) from error
    values: Tensor = IntegratedGradients(score).attribute(
        x[None], baseline[None], n_steps=steps, internal_batch_size=at_a_time
    )
    return values[0].detach()
