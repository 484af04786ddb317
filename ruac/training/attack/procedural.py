"""Procedural stress as an attack: every picture of a batch under one shift or corruption, drawn by torch's seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ruac.data.augment import MEAN, STD, normalise
from ruac.data.synthetic.stress import StressConfig, stress


class ProceduralStress(nn.Module):
    """Draws from the families of `StressConfig`, image by image; nothing is learned and nothing differentiated.

    One number of torch's generator seeds an image's shift, so that what seeds a training step fixes its stress too, and
    a resumed run repeats it.
    """

    def __init__(self, config: StressConfig):
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, images: Tensor, masks: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[B, 3, S, S]``, ImageNet-normalised and rounded to 8 bits on the way, and masks ``[B, K, S, S]``."""
        seeds = torch.randint(2**62, (len(images),)).tolist()
        light = (images.float() * STD.to(images.device) + MEAN.to(images.device)).clamp(0, 1)
        pixels = (light * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        stressed, moved = [], masks.clone()
        for n, seed in enumerate(seeds):
            held = valid[n] & masks[n].flatten(1).any(dim=1)
            truth = (masks[n][held] > 0.5).cpu().numpy()
            picture, truth = stress(pixels[n], truth, self.config, np.random.default_rng(seed))
            stressed.append(torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255)
            moved[n, held] = torch.from_numpy(truth).to(masks)
        return normalise(torch.stack(stressed)).to(images), moved
