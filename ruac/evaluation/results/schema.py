"""What a sweep's folder is made of: file names, keys, and the columns of a row."""

from __future__ import annotations

import pyarrow as pa

OBJECTS, DOMAINS, MANIFEST = "objects.parquet", "domains.csv", "manifest.json"

KEYS = ("domain", "model", "score", "region")
"""Of a row of `DOMAINS`, and of a set of pixel sums."""

REGIONS = ("image", "band")
"""Where pixels are counted: everywhere, or around the object."""

CASES = ("worst", "overconfident", "best")
"""Objects of which a domain shows pictures, in the order of the galleries."""

ROW = pa.schema(  # of an object and a model, in `OBJECTS`
    {
        "domain": pa.string(),
        "image": pa.string(),
        "object": pa.string(),
        "model": pa.string(),
        "j": pa.float64(),
        "j_by_click": pa.list_(pa.float64()),
        "f": pa.float64(),
        "predicted_iou": pa.float64(),
        "area": pa.int64(),
        "clicks": pa.int64(),
        "band_error": pa.float64(),
        "band_uncertainty": pa.float64(),
        "band_counts": pa.list_(pa.int32()),
        "points": pa.list_(pa.float64()),
        "labels": pa.list_(pa.int64()),
        "coverage": pa.float64(),  # from here on null without conformal bounds
        "purity": pa.float64(),
        "outer_size": pa.float64(),
        "inner_size": pa.float64(),
        "undecided": pa.float64(),
        "reliability": pa.float64(),  # null without a reader of it
    }
)

BOUNDS = ("coverage", "purity", "outer_size", "inner_size", "undecided")
"""Columns of conformal bounds, see `metrics.bounds`."""
