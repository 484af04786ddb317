"""Segmentation scores per object and mergeable sums for pixel reliability."""

from ruac.metrics.region import object_band
from ruac.metrics.reliability import ReliabilitySums, update_sums
from ruac.metrics.segmentation import boundary_f, jaccard

__all__ = ["ReliabilitySums", "boundary_f", "jaccard", "object_band", "update_sums"]
