"""Pictures to begin with: scenes that are drawn, in the source's look and in others, so that nothing is downloaded."""

from __future__ import annotations

from functools import cache

import numpy as np

from ruac.data.synthetic.scenes import SceneConfig, SceneDataset

PICTURES = {  # title: shift, index
    "things on a ground": (None, 0),
    "more of them": (None, 3),
    "in fog": ("fog", 1),
    "at night": ("night", 2),
    "from above": ("overhead", 0),
    "under a microscope": ("microscopy", 1),
}
SIDE, SEED = 384, 4


@cache
def picture(title: str) -> np.ndarray:
    """``uint8 [SIDE, SIDE, 3]``, always the same; read-only."""
    shift, index = PICTURES[title]
    image = SceneDataset(index + 1, seed=SEED, config=SceneConfig(side=SIDE), shift=shift)[index].image
    image.flags.writeable = False
    return image
