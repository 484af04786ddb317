"""Click where the mask is most likely wrong, ask again, and stop when little can be gained.

python examples/next_click_loop.py
"""

import numpy as np

from ruac import Predictor
from ruac.backbone.prompts import central_pixel
from ruac.data.synthetic.scenes import SceneDataset
from ruac.inference.next_click import next_click

scene = SceneDataset(2, seed=7)[1]
truth = scene.masks[0]  # plays the person who says what is true at a pixel
predictor = Predictor()
predictor.set_image(scene.image)

points, labels, previous = [central_pixel(truth)], [1], None
for clicks in range(1, 7):
    answer = predictor.predict(points, labels, mask_input=previous, multimask_output=clicks == 1)
    mask, probability = answer.masks[0], answer.probability[0]
    iou = np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)
    print(f"{clicks} clicks: IoU {iou:.3f}, predicted {answer.scores[0]:.3f}")
    click = next_click(mask, probability, clicked=points)
    if click is None or click.gain < 0.005:
        print("nothing left that is worth a click")
        break
    print(f"  next at {click.point}, hopes to gain {click.gain:.3f}")
    x, y = click.point
    points.append(click.point)
    labels.append(int(truth[y, x]))
    previous = answer.logits[0]
