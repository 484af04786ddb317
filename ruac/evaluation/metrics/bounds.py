"""How often inner and outer masks keep their promise, and how large they are."""

from __future__ import annotations

import torch
from torch import Tensor


def bound_scores(inner: Tensor, outer: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Scores of N objects' inner and outer masks, float64 ``[N]`` each; all masks ``bool [N, H, W]``, no truth empty.

    coverage: share of the object inside the outer mask. purity: share of the inner mask inside the object, 1 where it
    is empty. outer_size, inner_size: areas, in areas of the object. undecided: share of the picture between inner and
    outer mask: a pixel's set of answers holds 1 of them, and 2 there, so its mean size is 1 + undecided.
    """
    area, within, around = (mask.sum(dim=(1, 2), dtype=torch.float64) for mask in (truth, inner, outer))
    covered, right = ((mask & truth).sum(dim=(1, 2), dtype=torch.float64) for mask in (outer, inner))
    return {
        "coverage": covered / area,
        "purity": torch.where(within > 0, right / within.clamp(min=1), torch.ones_like(within)),
        "outer_size": around / area,
        "inner_size": within / area,
        "undecided": (outer & ~inner).double().mean(dim=(1, 2)),
    }
