"""How much more likely pictures are in another domain than in the source: weights for weighted conformal."""

from __future__ import annotations

import numpy as np

from ruac.base.errors import RuacError


def likelihood_ratios(
    source: np.ndarray, target: np.ndarray, *, parts: int = 8, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Likelihood ratio target / source of every source and every target picture, ``[n]`` and ``[m]``, from features.

    A logistic regression tells both apart by the first `parts` principal components of their features; its odds,
    freed of the number of pictures, estimate the ratio. Every picture is judged by a fit without it: a fit that knows
    it would call the sets easier to tell apart than they are. The ratio knows inputs alone: a change of what is
    right for the same features stays unseen, and where sets do not overlap there is no ratio to estimate.

    source ``[n, D]``, target ``[m, D]``: features of pictures. Raises `RuacError` for less than 2 of either.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n, m = len(source), len(target)
    if min(n, m) < 2:
        raise RuacError(f"likelihood ratio: {n} source and {m} target pictures, expected at least 2 of each")
    features, side = np.concatenate([source, target]), np.repeat([0, 1], [n, m])
    folds = StratifiedKFold(min(5, n, m), shuffle=True, random_state=seed)
    parts = min(parts, features.shape[1], (n + m) // 2)
    # Not balanced: the odds are divided by m / n below.
    model = make_pipeline(StandardScaler(), PCA(parts, whiten=True, random_state=seed), LogisticRegression())
    odds = np.exp(cross_val_predict(model, features, side, cv=folds, method="decision_function")) * n / m
    return odds[:n], odds[n:]


def effective_count(weights: np.ndarray) -> float:
    """How many equal weights say as much: ``(sum w)^2 / sum w^2``."""
    return float(weights.sum() ** 2 / (weights**2).sum())
