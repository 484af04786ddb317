"""What a sweep's numbers allow to be said of a model, in words."""

from __future__ import annotations

import numpy as np

from ruac.evaluation.metrics.significance import wilcoxon
from ruac.evaluation.results.load import Results
from ruac.evaluation.results.names import COLUMNS, REGIONS, Column

_FEWEST_FOR_TEST = 6  # below this the two-sided signed-rank test cannot reach p < 0.05
_FEWEST_TO_AGREE = 3
_SLIGHT = 0.05


def statements(results: Results) -> list[dict]:
    """What the numbers allow to be said of every model against the baseline.

    One statement per question: a verdict, and the numbers behind it. A verdict is "better" or "worse" only when a
    signed-rank test over domains agrees at p < 0.05 or, with too few domains to test, when all of at least three agree.
    """
    baseline = results.baseline
    questions = (
        ("ece", "Calibration", "expected calibration error"),
        ("auroc", "Finding its own wrong pixels", "AUROC"),
        ("jf", "Masks", "J&F"),
    )
    found = []
    for model in results.models:
        for key, topic, name in questions:
            if model == baseline or key not in results.values:
                continue
            column = COLUMNS[key]
            regions = results.regions[:1] if column.mask else results.regions
            sides = [s for region in regions if (s := _compare(results, column, model, baseline, region))]
            if sides:
                verdicts = list(dict.fromkeys(side["verdict"] for side in sides))
                verdict = verdicts[0] if len(verdicts) == 1 else "mixed"
                found.append(
                    {"model": model, "baseline": baseline, "topic": topic, "key": key, "name": name, "verdict": verdict}
                    | {"slight": all(side["slight"] for side in sides)}
                    | {"sides": sides, "mask": column.mask, "lower": not column.higher}
                )
    return found


def _compare(results: Results, column: Column, model: str, baseline: str, region: str) -> dict | None:
    """Paired comparison over domains; a model with several scores is represented by the best of them."""

    def best(name: str) -> np.ndarray:
        rows = [results.series(column, e, region) for e in results.entries_of(column) if e.model == name]
        rows = [row for row in rows if np.isfinite(row).any()] or rows[:1]
        return max(rows, key=lambda row: np.nanmean(row) * (1 if column.higher else -1)) if len(rows) > 1 else rows[0]

    ours, theirs = best(model), best(baseline)
    paired = np.isfinite(ours) & np.isfinite(theirs)
    if not paired.any():
        return None
    ours, theirs = ours[paired], theirs[paired]
    gain = (ours - theirs) * (1 if column.higher else -1)
    count, wins, losses = len(gain), int((gain > 0).sum()), int((gain < 0).sum())
    p = None
    if count >= _FEWEST_FOR_TEST:
        p = wilcoxon(ours, theirs)
    sure = p < 0.05 if p is not None else max(wins, losses) == count >= _FEWEST_TO_AGREE
    # Mean and majority have to point the same way before either direction is claimed.
    better, worse = gain.mean() > 0 and wins > losses, gain.mean() < 0 and losses > wins
    return {
        "region": REGIONS.get(region, region),
        "verdict": ("better" if better else "worse") if sure and (better or worse) else "unclear",
        "ours": column.text(float(ours.mean())),
        "theirs": column.text(float(theirs.mean())),
        # Small against what there is to lose or gain: a sure difference can still be a slight one.
        "slight": abs(ours.mean() - theirs.mean()) < _SLIGHT * abs(theirs.mean() - column.perfect),
        "change": _change(float(ours.mean()), float(theirs.mean())),
        "wins": wins,
        "count": count,
        "p": p,
    }


def _change(ours: float, theirs: float) -> str:
    if ours == theirs or theirs == 0:
        return "the same" if ours == theirs else "higher"
    percent = 100 * abs(ours - theirs) / abs(theirs)
    size = f"{percent:.0f}\u00a0%" if percent >= 1 else "less than 1\u00a0%"
    return f"{size} {'lower' if ours < theirs else 'higher'}"
