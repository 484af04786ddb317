"""What source validation says of readers of two looks, and of `auto`: the numbers of source.md, printed again.

python docs/results/logs/looks/source.py SRC readers|auto [PICTURES]

readers: half of the pictures (by the parity of their number) is fitted to, the other measured on. auto: where a zoom
pays. SRC is the source's folder; no domain is looked at.
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from torch import nn

from ruac.backbone import load_backbone
from ruac.data.open import open_dataset
from ruac.data.synthetic.stress import StressConfig, stress
from ruac.evaluation.metrics import jaccard, object_band
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects
from ruac.evaluation.score import Encodings
from ruac.inference.look_mean import combine
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig, Question, ask_look

BAND, ANYWHERE, OBJECTS = 200, 60, 6


@dataclass
class Pixels:
    """inputs ``[P, C]``; logits of the first answer and of the mean; truth, in the band, under stress; weight: area of
    the object's band; image: its number."""

    inputs: np.ndarray
    own: np.ndarray
    mean: np.ndarray
    truth: np.ndarray
    band: np.ndarray
    stressed: np.ndarray
    weight: np.ndarray
    image: np.ndarray


def question(model, image, masks, clicks=3):
    """The first answer to all objects, by the sweep's own prompts."""
    frame = model.backbone.frame(image.shape[:2])
    keys = [str(n) for n in range(len(masks))]
    protocol = ProtocolConfig(clicks=clicks)
    *_, last = prompt_objects(model.decode, Encodings(image)(model.backbone), masks, protocol, frame=frame, keys=keys)
    return Question(image, last.prompts, last.prediction, last.choice, last.masks)


@torch.no_grad()
def draw(model, dataset, pictures):
    """Pixels of every object that is looked at twice, clean and stressed."""
    rng = np.random.default_rng(1)
    columns = []
    for number in rng.permutation(len(dataset))[:pictures]:
        sample = dataset[int(number)]
        masks = sample.masks[rng.permutation(len(sample.masks))[:OBJECTS]]
        views = ((sample.image, masks), stress(sample.image, masks, StressConfig(), rng))
        for stressed, (image, truth) in enumerate(views):
            clicks = int(rng.integers(1, 4)) if rng.random() < 0.5 else 3
            asked = question(model, image, truth, clicks)
            look = ask_look(model, LooksConfig(), asked, "zoom")
            if look is not None:
                columns += pixels_of(asked, look, truth, rng, (stressed, int(number)))
    return Pixels(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def pixels_of(asked, look, truth, rng, place):
    """Columns of `Pixels`, an entry per object."""
    inputs, cells = look.reader_inputs(asked), look.prediction.logits.shape[-2:]
    first, second = asked.prediction.calibrated_logit(asked.choice), look.prediction.calibrated_logit(look.choice)
    bands, found = object_band(truth), []
    for m, (n, view) in enumerate(zip(look.index, look.views, strict=True)):
        own = view.resample(first[n], cells)[0]
        mean = (own.sigmoid() + second[m, 0].sigmoid()) / 2
        area, near = (covered(mask[n][view.window], cells) for mask in (truth, bands))
        if not len(inside := near.nonzero()):
            continue
        inside = inside[torch.from_numpy(rng.integers(len(inside), size=BAND))]
        anywhere = torch.from_numpy(rng.integers(cells, size=(ANYWHERE, 2)))
        y, x = torch.cat([inside, anywhere]).unbind(1)
        values = (inputs[m, :, y, x].T, own[y, x], torch.logit(mean, 1e-7)[y, x], area[y, x], near[y, x])
        ones = np.ones(len(y))
        rest = (place[0] * ones > 0, bands[n].sum() * ones, place[1] * ones)
        found.append((*(value.numpy() for value in values), *rest))
    return found


def covered(mask, cells):
    """Whether a mask covers at least half of each cell."""
    whole = torch.from_numpy(np.ascontiguousarray(mask)).float()[None, None]
    return F.interpolate(whole, cells, mode="area")[0, 0] >= 0.5


def readers(model, dataset, pictures):
    p = draw(model, dataset, pictures)
    fitted = p.image % 2 == 0
    wrong = (p.own > 0) != p.truth
    sides = np.sign(p.own)

    def tell(name, score, logit=None):
        cells = []
        for part in (~p.stressed, p.stressed):
            at = ~fitted & part & p.band
            by = roc_auc_score(wrong[at], score[at], sample_weight=p.weight[at])
            cells.append(f"{roc_auc_score(wrong[at], score[at]):.4f} / {by:.4f}")
        at = ~fitted & ~p.stressed & p.band
        said = "" if logit is None else f"accuracy {((logit > 0) == p.truth)[at].mean():.4f}"
        print(f"{name:48s} clean {cells[0]}  stressed {cells[1]}  {said}", flush=True)

    tell("entropy of the first answer", -np.abs(p.own), p.own)
    tell("entropy of the mean", -np.abs(p.mean), p.mean)
    tell("P(mask wrong) of the mean", -sides * p.mean)
    for shift, steps in ((False, 200), (False, 1500), (True, 200), (True, 300), (True, 800)):
        logit = network(p, fitted, shift, steps)
        name = f"network, {'scale and shift' if shift else 'scale'}, {steps} steps"
        tell(f"{name}: P(wrong)", -sides * logit, logit)
        tell(f"{name}: capped at 1/2", np.minimum(-sides * logit, 0))
        tell(f"{name}: entropy", -np.abs(logit))
    at = fitted & p.band
    trees = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.06, min_samples_leaf=200, l2_regularization=10.0, max_leaf_nodes=15
    ).fit(p.inputs[at], wrong[at])
    tell("gradient boosting: P(wrong)", trees.predict_proba(p.inputs)[:, 1])


def network(p, fitted, shift, steps):
    """Two layers of 48 on standardised inputs, AdamW at 3e-3, batches of 4,096; the logits of all pixels."""
    torch.manual_seed(0)
    inputs, mean, truth = (torch.from_numpy(np.asarray(x, np.float32)) for x in (p.inputs, p.mean, p.truth))
    rows = torch.from_numpy(np.flatnonzero(fitted))
    middle, spread = inputs[rows].mean(0), inputs[rows].std(0).clamp(min=1e-3)
    seen = ((inputs - middle) / spread).clamp(-5, 5)
    net = nn.Sequential(nn.Linear(inputs.shape[1], 48), nn.GELU(), nn.Linear(48, 48), nn.GELU(), nn.Linear(48, 2))
    nn.init.normal_(net[-1].weight, std=1e-3)
    nn.init.zeros_(net[-1].bias)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def logits(at):
        scale, moved = net(seen[at]).unbind(1)
        return mean[at] * scale.clamp(-3, 3).exp() + (3 * moved if shift else 0)

    for _ in range(steps):
        some = rows[torch.randint(len(rows), (4096,))]
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits(some), truth[some]).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return logits(slice(None)).numpy()


@torch.no_grad()
def auto(model, dataset, pictures):
    rng, rows = np.random.default_rng(3), []
    for number in rng.permutation(len(dataset))[:pictures]:
        sample = dataset[int(number)]
        masks = sample.masks[rng.permutation(len(sample.masks))[:8]]
        asked = question(model, sample.image, masks)
        look = ask_look(model, LooksConfig(), asked, "zoom")
        after = combine(asked, [look] if look else [], LooksConfig()).masks
        share = {} if look is None else {n: view.share for n, view in zip(look.index, look.views, strict=True)}
        for n, (before, then) in enumerate(zip(jaccard(asked.masks, masks), jaccard(after, masks), strict=True)):
            iou = float(asked.prediction.iou[n, asked.choice[n]])
            rows.append((before, then, share.get(n, np.inf), iou))
    before, after, share, iou = np.array(rows).T
    gain, looked = after - before, np.isfinite(share)
    print(f"{len(rows)} objects, J {before.mean():.4f} > {after.mean():.4f}, looked at {looked.mean():.3f}")
    for most, least in ((0.1, 1), (0.2, 1), (0.3, 1), (0.4, 1), (1, 0.7), (1, 0.8), (0.3, 0.9), (0.4, 0.9)):
        at = looked & (share < most) & (iou < least)
        kept = gain[at].sum() / gain.sum()
        print(f"window below {most}, IoU below {least}: looks {at.mean():.3f}, of the gain {kept:.2f}")


if __name__ == "__main__":
    source, what, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    run, usual = {"readers": (readers, 307), "auto": (auto, 140)}[what]
    run(
        UncertainSam(load_backbone("nano_scale"), None).eval(),
        open_dataset(source, split="val"),
        int((rest or [usual])[0]),
    )
