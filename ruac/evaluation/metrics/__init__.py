"""Segmentation scores per object and mergeable sums for pixel reliability."""

from ruac.evaluation.metrics.masks import boundary_f, jaccard
from ruac.evaluation.metrics.region import object_band
from ruac.evaluation.metrics.reliability import ReliabilitySums, update_sums

__all__ = ["ReliabilitySums", "boundary_f", "jaccard", "object_band", "update_sums"]
