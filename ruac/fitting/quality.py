"""How well calibrated the answers to held-out pictures are, before and after."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ruac.calibration import Answers, Calibrator
from ruac.evaluation.metrics import ReliabilitySums
from ruac.uncertainty.maps import logit_uncertainty

SHOWN = ("ece", "nll", "brier", "auroc", "prr")


@torch.no_grad()
def quality(answers: Sequence[Answers], calibrator: Calibrator) -> dict[str, dict[str, dict[str, float]]]:
    """``{region: {"before" | "after": metrics}}``, of the pixels that were drawn of each region.

    Over all pixels together, those of the band and those from anywhere; a region of which none was drawn is left out.
    """
    sums = {(region, when): ReliabilitySums() for region in ("image", "band") for when in ("before", "after")}
    for one in answers:
        for when, logits in (("before", one.logits), ("after", calibrator(one.logits, one.evidence))):
            logit, masks = one.pixels(logits), one.pixels() > 0
            for region, where in (("image", ~one.near), ("band", one.near)):
                sums[region, when].update(
                    probability=logit[where].sigmoid(),
                    uncertainty=logit_uncertainty(logit[where]),
                    target=one.truth[where] > 0.5,
                    prediction=masks[where],
                )
    return {
        region: {when: {name: sums[region, when].compute()[name] for name in SHOWN} for when in ("before", "after")}
        for region in ("image", "band")
        if sums[region, "before"].count
    }
