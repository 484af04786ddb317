"""How far beyond its window a look's answer should go on: the numbers of edges.txt, printed again.

python docs/results/logs/looks/edges.py SRC [PICTURES]

Pictures of source validation, as they are and under stress; the shipped model, masks kept, every pixel of the picture.
Per object: negative log-likelihood (nats), Brier score and ECE of the probability; AUROC of the first mask's errors.
"""

import sys

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from ruac.data.open import open_dataset
from ruac.data.synthetic.stress import StressConfig, stress
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects
from ruac.evaluation.score import Encodings
from ruac.inference.export import load_exported
from ruac.inference.look_mean import combine
from ruac.inference.second_look import LooksConfig, Question, ask_look

EDGES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)


@torch.no_grad()
def main(source, pictures):
    torch.set_num_threads(1)
    model, dataset = load_exported("checkpoints/ruac_nano_scale").eval(), open_dataset(source, split="val")
    rng = np.random.default_rng(5)
    rows = {edge: [] for edge in EDGES}
    for number in rng.permutation(len(dataset))[:pictures]:
        sample = dataset[int(number)]
        masks = sample.masks[rng.permutation(len(sample.masks))[:5]]
        for image, truth in ((sample.image, masks), stress(sample.image, masks, StressConfig(), rng)):
            frame, keys = model.backbone.frame(image.shape[:2]), [str(n) for n in range(len(truth))]
            encoded = Encodings(image)(model.backbone)
            *_, last = prompt_objects(model.decode, encoded, truth, ProtocolConfig(), frame=frame, keys=keys)
            question = Question(image, last.prompts, last.prediction, last.choice, last.masks)
            look = ask_look(model, LooksConfig(), question, "zoom")
            if look is None:
                continue
            for edge in EDGES:
                config = LooksConfig(edge=edge, keep_masks=True)
                maps = combine(question, [look], config, reader=model.reader).maps
                for n in look.index:
                    rows[edge].append(values(maps.probability[n, 0], maps.total[n, 0], truth[n], last.masks[n]))
    print(f"{len(rows[EDGES[0]])} objects")
    for edge, found in rows.items():
        nll, brier, ece, auroc = np.nanmean(np.array(found), axis=0)
        print(f"edge {edge:4.2f}: NLL {nll:.4f}  Brier {brier:.4f}  ECE {ece:.4f}  AUROC {auroc:.4f}")


def values(probability, total, truth, mask):
    p, truth, wrong = probability.double().numpy().ravel(), truth.ravel(), (truth != mask).ravel()
    said = np.where(truth, p, 1 - p).clip(1e-9)
    bins = np.minimum((p * 15).astype(int), 14)
    gaps = np.abs(np.bincount(bins, truth - p, minlength=15)).sum() / len(p)
    ranked = roc_auc_score(wrong, total.numpy().ravel()) if 0 < wrong.sum() < len(wrong) else np.nan
    return -np.log(said).mean(), ((truth - p) ** 2).mean(), gaps, ranked


if __name__ == "__main__":
    main(sys.argv[1], int((sys.argv[2:] or ["60"])[0]))
