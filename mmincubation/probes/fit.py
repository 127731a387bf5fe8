"""Classify features that do not change: by their nearest neighbours, and by logistic regression."""
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmincubation.errors import ConfigError

NEIGHBOURS, TEMPERATURE = 20, 0.07  # as in DINO (arXiv:2104.14294)
INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1., 10., 100.)  # scikit-learn's C
HELD_OUT = 0.1
WORSE = 2  # values of C in a row that end the search
STEPS = 1000
VALUES = 2**27  # similarities in memory at once


def knn(train: Tensor, labels: Tensor, val: Tensor, k: int = NEIGHBOURS, temperature: float = TEMPERATURE) -> Tensor:
    """Return the classes (M,) of `val` (M, C), for which the `k` most alike of `train` (N, C) vote by their `labels`.

    Features are alike by their cosine, and a vote weighs `exp(cosine / temperature)`. All are on one device.

    Raises:
        ConfigError: there are fewer than `k` training features.
    """
    if len(train) < k:
        raise ConfigError(f'k-NN asks {k} neighbours, but there are {len(train)} training images; give more')
    train, classes, found = F.normalize(train, dim=1), int(labels.max()) + 1, []
    for part in F.normalize(val, dim=1).split(max(1, VALUES // len(train))):
        cosines, nearest = (part @ train.T).topk(k)
        votes = cosines.new_zeros(len(part), classes).scatter_add_(1, labels[nearest], (cosines / temperature).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


@dataclass(frozen=True)
class LinearProbe:
    """Hold a fitted classifier of scikit-learn, its C, the top-1 in percent at which C was chosen, and a warning."""

    classifier: object
    c: float
    held_out_top1: float
    warning: str

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the classes (M,) of features (M, C)."""
        return self.classifier.predict(features)


def linear_probe(features: np.ndarray, labels: np.ndarray, seed: int, grid: tuple[float, ...] = INVERSE_PENALTIES
                 ) -> LinearProbe:
    """Fit multinomial logistic regression with an L2 penalty to standardised features (N, C) with labels (N,).

    C is the one of the rising `grid` with the best top-1 on a tenth of each class, held out by `seed`; of equal ones
    the smallest. The search ends when two in a row are no better. Then all features are fitted.

    Raises:
        ConfigError: there are fewer than two classes, or no class has two images.
    """
    held = held_out(labels, seed)
    if len(np.unique(labels)) < 2 or not held.any():
        raise ConfigError('a linear probe needs two classes or more, one of them with two images: one is held out')
    best, scores = 0, []
    for c in grid:
        classifier, _ = _fitted(features[~held], labels[~held], c)
        scores.append(100 * classifier.score(features[held], labels[held]))
        best = int(np.argmax(scores))
        if len(scores) - best > WORSE:  # larger ones fit the noise, and take the longest
            break
    classifier, converged = _fitted(features, labels, grid[best])
    warning = '' if converged else f'logistic regression has not converged in {STEPS} steps'
    if best in (0, len(grid) - 1) and len(grid) > 1:
        warning = '; '.join(filter(None, [warning, f'C={grid[best]:g} is the end of the grid']))
    return LinearProbe(classifier, grid[best], scores[best], warning)


def held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return a mask (N,) of a tenth of each class, rounded, at least one; classes of one image keep it."""
    held, rng = np.zeros(len(labels), bool), np.random.default_rng(seed)
    for label in np.unique(labels):
        images = rng.permutation(np.flatnonzero(labels == label))
        held[images[:min(max(1, round(HELD_OUT * len(images))), len(images) - 1)]] = True
    return held


def _fitted(features: np.ndarray, labels: np.ndarray, c: float) -> tuple:
    """Return the fitted classifier, and whether it converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=STEPS)).fit(features, labels)
    return classifier, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
