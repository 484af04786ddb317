"""Why PCC falls: the head taken apart, and each part against one factor on vanilla's logits.

python why_pcc.py PLACE... images=N   (PLACE: as in `domains` of a sweep; pixels pooled per place, means over places)
"""

import sys

import numpy as np
import torch
from scipy.stats import rankdata

from ruac.backbone.outputs import upsample
from ruac.evaluation.metrics import object_band
from ruac.evaluation.protocol import ProtocolConfig, prompt_objects
from ruac.evaluation.score import Encodings, blocks, objects_of
from ruac.evaluation.sweep.open import open_domains
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam, predict
from ruac.uncertainty import probit_logit
from ruac.uncertainty.local_temperature import scaled

TINY = 2.0**-23


def collect(dataset, head, vanilla, images):
    """Upsampled logits of vanilla and of the head's parts, truth and mask, at all band pixels of `images` pictures."""
    found = []
    for index in np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int):
        sample = dataset[index]
        features = Encodings(sample.image)(vanilla.backbone)
        for block in blocks(min(len(sample.masks), 24), vanilla.backbone):
            part = objects_of(sample, block)
            keys = [f"{part.record.id}/{k}" for k in part.record.object_ids]
            *_, last = prompt_objects(
                vanilla.decode, features, part.masks, ProtocolConfig(), side=vanilla.image_size, keys=keys
            )
            posterior = predict(last.prediction.decoded, head).posterior.select(last.choice)
            mean, variance = posterior.mean, posterior.variance
            logits = {
                "vanilla": last.logits.float(),
                "spread": probit_logit(mean, variance),
                "scale": scaled(mean, torch.zeros_like(mean), posterior.scale, None)[0],
                "spread, scale": probit_logit(*scaled(mean, variance, posterior.scale, None)),
                "shipped": probit_logit(*posterior.calibrated()),
            }
            band = object_band(part.masks)
            maps = {k: upsample(v, part.masks.shape[1:])[:, 0].numpy()[band] for k, v in logits.items()}
            found.append(maps | {"truth": part.masks[band], "mask": last.masks[band]})
    return {key: np.concatenate([one[key] for one in found]) for key in found[0]}


def maps_of(logits, truth):
    p = 1 / (1 + np.exp(-np.clip(logits.astype(float), -60, 60)))
    q = np.clip(p, TINY, 1 - TINY)
    return -(q * np.log2(q) + (1 - q) * np.log2(1 - q)), np.abs(p - truth)


def pcc(a, b):
    return float(np.corrcoef(a, b)[0, 1])


def values(logits, truth, wrong, vanilla_u, vanilla_e):
    u, e = maps_of(logits, truth)
    ranks = rankdata(u)
    n = wrong.sum()
    return {
        "pcc": pcc(u, e),
        "u:e_van": pcc(u, vanilla_e),
        "u_van:e": pcc(vanilla_u, e),
        "u:wrong": pcc(u, wrong.astype(float)),
        "spearman": pcc(ranks, rankdata(e)),
        "auroc": (ranks[wrong].sum() - n * (n + 1) / 2) / (n * (len(wrong) - n)),
        "nll": float(-np.log(np.clip(1 - e, TINY, 1)).mean()),
        "u": u.mean(),
        "u_right": u[~wrong].mean(),
        "u_wrong": u[wrong].mean(),
        "e_right": e[~wrong].mean(),
        "e_wrong": e[wrong].mean(),
        ">.9_right": (u[~wrong] > 0.9).mean(),
        ">.9_wrong": (u[wrong] > 0.9).mean(),
        "<.1_right": (u[~wrong] < 0.1).mean(),
        "<.1_wrong": (u[wrong] < 0.1).mean(),
    }


def factor_for(logits, truth, wanted):
    """The factor of the logits that gives a mean entropy of `wanted`."""
    low, high = 0.02, 50.0
    for _ in range(20):
        middle = (low * high) ** 0.5
        if maps_of(logits * middle, truth)[0].mean() > wanted:
            low = middle
        else:
            high = middle
    return middle


def analyse(data):
    truth, vanilla = data["truth"], data["vanilla"]
    wrong = data["mask"] != truth
    u, e = maps_of(vanilla, truth)
    rows = {}

    def add(name, logits, factor=1.0):
        rows[name] = values(logits * factor, truth, wrong, u, e) | {"factor": factor}

    for name in ("vanilla", "spread", "scale", "spread, scale", "shipped"):
        add(name, data[name])
    for name in ("spread", "spread, scale", "shipped"):
        add(f"vanilla, mean u of {name}", vanilla, factor_for(vanilla, truth, rows[name]["u"]))
        order = np.empty(len(vanilla))
        order[np.argsort(np.abs(data[name]), kind="stable")] = np.sort(np.abs(vanilla))
        add(f"order of {name}, values of vanilla", order * np.sign(data[name]))
    return rows


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    images = int(sys.argv[-1].removeprefix("images="))
    head = load_exported("checkpoints/ruac_nano").eval()
    vanilla = UncertainSam(head.backbone, None)
    print("learned factor", float(head.head.log_scale.exp()))
    found = []
    for name, dataset in open_domains(sys.argv[1:-1]).items():
        data = collect(dataset, head.head, vanilla, images)
        found.append(analyse(data))
        print(name, len(data["truth"]), "pixels", {k: round(v["pcc"], 3) for k, v in found[-1].items()}, flush=True)
    keys = list(found[0]["vanilla"])
    print(" " * 40, *(key.rjust(9) for key in keys))
    for row in found[0]:
        print(row.ljust(40), *(f"{np.mean([one[row][key] for one in found]):9.4f}" for key in keys))
    for row in found[0]:
        above = sum(one[row]["pcc"] > one["vanilla"]["pcc"] for one in found)
        print(f"PCC of {row} above vanilla's: {above} of {len(found)}")


if __name__ == "__main__":
    main()
