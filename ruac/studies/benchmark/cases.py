"""What is measured: a backbone with random weights, its head, and a procedural picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ruac.backbone import Backbone, BackboneConfig, Decoded, Features, build_backbone
from ruac.backbone.prompts import Prompts
from ruac.data.sample import Sample
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.inference.model import UncertainSam
from ruac.uncertainty import BayesianConfig, build_head


@dataclass(frozen=True)
class Case:
    """kind: of backbone, see `BackboneConfig`. side: of the model's input and of the picture, in pixels."""

    kind: str = "tiny"
    side: int = 1024
    objects: int = 10

    def __str__(self) -> str:
        return f"{self.kind}, {self.side} px, {self.objects} objects"

    def sample(self) -> Sample:
        return SceneDataset(1, seed=0, config=SceneConfig(side=self.side, objects=(self.objects, self.objects)))[0]

    def model(self) -> UncertainSam:
        """With the signed head, in eval mode, without gradients; no checkpoint is needed."""
        torch.manual_seed(0)
        built = build_backbone(BackboneConfig(kind=self.kind, image_size=self.side))
        backbone = DiskBackbone(built.sam, name=self.kind).freeze()
        config = BayesianConfig(logit_scale=True)
        head = build_head(config, token_dim=backbone.token_dim, channels=backbone.channels)
        return UncertainSam(backbone, head).requires_grad_(False).eval()


class DiskBackbone(Backbone):
    """Does all of its model's work, and then answers with a disk around the first click.

    Times of a model do not depend on its weights, but times of scoring depend on its masks: those of random weights
    are noise, whose contours fill the picture and cost several times as much to compare as a trained model's.
    """

    def decode(self, features: Features, prompts: Prompts) -> Decoded:
        decoded = super().decode(features, prompts)
        cells = decoded.logits.shape[-1]
        stride = self.image_size / cells
        centres = stride * (torch.arange(cells, device=decoded.logits.device) + 0.5)
        x, y = (centres - prompts.points[:, 0].unsqueeze(-1)).unbind(1)  # [N, cells] each
        distance = torch.hypot(y[:, :, None], x[:, None, :])  # [N, h, w]
        disk = (self.image_size / 8 - distance) / stride
        return replace(decoded, logits=disk[:, None].expand_as(decoded.logits))
