"""Replacing SAM 2's predictor is one import: the same calls, the same masks, scores and logits.

python examples/in_place_of_sam2.py [CHECKPOINT]

Without a checkpoint of SAM 2.1 tiny the weights are random: the masks mean nothing, and are still equal.
"""

import sys

import numpy as np
import torch

from ruac import Predictor as Replacement  # first: it mends torchvision where that needs it
from ruac.data.synthetic.scenes import SceneDataset

# isort: split
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

torch.manual_seed(0)
checkpoint = sys.argv[1] if len(sys.argv) > 1 else None
model = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", checkpoint, device="cpu")
image = SceneDataset(1, seed=0)[0].image

answers = []
for Predictor in (SAM2ImagePredictor, Replacement):
    predictor = Predictor(model)
    predictor.set_image(image)
    answers.append(
        predictor.predict(
            point_coords=np.array([[100, 120]]), point_labels=np.array([1]), box=None, multimask_output=True
        )
    )
(masks, scores, logits), answer = answers
found = tuple(answer)  # unpacks as SAM 2's does, in its order
for name, theirs, ours in zip(("masks", "scores", "logits"), (masks, scores, logits), found, strict=True):
    print(f"{name}: {ours.shape}, largest difference {np.abs(theirs - ours).max():.2g}")
print(f"and more: uncertainty {answer.uncertainty.shape}, expected IoU {np.round(answer.expected_iou, 2)}")
