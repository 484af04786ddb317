"""Readers by what they read, measured on origins of the source that they were not fitted to: origins.txt.

python docs/results/logs/looks/origins.py draw SRC OUT COUNT EXPORT
python docs/results/logs/looks/origins.py fit OUT [SEED]
python docs/results/logs/looks/origins.py several OUT

draw: windows of objects that EXPORT, a head without a local temperature, was asked for twice; COUNT pictures of each
origin of the training split, as they are and under a procedural shift. fit: of each set of inputs, networks that read
single pixels, fitted to all origins but a quarter of them and measured on that quarter; "half" halves what the network
asks for, "(seen)" is fitted to all origins. Columns: means over origins, then AUROC of each. No domain is looked at.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from ruac.data.open import open_dataset
from ruac.data.synthetic.stress import StressConfig, stress
from ruac.fitting.look_reader import LookMaps, LookReaderFitConfig, joined, look_maps
from ruac.inference.export import load_exported
from ruac.uncertainty.look_reader import INPUTS

OBJECTS, BAND = 5, 200


@torch.no_grad()
def draw(source, out, count, export):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    config = LookReaderFitConfig(source="-", export=export, objects=OBJECTS)
    model, dataset = load_exported(export).eval(), open_dataset(source, split="train")
    origins = np.array([record.origin for record in dataset.records])
    for kind in ("clean", "stress"):
        found, where = [], []
        for place, origin in enumerate(sorted(set(origins))):
            rng = np.random.default_rng(0)
            for number in rng.permutation(np.flatnonzero(origins == origin))[: int(count)]:
                sample = dataset[int(number)]
                chosen, asked, shift = (np.random.default_rng([int(number), stream]) for stream in (1, 2, 4))
                view = sample.image, sample.masks[chosen.permutation(len(sample.masks))[:OBJECTS]]
                if kind == "stress":
                    view = stress(*view, StressConfig(), shift)
                if (seen := view[1].any(axis=(1, 2))).any():
                    maps = look_maps(model, view[0], view[1][seen], config, asked, int(number))
                    if maps is not None:
                        found.append(maps)
                        where += [place] * len(maps.truth)
            print(kind, origin, len(where), flush=True)
        maps = joined(found)
        columns = [maps.inputs, maps.logits, maps.truth, maps.band, maps.image, torch.tensor(where)]
        torch.save(columns, out / f"{kind}.pt")


OBJECT_LEVEL = (
    "entropy of the mask",
    "share of the map",
    "predicted IoU",
    "overlap of the masks",
    "share of the picture",
)
SIZE = ("share of the map", "share of the picture")


def has(names):
    return lambda text: any(text.endswith(name) for name in names)


SETS = {
    "all": lambda text: True,
    "no size": lambda text: not has(SIZE)(text),
    "no whole masks": lambda text: not has(OBJECT_LEVEL)(text),
    "both looks' own": lambda text: ":" not in text,
    "both looks' own, no whole masks": lambda text: ":" not in text and not has(OBJECT_LEVEL)(text),
    "first": lambda text: text.startswith("first"),
    "first, no size": lambda text: text.startswith("first") and not has(SIZE)(text),
    "first, no whole masks": lambda text: text.startswith("first") and not has(OBJECT_LEVEL)(text),
    "mean, entropy, difference": lambda text: text in ("mean", "entropy of the mean", "difference"),
}


def pixels(out, kind):
    """Drawn pixels of every window: inputs, mean logit, first logit's sign, truth, in the band, origin."""
    *maps, where = torch.load(Path(out) / f"{kind}.pt", weights_only=True)
    maps, generator, found = LookMaps(*maps), torch.Generator().manual_seed(1), []
    own_place = INPUTS.index("first: logit")
    for n in range(len(maps.truth)):
        near = maps.band[n].nonzero()
        if not len(near):
            continue
        at = near[torch.randint(len(near), (BAND,), generator=generator)]
        around = torch.randint(maps.truth.shape[1], (BAND // 4, 2), generator=generator)
        y, x = torch.cat([at, around]).unbind(1)
        values = maps.inputs[n][:, y, x].T.float()
        band = torch.arange(len(y)) < BAND
        there = where[n].expand(len(y))
        found.append((values, maps.logits[n, y, x].float(), values[:, own_place], maps.truth[n, y, x], band, there))
    return [torch.cat(column) for column in zip(*found, strict=True)]


def network(inputs, mean, truth, columns, seed, steps=300):
    """A function of inputs and mean logits to logits: two layers of 48, a scale and a shift."""
    torch.manual_seed(seed)
    seen = inputs[:, columns]
    middle, spread = seen.mean(0), seen.std(0).clamp(min=1e-3)
    net = nn.Sequential(nn.Linear(len(columns), 48), nn.GELU(), nn.Linear(48, 48), nn.GELU(), nn.Linear(48, 2))
    nn.init.normal_(net[-1].weight, std=1e-3)
    nn.init.zeros_(net[-1].bias)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def logits(some, means, part=1.0):
        scale, moved = net(((some[:, columns] - middle) / spread).clamp(-5, 5)).unbind(1)
        return means * (part * scale.clamp(-3, 3)).exp() + part * 3 * moved.clamp(-3, 3)

    for _ in range(steps):
        rows = torch.randint(len(truth), (4096,))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits(inputs[rows], mean[rows]), truth[rows].float()).backward()
        optimizer.step()
        schedule.step()
    return torch.no_grad()(logits)


class Table:
    """Of windows of both kinds: AUROC of the first mask's errors, masks kept, and NLL, by name, kind and origin."""

    def __init__(self, out):
        self.kinds = {kind: pixels(out, kind) for kind in ("clean", "stress")}
        self.origins = sorted(set(self.kinds["clean"][-1].tolist()))
        self.folds = [self.origins[k::4] for k in range(4)]
        self.rows = {}

    def measure(self, name, kind, origin, logit):
        _, _, own, truth, band, where = self.kinds[kind]
        at = band & (where == origin)
        doubt = np.minimum(-(own.sign() * logit)[at].numpy(), 0)
        wrong = ((own > 0) != truth)[at].numpy()
        nll = F.binary_cross_entropy_with_logits(logit[at], truth[at].float()).item()
        self.rows.setdefault(name, []).append((kind, origin, roc_auc_score(wrong, doubt), nll))

    def network(self, origins, columns, seed):
        """Fitted to windows of both kinds of these origins."""
        inputs, mean, _, truth, _, where = (torch.cat(pair) for pair in zip(*self.kinds.values(), strict=True))
        at = torch.isin(where, torch.tensor(origins))
        return network(inputs[at], mean[at], truth[at], columns, seed)


def fit(out, seed="0"):
    table = Table(out)
    for kind, (_, mean, own, *_) in table.kinds.items():
        for origin in table.origins:
            table.measure("first answer", kind, origin, 4 * torch.atanh(own.clamp(-0.9999, 0.9999)))
            table.measure("mean of both", kind, origin, mean)
    for name, chosen in SETS.items():
        columns = [k for k, text in enumerate(INPUTS) if chosen(text)]
        for fold in [*table.folds, []]:
            logits = table.network([o for o in table.origins if o not in fold], columns, int(seed))
            for kind, (inputs, mean, *_) in table.kinds.items():
                for part in (1.0, 0.5) if fold else (1.0,):
                    said = logits(inputs, mean, part)
                    for origin in fold or table.origins:
                        text = f"{name}{'' if part == 1 else ', half'}{'' if fold else ' (seen)'}"
                        table.measure(text, kind, origin, said)
        for text in (name, f"{name}, half", f"{name} (seen)"):
            show(text, table.rows[text])
    for text in ("first answer", "mean of both"):
        show(text, table.rows[text])


def several(out):
    """Means of five networks of all inputs: of other seeds, or each of another 70 % of the origins."""
    table, columns = Table(out), list(range(len(INPUTS)))
    for fold in table.folds:
        rest = [o for o in table.origins if o not in fold]
        rng = np.random.default_rng(0)
        parts = [rng.permutation(rest)[: int(0.7 * len(rest))].tolist() for _ in range(5)]
        groups = {
            "seeds": [table.network(rest, columns, seed) for seed in range(5)],
            "origins": [table.network(part, columns, seed) for seed, part in enumerate(parts)],
        }
        for kind, (inputs, mean, *_) in table.kinds.items():
            for name, networks in groups.items():
                said = torch.stack([each(inputs, mean) for each in networks])
                probability = torch.logit(said.sigmoid().mean(0), 1e-7)
                for origin in fold:
                    table.measure(f"one of five by {name}", kind, origin, said[0])
                    table.measure(f"mean logit of five by {name}", kind, origin, said.mean(0))
                    table.measure(f"mean probability of five by {name}", kind, origin, probability)
    for text, rows in table.rows.items():
        show(text, rows)


def show(name, rows):
    cells = []
    for kind in ("clean", "stress"):
        each = np.array([row[2:] for row in rows if row[0] == kind])
        cells.append(f"{kind}: AUROC {each[:, 0].mean():.4f} NLL {each[:, 1].mean():.4f}")
    least = {}
    for kind, origin, auroc, _ in rows:
        if kind == "clean":
            least.setdefault(origin, []).append(auroc)
    print(f"{name:44s}", "  ".join(cells), " ".join(f"{100 * np.mean(v):.1f}" for v in least.values()), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    verb, *rest = sys.argv[1:]
    {"draw": draw, "fit": fit, "several": several}[verb](*rest)
