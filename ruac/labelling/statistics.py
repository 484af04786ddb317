"""What a filter keeps of every class, and how much of it is right where the truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ruac.data.classes import IGNORE


class LabelStatistics:
    """Counts of pixels over pictures; integers, so that their sums are exact."""

    def __init__(self, names: list[str]):
        self.names = names
        size = len(names)
        self._before, self._after = (np.zeros((size + 1, size + 1), np.int64) for _ in range(2))
        self._sets = np.zeros(3, np.int64)  # classes in sets, pixels, pixels with known truth whose set holds it
        self._known = 0

    def add(self, plain: np.ndarray, kept: np.ndarray, inside: np.ndarray, truth: np.ndarray | None) -> None:
        """plain, kept: labels ``[H, W]`` before and after the filter. inside: sets ``bool [K, H, W]``."""
        unknown = np.full_like(kept, IGNORE) if truth is None else truth
        self._before += self._counts(plain, unknown)
        self._after += self._counts(kept, unknown)
        known = unknown != IGNORE
        covered = np.take_along_axis(inside, np.where(known, unknown, 0).astype(np.int64)[None], axis=0)[0] & known
        self._sets += inside.sum(), kept.size, covered.sum()
        self._known += int(known.sum())

    def _counts(self, labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Rows: label, columns: truth; the last of both is `IGNORE`."""
        size = len(self.names)
        rows, columns = (np.where(x == IGNORE, size, x).astype(np.int64) for x in (labels, truth))
        return np.bincount((rows * (size + 1) + columns).ravel(), minlength=(size + 1) ** 2).reshape(size + 1, -1)

    def table(self) -> pd.DataFrame:
        """A row per class, and one of all.

        pixels: labelled so before the filter. kept: after it; kept_share: of the former (class-conditional filtering
        may also add to a class). precision_before, precision: right, of those with known truth. recall: of the true
        pixels of the class those that kept its label; true_pixels: their number. All: pixels of all pictures, and
        besides coverage (share of known pixels whose set holds the truth) and set_size (mean classes of a set).
        """
        rows = [self._row(name, [k]) for k, name in enumerate(self.names)]
        every = self._row("all", list(range(len(self.names))))
        classes, pixels, covered = self._sets
        every |= {"coverage": _share(covered, self._known), "set_size": _share(classes, pixels)}
        return pd.DataFrame([*rows, every])

    def _row(self, name: str, own: list[int]) -> dict:
        size = len(self.names)
        before, after = self._before[own].sum(), self._after[own].sum()
        true = self._after[:, own].sum()
        right = {key: counts[own, own].sum() for key, counts in (("before", self._before), ("after", self._after))}
        known = {key: counts[own, :size].sum() for key, counts in (("before", self._before), ("after", self._after))}
        return {
            "class": name,
            "pixels": int(before),
            "kept": int(after),
            "kept_share": _share(after, before),
            "precision_before": _share(right["before"], known["before"]),
            "precision": _share(right["after"], known["after"]),
            "recall_before": _share(right["before"], true),
            "recall": _share(right["after"], true),
            "true_pixels": int(true),
        }


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")
