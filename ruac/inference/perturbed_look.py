"""A look at a changed picture: the whole of it, perturbed by one who knows the predicted masks, asked the same again.

What changes in the answer is a further member of the mean of looks. Who perturbs is no part of a model: no export holds
it, and nothing here knows how it was made (`ruac.training.attack_look` makes one of a training run's attackers).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.backbone.outputs import Features
from ruac.data.augment import prepare
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import Look, LooksConfig, Question, answer_to, edges_of
from ruac.inference.views import View


class Perturbation(Protocol):
    """Changes a picture's look and moves nothing."""

    def __call__(self, image: Tensor, features: Features, masks: Tensor) -> Tensor:
        """A changed ``image [1, 3, S, S]``, normalised.

        features: of the unchanged one. masks: ``[1, N, S, S]`` in {0, 1}, predicted, perhaps empty.
        """


def ask_perturbed(model: UncertainSam, config: LooksConfig, question: Question, perturb: Perturbation) -> Look:
    """Ask all objects again on one picture that was perturbed given all of their masks: two more encodings.

    The picture fills the model's square, also that of a model that pads pictures.
    """
    body, size, count = model.backbone, question.image.shape[:2], len(question.choice)
    seen = (body.image_size, body.image_size)
    cells = seen[0] // body.mask_stride, seen[1] // body.mask_stride
    device = question.choice.device
    pixels = prepare(question.image, seen).to(device)
    masks = torch.from_numpy(np.ascontiguousarray(question.masks))[None].float()
    masks = (F.interpolate(masks, seen, mode="area") >= 0.5).float().to(device)
    changed = perturb(pixels, body.encode(pixels), masks)
    index, views = list(range(count)), [View.whole(size)] * count
    prediction, choice = answer_to(model, config, question, index, views, model.encode(changed).expand(count), seen)
    return Look("perturbed", index, views, prediction, choice, edges_of(changed, cells).expand(count, -1, -1, -1))
