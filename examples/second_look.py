"""Look at the object again, in a window around it, and average both answers. Adds one encoding per object.

python examples/second_look.py
"""

import numpy as np

from ruac import Predictor
from ruac.backbone.prompts import central_pixel
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)


predictor = Predictor()
scenes = SceneDataset(4, seed=2, config=SceneConfig(side=512, objects=(6, 8)))  # small objects gain the most
found: dict[str, list[float]] = {"one look": [], "zoom": []}
for scene in (scenes[index] for index in range(len(scenes))):
    predictor.set_image(scene.image)
    for truth in scene.masks[:2]:
        click = dict(point_coords=[central_pixel(truth)], point_labels=[1])
        found["one look"].append(iou(predictor.predict(**click).masks[0], truth))
        found["zoom"].append(iou(predictor.predict(**click, looks=["zoom"]).masks[0], truth))  # or "zoom+flip"
for name, values in found.items():
    print(f"{name:8}: mean IoU {np.mean(values):.3f} of {len(values)} objects")
