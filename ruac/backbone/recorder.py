"""Decoder passes that SAM 2's own code makes, as `Decoded`: for a head that listens to a video predictor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ruac.backbone.outputs import Decoded


@contextmanager
def recorded(decoder: nn.Module) -> Iterator[list[tuple[Decoded, int]]]:
    """Inside, every pass of a `MaskDecoder` adds (what it said, how many masks were asked for) to the list.

    The caller empties the list. Nothing that the decoder returns is changed.
    """
    passes: list[tuple[Decoded, int]] = []
    parts: dict[str, torch.Tensor] = {}
    weights: list[torch.Tensor] = []

    def keep(name: str):
        return lambda _module, _inputs, out: parts.update({name: out})

    def finish(_module: nn.Module, _inputs: tuple, out: tuple) -> None:
        pixels, hypernetworks = parts["pixels"], torch.stack(weights, dim=1)  # [N, c, h, w], [N, 4, c]
        first = 1 + int(decoder.pred_obj_scores)  # before the mask tokens come those of IoU and presence
        decoded = Decoded(
            logits=torch.einsum("nkc,nchw->nkhw", hypernetworks, pixels),
            iou=parts["iou"],
            object_score=out[3],
            mask_tokens=parts["tokens"][0][:, first : first + decoder.num_mask_tokens],
            pixel_tokens=pixels,
            mask_weights=hypernetworks,
        )
        passes.append((decoded, out[0].shape[1]))
        weights.clear()

    hooks = [
        decoder.transformer.register_forward_hook(keep("tokens")),
        decoder.output_upscaling[-1].register_forward_hook(keep("pixels")),
        decoder.iou_prediction_head.register_forward_hook(keep("iou")),
        *(
            mlp.register_forward_hook(lambda _m, _i, out: weights.append(out))
            for mlp in decoder.output_hypernetworks_mlps
        ),
        decoder.register_forward_hook(finish),
    ]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()
