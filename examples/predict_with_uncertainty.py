"""A click, its three masks, and where each may be wrong.

python examples/predict_with_uncertainty.py [PICTURE X Y]
"""

import sys
from pathlib import Path

import numpy as np

from ruac import Predictor
from ruac.backbone.prompts import central_pixel
from ruac.data.synthetic.scenes import SceneDataset
from ruac.evaluation.report.overlay import save_overlay
from ruac.inference.picture import picture_of

if len(sys.argv) > 1:
    image, click = picture_of(sys.argv[1]), [float(sys.argv[2]), float(sys.argv[3])]
else:
    scene = SceneDataset(4, seed=1)[3]  # drawn, not downloaded
    image, click = scene.image, list(central_pixel(scene.masks[0]))

predictor = Predictor()  # the embedded model; or a folder of ruac export
predictor.set_image(image)
answer = predictor.predict(point_coords=[click], point_labels=[1], decomposed=True)

for index, mask in enumerate(answer.masks):  # best first
    doubt = answer.uncertainty[index]
    print(
        f"mask {index}: {mask.sum():6d} pixels, predicted IoU {answer.scores[index]:.2f}, "
        f"expected IoU {answer.expected_iou[index]:.2f}, {(doubt > 0.5).mean():.1%} of the picture unsure, "
        f"epistemic share {answer.epistemic[index].sum() / doubt.sum():.2f}"
    )
out = Path("runs/examples/predict.png")
save_overlay(out, image, answer.masks[0], answer.uncertainty[0], points=np.array([click]))
print(f"overlay: {out}")
