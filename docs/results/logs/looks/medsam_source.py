"""What a zoom of LiteMedSAM should show it, by source validation: the numbers of medsam_source.txt, printed again.

python docs/results/logs/looks/medsam_source.py SRC [PICTURES]

Tight boxes, single mask. Per object: J of the mean of looks; of the first answer's errors in the band, AUROC.
"""

import sys

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from ruac.backbone import load_backbone
from ruac.data.open import open_dataset
from ruac.evaluation.metrics import jaccard, object_band
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects
from ruac.evaluation.score import Encodings
from ruac.inference.look_mean import combine
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig, Question, ask_look

MARGINS = (1.3, 1.6, 2.4)


@torch.no_grad()
def main(source, pictures):
    torch.set_num_threads(1)
    model, dataset = UncertainSam(load_backbone("medsam_lite"), None).eval(), open_dataset(source, split="val")
    rng = np.random.default_rng(5)
    rows = {}
    for number in rng.permutation(len(dataset))[:pictures]:
        sample = dataset[int(number)]
        masks = sample.masks[rng.permutation(len(sample.masks))[:5]]
        frame, keys = model.backbone.frame(sample.image.shape[:2]), [str(n) for n in range(len(masks))]
        protocol = ProtocolConfig(box=True, clicks=1, multimask=False)
        encoded = Encodings(sample.image)(model.backbone)
        *_, last = prompt_objects(model.decode, encoded, masks, protocol, frame=frame, keys=keys)
        question = Question(sample.image, last.prompts, last.prediction, last.choice, last.masks)
        bands = object_band(masks)
        add(rows, "first", combine(question, [], LooksConfig()), last.masks, masks, bands)
        for margin in MARGINS:
            for feedback in (True, False):
                config = LooksConfig(looks=["zoom"], margin=margin, feedback=feedback)
                look = ask_look(model, config, question, "zoom")
                looked = combine(question, [] if look is None else [look], config)
                add(rows, f"zoom {margin} feedback {feedback}", looked, last.masks, masks, bands)
    for name, found in rows.items():
        print(f"{name:28s} {len(found)} objects: J {np.mean([j for j, _ in found]):.4f}", end="  ")
        print(f"AUROC {np.nanmean([auroc for _, auroc in found]):.4f}", flush=True)


def add(rows, name, looked, first, truth, bands):
    for n, j in enumerate(jaccard(looked.masks, truth)):
        at = bands[n]
        wrong = (first[n] != truth[n])[at]
        auroc = np.nan
        if 0 < wrong.sum() < wrong.size:
            auroc = roc_auc_score(wrong, looked.maps.total[n, 0].numpy()[at])
        rows.setdefault(name, []).append((j, auroc))


if __name__ == "__main__":
    main(sys.argv[1], int((sys.argv[2:] or ["60"])[0]))
