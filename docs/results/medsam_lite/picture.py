"""The picture of docs/images/medical.png: LiteMedSAM on one ultrasound picture, with one look and with two.

python docs/results/medsam_lite/picture.py DOMAINS/ultrasound OUT.png
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from ruac import Predictor
from ruac.backbone import load_backbone
from ruac.data.open import open_dataset
from ruac.inference.model import UncertainSam


def main(folder, out):
    sample = open_dataset(folder)[3]
    truth = sample.masks[0]
    y, x = np.nonzero(truth)
    box = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
    predictor = Predictor(UncertainSam(load_backbone("medsam_lite"), None))
    predictor.set_image(sample.image)
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained")
    for axis, looks, title in ((axes[1], None, "one look"), (axes[2], ["zoom"], "with a second look")):
        answer = predictor.predict(box=box, multimask_output=False, looks=looks)
        mask = answer.masks[0]
        axis.imshow(sample.image)
        axis.imshow(answer.uncertainty[0], cmap="magma", vmin=0, vmax=1, alpha=0.75)
        axis.contour(mask, [0.5], colors="#39d0ff", linewidths=1.6)
        axis.contour(truth, [0.5], colors="white", linewidths=1.1, linestyles="dashed")
        j = (mask & truth).sum() / (mask | truth).sum()
        axis.set_title(f"uncertainty, {title}: J {100 * j:.0f}", fontsize=10)
    axes[0].imshow(sample.image)
    size = box[2] - box[0], box[3] - box[1]
    axes[0].add_patch(plt.Rectangle(box[:2], *size, fill=False, color="#ffd23f", lw=1.6))
    axes[0].set_title("an ultrasound picture and a box", fontsize=10)
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.set(xlim=(middle[0] - 110, middle[0] + 110), ylim=(middle[1] + 110, middle[1] - 110))
    figure.savefig(out, dpi=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
