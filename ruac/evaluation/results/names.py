"""How each metric and region of a sweep is named, scaled and ranked: once, for reports, tables and summaries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Column:
    """How a metric is shown.

    higher: larger is better, None where neither is. mask: judges the mask alone. top: the best value there is, where
    larger is better; where smaller is, that is 0.
    """

    key: str
    label: str
    higher: bool | None = None
    scale: float = 1.0
    digits: int = 3
    mask: bool = False
    top: float = 1.0

    @property
    def perfect(self) -> float:
        return self.top if self.higher else 0.0

    def text(self, value: float) -> str:
        return f"{self.scale * value:.{self.digits}f}" if np.isfinite(value) else "\u2013"


COLUMNS = {
    c.key: c
    for c in (
        Column("jf", "J&F", True, 100, 1, mask=True),
        Column("j", "J", True, 100, 1, mask=True),
        Column("f", "F", True, 100, 1, mask=True),
        Column("ece", "ECE", False, digits=4),
        Column("ece_foreground", "foreground ECE", False, digits=4),
        Column("adaptive_ece", "adaptive ECE", False, digits=4),
        Column("ks", "KS", False, digits=4),
        Column("mce", "MCE", False),
        Column("brier", "Brier", False, digits=4),
        Column("nll", "NLL", False, digits=4),
        Column("auroc", "AUROC", True),
        Column("aupr", "AUPR", True),
        Column("fpr95", "FPR95", False),
        Column("aurc", "AURC", False, digits=4),
        Column("e_aurc", "E-AURC", False, digits=4),
        Column("ause", "AUSE", False),
        Column("prr", "PRR", True, digits=1, top=100.0),
        Column("p_acc_cert", "p(acc|cert)", True),
        Column("p_unc_inacc", "p(unc|inacc)", True),
        Column("p_acc_cert_image", "p(acc|cert), own median", True),
        Column("p_unc_inacc_image", "p(unc|inacc), own median", True),
        Column("pavpu", "PAvPU", True),
        Column("pavpu_patch", "patch PAvPU", True),
        *(Column(f"pavpu_{tau}", f"PAvPU {tau}", True) for tau in ("0.01", "0.05", "0.1")),
        Column("rss", "RSS", True),
        Column("pcc", "PCC", True),
        Column("spearman", "Spearman", True),
        Column("accuracy", "accuracy", True),
        Column("coverage", "coverage of outer masks", scale=100, digits=1),
        Column("purity", "purity of inner masks", scale=100, digits=1),
        Column("outer_size", "size of outer masks", digits=2),
        Column("inner_size", "size of inner masks", digits=2),
        Column("undecided", "undecided", scale=100, digits=1),
        Column("mean_uncertainty", "mean u"),
        Column("median_uncertainty", "median u"),
        Column("pixels", "pixels", digits=0),
    )
}
REGIONS = {"image": "whole image", "band": "band around the object"}
SHOWN_FIRST = ("jf", "ece", "auroc", "aurc", "prr")
GLANCE = ("jf", "ece", "brier", "nll", "auroc", "fpr95", "aurc", "prr", "pcc", "rss")
DOTS = ("jf", "ece", "brier", "auroc", "aurc", "prr")
RADAR = ("jf", "ece", "brier", "nll", "auroc", "aurc", "prr", "rss")
ROBUST = ("jf", "ece", "auroc", "aurc", "prr", "rss")
# Of predicted IoU (or reliability) against true IoU, over objects; not columns of ``domains.csv``.
MASK_SCORES = (
    Column("iou_mae", "MAE", False),
    Column("iou_gap", "gap"),
    Column("iou_pcc", "Pearson", True),
    Column("iou_spearman", "Spearman", True),
    Column("iou_auroc", "AUROC of J < 0.75", True),
    Column("iou_coverage", "kept at 25 % risk", True, 100, 1),
)
