"""Linear probes: how much of a quantity a linear reader finds in features.

A probe that standardizes its features reads differences of any size, and instance norm leaves some
of a millionth (eps is a constant). So the features get noise of a stated size first: what is
smaller no network finds among its own rounding and its other features.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDS = 5
FLOOR = 0.01  # of the features' root mean square


def explained(features: Tensor, target: Tensor, floor: float = FLOOR) -> float:
    """Return R² of a ridge regression on held-out fifths: 1 is all, 0 or less is nothing.

    Args:
        features: (N, F).
        target: (N,), what is to be read.
        floor: deviation of the noise on each feature, in root mean squares of all features.
    """
    from sklearn.linear_model import RidgeCV

    return _score(RidgeCV(np.logspace(-2, 4, 7)), features, target, floor, "r2")


def accuracy(features: Tensor, labels: Tensor, floor: float = FLOOR) -> float:
    """Return the accuracy of a ridge classifier on held-out fifths.

    Args:
        features: (N, F).
        labels: (N,), classes.
        floor: as of `explained`.
    """
    from sklearn.linear_model import RidgeClassifierCV

    return _score(RidgeClassifierCV(np.logspace(-2, 4, 7)), features, labels, floor, "accuracy")


def _score(reader: Any, features: Tensor, target: Tensor, floor: float, scoring: str) -> float:
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = features.detach().double()
    noise = torch.randn_like(features) * features.square().mean().sqrt() * floor
    kind = KFold if scoring == "r2" else StratifiedKFold
    scores = cross_val_score(
        make_pipeline(StandardScaler(), reader), (features + noise).numpy(), target.numpy(),
        cv=kind(FOLDS, shuffle=True, random_state=0), scoring=scoring,
    )  # fmt: skip
    return float(scores.mean())
