"""Objects of a class prompted one by one, their masks merged to a probability map of the class."""

from __future__ import annotations

import numpy as np

from ruac.inference.predictor import Predictor
from ruac.labelling.prompts import ClassPrompt


def class_probability(
    predictor: Predictor, image: np.ndarray, prompts: list[ClassPrompt], count: int, *, background: bool, weigh: bool
) -> np.ndarray:
    """Probability of each of `count` classes, float32 ``[K, H, W]`` in [0, 1]; over classes it need not add up to 1.

    A class is as probable as the most probable of its objects there, and 0 without one; the background, class 0, is 1
    minus the largest of all. weigh: multiply each object's probability by the predicted IoU of its mask (in [0, 1]),
    so that a mask that SAM 2 itself holds for wrong counts less.
    """
    maps = np.zeros((count, *image.shape[:2]), np.float32)
    if prompts:
        predictor.set_image(image)
    for prompt in prompts:
        labels = None if prompt.points is None else np.ones(len(prompt.points), int)
        answer = predictor.predict(points=prompt.points, labels=labels, box=prompt.box)
        weight = np.clip(answer.scores[0], 0, 1) if weigh else 1
        np.maximum(maps[prompt.kind], weight * answer.probability[0], out=maps[prompt.kind])
    if background:
        maps[0] = 1 - maps[1:].max(axis=0)
    return maps
