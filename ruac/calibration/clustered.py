"""A temperature per kind of picture: clusters of image features (Gong et al., 2021; de Jorge et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ruac.base.errors import RuacError
from ruac.calibration.answers import Answers, Evidence, check_answers
from ruac.calibration.calibrator import Calibrator
from ruac.calibration.histogram import LogitHistogram
from ruac.calibration.temperature import fit_groups


@dataclass
class ClusteredConfig:
    """clusters: of k-means, on the mean of the backbone's embedding over the picture."""

    clusters: int = 16

    def validate(self) -> None:
        if not 1 <= self.clusters <= 1 << 16:
            raise RuacError(f"clusters: {self.clusters}, expected at least 1 and at most {1 << 16}")


class Clustered(Calibrator):
    """``l / T_k``, k the cluster whose centre is nearest to the picture's feature; one cluster is `Temperature`."""

    kind = settings = "clustered"
    Config = ClusteredConfig
    reads = ("feature",)

    def __init__(self, config: ClusteredConfig | None = None):
        super().__init__(config)
        self.register_buffer("centres", torch.zeros(self.config.clusters, 1))
        self.register_buffer("log_temperature", torch.zeros(self.config.clusters))

    def fit(self, answers: Sequence[Answers], *, seed: int = 0) -> None:
        from sklearn.cluster import KMeans  # takes a second to import, and only fitting needs it

        check_answers(answers, images=self.config.clusters)
        features = torch.cat([one.evidence.need(self.kind, "feature")[0][:1] for one in answers])  # [pictures, D]
        found = KMeans(self.config.clusters, n_init=10, random_state=seed).fit(features.double().numpy())
        self.centres = torch.from_numpy(found.cluster_centers_).float().to(self.centres.device)
        histogram = LogitHistogram(self.config.clusters)
        for one in answers:
            cluster = self.nearest(one.evidence.feature)
            owner = one.place[:, 0].long() if len(cluster) > 1 else torch.zeros(len(one.place), dtype=torch.int64)
            histogram.add(one.pixels(), one.truth, cluster[owner])
        self.log_temperature.copy_(torch.from_numpy(fit_groups(histogram)[1]).log())

    def nearest(self, feature: Tensor) -> Tensor:
        """Cluster of each of ``feature [N, D]``, int64 ``[N]``. Raises `RuacError` for another D."""
        if feature.shape[-1] != self.centres.shape[-1]:
            raise RuacError(f"{self.kind}: features of {feature.shape[-1]} numbers, expected {self.centres.shape[-1]}")
        return torch.cdist(feature.to(self.centres), self.centres).argmin(dim=1)

    def forward(self, logits: Tensor, evidence: Evidence) -> Tensor:
        (feature,) = evidence.need(self.kind, "feature")
        return logits / self.log_temperature[self.nearest(feature)].exp()[:, None, None, None]
