"""Which pixels share a threshold: one place each, all of the picture, or what lies between (Kandinsky calibration)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ruac.base.errors import RuacError

KINDS = ("location", "image", "clusters", "annuli")
_LEVELS = (0.25, 0.5, 0.75, 0.9, 0.95)  # of the curve that describes a place


@dataclass
class RegionsConfig:
    """kind: ``location``, every cell of the grid by itself, which needs the most pictures; ``image``, all together;
    ``clusters``, k-means of the places' score curves; or ``annuli``, rings around the middle of the picture whose
    radii are found from the same curves. count: of clusters or rings."""

    kind: str = "image"
    count: int = 8
    seed: int = 0

    def validate(self) -> None:
        if self.kind not in KINDS:
            raise RuacError(f"regions.kind: {self.kind!r}, expected {' or '.join(KINDS)}")
        if self.count < 1:
            raise RuacError(f"regions.count: {self.count}, expected at least 1")


def find_regions(scores: np.ndarray, config: RegionsConfig) -> np.ndarray:
    """The region of every place, int64 ``[G, G]`` from 0 on. scores: ``[n, G, G]``, nan where unknown."""
    size = scores.shape[1:]
    if config.kind == "location":
        return np.arange(size[0] * size[1]).reshape(size)
    if config.kind == "image" or config.count == 1:
        return np.zeros(size, np.int64)
    curves = _curves(scores)
    found = _rings(curves, size, config) if config.kind == "annuli" else _clusters(curves, config)
    return np.unique(found, return_inverse=True)[1].reshape(size)


def _curves(scores: np.ndarray) -> np.ndarray:
    """Quantiles of every place's scores over pictures, ``[G * G, levels]``; an unknown place has the mean curve."""
    flat = scores.reshape(len(scores), -1)
    known = ~np.isnan(flat).all(0)
    curves = np.full((flat.shape[1], len(_LEVELS)), np.nan)
    if known.any():
        curves[known] = np.nanquantile(flat[:, known], _LEVELS, axis=0).T
        curves[~known] = curves[known].mean(0)
    return np.nan_to_num(curves)


def _clusters(curves: np.ndarray, config: RegionsConfig) -> np.ndarray:
    from sklearn.cluster import KMeans

    count = min(config.count, len(np.unique(curves, axis=0)))  # k-means warns where there are fewer curves
    return KMeans(count, n_init=4, random_state=config.seed).fit_predict(curves)


def _rings(curves: np.ndarray, size: tuple[int, int], config: RegionsConfig) -> np.ndarray:
    """Radii that leave the curves of a ring most alike: the leaves of a regression tree on the radius alone.

    The radius is that of an ellipse which fits the picture, so that rings do not depend on its shape.
    """
    from sklearn.tree import DecisionTreeRegressor

    y, x = ((np.arange(n) + 0.5) / n * 2 - 1 for n in size)
    radius = np.hypot(y[:, None], x).reshape(-1, 1)
    tree = DecisionTreeRegressor(max_leaf_nodes=config.count, random_state=config.seed)
    return tree.fit(radius, curves).apply(radius)
