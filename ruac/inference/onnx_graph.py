"""The two graphs that other runtimes get: a picture to features, and features with prompts to masks and maps.

What they compute is what the package computes; what differs is that a mask as a prompt is always there, and counts or
not, since a graph has no None. To be traced with gradients switched on (the weights are frozen): that is where maps
are computed as one expression, and not block by block for the caches of a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ruac.backbone.outputs import Features
from ruac.backbone.prompts import Prompts
from ruac.base.errors import RuacError
from ruac.data.augment import normalise
from ruac.inference.model import UncertainSam, predict
from ruac.uncertainty import decompose
from ruac.uncertainty.maps import logit_uncertainty, probit_logit

FEATURES = ("embedding", "high_res_0", "high_res_1")
PROMPTS = ("points", "labels", "mask_input", "has_mask")
HEADS = ("none", "signed", "nonnegative", "temperature", "local_temperature")  # analytic, and tested as graphs
ANSWERS = ("masks", "scores", "object_score", "probability", "uncertainty", "aleatoric", "epistemic")


class EncoderGraph(nn.Module):
    """``image float32 [1, 3, S, S]``, RGB in [0, 1], to `FEATURES`: ``[1, D, S/16, S/16]``, ``[1, D/8, S/4, S/4]``,
    ``[1, D/4, S/8, S/8]``."""

    def __init__(self, model: UncertainSam):
        super().__init__()
        self.backbone = check_exportable(model).backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone.encode(normalise(image))
        return features.embedding, *features.high_res


class DecoderGraph(nn.Module):
    """Prompt encoder, mask decoder and uncertainty of N objects of one picture with P points each.

    In: `FEATURES`, and `PROMPTS` as in `backbone.prompts.Prompts`: points ``float32 [N, P, 2]``, labels ``int64 [N,
    P]``, mask_input ``float32 [N, 1, S/4, S/4]``, logits of an earlier answer, which count where has_mask ``float32
    [N]`` is not 0. Out: `ANSWERS`. masks, logits, and the maps are ``float32 [N, 4, S/4, S/4]``, of the single mask and
    the three candidates; scores ``[N, 4]``, object_score ``[N, 1]``. The maps are those of `Prediction.maps` before
    they are brought to the picture's size; without a head nothing is epistemic.
    """

    def __init__(self, model: UncertainSam):
        super().__init__()
        self.model = check_exportable(model)

    def forward(
        self,
        embedding: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        body, encoder = self.model.backbone, self.model.backbone.sam.sam_prompt_encoder
        features = Features(embedding, [high_res_0, high_res_1]).expand(points.shape[0])
        sparse, dense = encoder(points=(points, labels), boxes=None, masks=None)
        dense = torch.where(has_mask[:, None, None, None] != 0, encoder.mask_downscaling(mask_input), dense)
        prediction = predict(body.decode_embedded(features, sparse, dense), self.model.head)
        prediction = self.model.calibrated(prediction, features, Prompts(points, labels))
        answer = (prediction.logits, prediction.iou, prediction.decoded.object_score)
        if prediction.posterior is None:
            total = logit_uncertainty(prediction.logits)
            return *answer, torch.sigmoid(prediction.logits), total, total.clone(), torch.zeros_like(total)
        mean, variance = prediction.posterior.calibrated()
        logit = probit_logit(mean, variance)
        return *answer, torch.sigmoid(logit), logit_uncertainty(logit), *decompose(mean, variance)


def check_exportable(model: UncertainSam) -> UncertainSam:
    """`model`, if its answer is one pass of SAM 2's decoder. Raises `RuacError` that says what is in the way."""
    body, sam = model.backbone, model.backbone.sam
    if body.boxes_only or not getattr(sam.sam_mask_decoder, "use_high_res_features", False):
        raise RuacError(f"backbone {body.name}: expected SAM 2's decoder; a SAM 1 has no such graph")
    if model.ensemble or model.looks or model.filters:
        raise RuacError("a graph is one pass of the decoder; expected a model without ensemble, looks and filters")
    if model.head is not None and model.head.config.posterior not in HEADS:
        raise RuacError(f"head {model.head.config.posterior}: has no graph; expected one of {', '.join(HEADS)}")
    if model.calibrator is not None and model.calibrator.reads:
        needs = ", ".join(model.calibrator.reads)
        raise RuacError(f"calibrator {model.calibrator.kind}: reads {needs}, which the graph does not have")
    return model
