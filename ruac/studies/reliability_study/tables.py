"""The numbers behind each figure, from the table of `records.read_study`: one function and one CSV per figure."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ruac.calibration.clustered import ClusteredConfig
from ruac.evaluation.metrics.significance import wilcoxon
from ruac.evaluation.results.schema import BOUNDS
from ruac.fitting.draw import PixelConfig
from ruac.studies.reliability_study.config import NONE
from ruac.studies.reliability_study.plan import CLUSTERS, PIXELS, SOURCE, WEATHER

KEYS = ["model", "parameters", "calibration", "place", "domain", "region"]
DOMAIN = "domain"
BASE = "temperature"
RADAR = {"j": "mIoU", "1-ece": "1 - ECE", "p_acc_cert_image": "p(acc|cert)", "p_unc_inacc_image": "p(unc|inacc)"}
"""The four terms of RSS, as it is computed: the share certain is that of each picture's own median."""


def error_ece(study: pd.DataFrame) -> pd.DataFrame:
    """Error, 1 - J&F, against ECE, per data set and as a mean over unseen ones (domain ``mean``): before and after
    calibration (de Jorge et al., 2023, fig. 2, 6 and 28)."""
    rows = _plain(study)
    rows = rows.assign(error=1 - rows.jf)[[*KEYS, "images", "objects", "error", "ece"]]
    keys = ["model", "parameters", "calibration", "place", "region"]
    means = rows[rows.place == DOMAIN].groupby(keys, sort=False, as_index=False)
    means = means.agg(
        images=("images", "sum"), objects=("objects", "sum"), error=("error", "mean"), ece=("ece", "mean")
    )
    return pd.concat([rows, means.assign(domain="mean")], ignore_index=True)[rows.columns.tolist()]


def calibration_ece(study: pd.DataFrame) -> pd.DataFrame:
    """Mean ECE, NLL and PRR on the source and over unseen domains (de Jorge et al., 2023, fig. 3, 5 and 6).

    ``better``: domains of lower ECE than without calibration, ``p`` of Wilcoxon's test over domains. An oracle has no
    value on the source, where its kind fitted on the source is one.
    """
    rows, found = _plain(study), []
    for (model, calibration, region), own in rows.groupby(["model", "calibration", "region"], sort=False):
        entry = {"model": model, "calibration": calibration, "region": region}
        for place, name in ((SOURCE, "source"), (DOMAIN, "domains")):
            here = own[own.place == place]
            entry |= {f"{name}_{metric}": here[metric].mean() for metric in ("ece", "nll", "prr")}
        ours = own[own.place == DOMAIN].set_index("domain").ece
        none = rows[(rows.model == model) & (rows.region == region) & (rows.calibration == NONE)]
        theirs = none[none.place == DOMAIN].set_index("domain").ece.reindex(ours.index)
        same = calibration == NONE
        entry |= {"domains": len(ours), "better": float("nan") if same else int((ours < theirs).sum())}
        found.append(entry | {"p": float("nan") if same else wilcoxon(ours.to_numpy(), theirs.to_numpy())})
    return pd.DataFrame(found)


def cluster_ece(study: pd.DataFrame) -> pd.DataFrame:
    """ECE by number of clusters; one cluster is ``temperature`` (de Jorge et al., 2023, fig. 4 and 12)."""
    return _ablation(study, "clusters", CLUSTERS, {BASE: 1, "clustered": ClusteredConfig().clusters})


def pixel_ece(study: pd.DataFrame) -> pd.DataFrame:
    """ECE of ``temperature`` by pixels per picture that it is fitted on (de Jorge et al., 2023, fig. 10)."""
    return _ablation(study, "pixels", PIXELS, {BASE: PixelConfig().pixels})


def ranking(study: pd.DataFrame) -> pd.DataFrame:
    """PRR, and AUROC of unseen pictures against the source's, beside J&F (de Jorge et al., 2023, fig. 7 and 8)."""
    return _plain(study)[[*KEYS, "images", "objects", "jf", "prr", "ood_auroc"]]


def weather_rss(study: pd.DataFrame) -> pd.DataFrame:
    """RSS and its four terms by corruption and severity; level 0 is the clean picture (RSS paper, fig. 2)."""
    rows = study[study.place == WEATHER].assign(**{"1-ece": lambda own: 1 - own.ece})
    return rows[["model", "calibration", "region", "corruption", "severity", "level", "images", "rss", *RADAR]]


def conformal(study: pd.DataFrame) -> pd.DataFrame:
    """What outer masks cover and inner ones hold of rows with bounds, and how large both are, per data set."""
    if "coverage" not in study:
        return pd.DataFrame(columns=[*KEYS, "images", "objects", *BOUNDS])
    rows = study[study.coverage.notna() & (study.region == study.region.iloc[0])]  # masks know no region
    return rows[[*(key for key in KEYS if key != "region"), "images", "objects", *BOUNDS]]


TABLES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "error_ece": error_ece,
    "calibration_ece": calibration_ece,
    "cluster_ece": cluster_ece,
    "pixel_ece": pixel_ece,
    "ranking": ranking,
    "weather_rss": weather_rss,
    "conformal": conformal,
}


def _plain(study: pd.DataFrame) -> pd.DataFrame:
    """Source and domains, without the rows of the two ablations."""
    return study[(study.place != WEATHER) & ~study.calibration.str.match(f"({CLUSTERS}|{PIXELS})\\d")]


def _ablation(study: pd.DataFrame, name: str, prefix: str, others: dict[str, int]) -> pd.DataFrame:
    """Mean over data sets of each place; models without such rows are left out. others: rows that belong to it."""
    number = study.calibration.str.extract(f"^{prefix}(\\d+)$")[0].astype(float)
    number = number.fillna(study.calibration.map(others))
    ablated = study[study.calibration.str.match(f"{prefix}\\d")].model.unique()
    rows = study.assign(**{name: number})[number.notna() & study.model.isin(ablated) & (study.place != WEATHER)]
    keys = ["model", "place", "region", name]
    found = rows.groupby(keys, as_index=False).agg(domains=("domain", "nunique"), ece=("ece", "mean"))
    return found.astype({name: int})
