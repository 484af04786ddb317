"""Readers of two looks by what their second pictures are, and with and without surroundings: kinds.txt, printed again.

python docs/results/logs/looks/kinds.py draw SRC SPLIT OUT COUNT KIND... [--attackers KIND=RUN ...]
python docs/results/logs/looks/kinds.py fit OUT VAL READER... [--exports DIR]

draw: windows of objects that were looked at twice, of the first COUNT pictures of a fixed order, each changed as each
KIND says: clean, stress (a procedural shift), random and random_reach (within the budget of those configs), or whatever
--attackers names. fit: readers KIND+KIND-PICTURES-SEED-CONTEXT, measured on the windows in VAL, and under each family
of stress apart; the kind stress~fog is stress without fog. No domain is looked at.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from ruac.base.config import load_config
from ruac.data.augment import MEAN, STD, prepare
from ruac.data.open import open_dataset
from ruac.data.synthetic.shifts import SHIFTS
from ruac.fitting.look_reader import LookMaps, LookReaderFitConfig, fit_reader, joined, look_maps
from ruac.inference.export import export_model, exported_backbone, load_exported
from ruac.training.adversarial import TrainConfig
from ruac.training.attack import build_attacker
from ruac.training.trained_attacker import load_attacker
from ruac.uncertainty.look_reader import INPUTS, LookReader, LookReaderConfig, reread

MODEL = "checkpoints/ruac_nano_scale"
CONFIG = LookReaderFitConfig(source="-", export=MODEL)
FAMILIES = list(SHIFTS)
BAND = 200  # pixels of each object's band, with replacement, so that objects weigh alike


def attackers(kinds, runs):
    """What each kind that is an attack applies: a trained run's attackers, or random draws within a config's budget."""
    found = {}
    for kind in kinds:
        if kind in runs:
            found[kind] = load_attacker(runs[kind], "nano_scale").eval()
        elif kind.startswith("random"):
            found[kind] = build_attacker(load_config(TrainConfig, f"configs/train/{kind}.yaml", ["source=-"]).attack)
    return found


@torch.no_grad()
def attacked(attacker, body, image, masks):
    """A picture and its masks changed by an attacker, who sees it on the model's square; back at its own size."""
    size, square = image.shape[:2], (body.image_size, body.image_size)
    pixels = prepare(image, square)
    cells = (F.interpolate(torch.from_numpy(masks)[None].float(), square, mode="area") >= 0.5).float()
    changed = attacker(pixels, body.encode(pixels).embedding, cells, cells.flatten(2).any(dim=2))
    back = F.interpolate(changed.images, size, mode="bilinear", antialias=True)[0] * STD + MEAN
    picture = (back.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(picture), (F.interpolate(changed.masks, size, mode="area")[0] >= 0.5).numpy()


def draw(args):
    model = load_exported(MODEL).eval()
    dataset = open_dataset(args.source, split=args.split)
    order = np.random.default_rng(0).permutation(len(dataset))[: args.count]
    changes = attackers(args.kinds, dict(text.split("=", 1) for text in args.attackers))
    args.out.mkdir(parents=True, exist_ok=True)
    # pictures draw their family from their number, so that which one it was need not be kept with the windows
    drawn = [FAMILIES[int(np.random.default_rng([int(n), 3]).integers(len(FAMILIES)))] for n in order]
    (args.out / "families.json").write_text(json.dumps(drawn))
    for kind in args.kinds:
        found = []
        for place, number in enumerate(order):
            sample = dataset[int(number)]
            # every kind meets the same objects, prompted as often
            chosen, asked, shift = (np.random.default_rng([int(number), stream]) for stream in (1, 2, 4))
            masks = sample.masks[chosen.permutation(len(sample.masks))[: CONFIG.objects]]
            torch.manual_seed(int(number))
            view = sample.image, masks
            if kind == "stress":
                view = SHIFTS[drawn[place]](sample.image, masks, shift)
            elif kind != "clean":
                view = attacked(changes[kind], model.backbone, sample.image, masks)
            if (seen := view[1].any(axis=(1, 2))).any():
                maps = look_maps(model, view[0], view[1][seen], CONFIG, asked, place)
                found += [] if maps is None else [maps]
        maps = joined(found)
        torch.save([maps.inputs, maps.logits, maps.truth, maps.band, maps.image], args.out / f"{kind}_0.pt")
        print(f"{kind}: {len(maps.truth)} objects", flush=True)


def opened(folder, kind, pictures=None):
    kind, _, without = kind.partition("~")
    maps = LookMaps(*torch.load(folder / f"{kind}_0.pt", weights_only=True))
    if without:
        assert without in FAMILIES, without
        maps = maps.some(~of_family(folder, maps, without))
    return maps if pictures is None else maps.some(torch.from_numpy(np.isin(maps.image.numpy(), pictures)))


def of_family(folder, maps, family):
    """Of stressed windows: whether the family is theirs."""
    families = json.loads((folder / "families.json").read_text())
    return torch.tensor([families[place] == family for place in maps.image.tolist()])


def reader_of(folder, kinds, pictures, seed, context):
    """A reader fitted to some kinds of views of `pictures`, whose last fifth says when to stop; and the steps kept."""
    maps = joined([opened(folder, kind, pictures) for kind in kinds])
    held = torch.from_numpy(np.isin(maps.image.numpy(), pictures[-max(1, len(pictures) // 5) :]))
    torch.manual_seed(seed)
    reader = LookReader(LookReaderConfig(context=context))
    reader.standardise(maps.some(~held).inputs)
    steps = fit_reader(reader, maps.some(~held), maps.some(held), replace(CONFIG, seed=seed))
    return reader.eval(), steps


@torch.no_grad()
def measured(reader, maps):
    """AUROC of SAM 2's own errors in the band, masks kept; accuracy of the band and NLL of the reread probability."""
    generator, columns = torch.Generator().manual_seed(1), []
    for at in torch.arange(len(maps.truth)).split(16):
        part = maps.some(at)
        logits = part.logits.float()
        if reader is not None:
            logits = reread(logits[:, None], reader.read(part.inputs.float()))[:, 0]
        for n, near in enumerate(part.band):
            if len(place := near.nonzero()):
                y, x = place[torch.randint(len(place), (BAND,), generator=generator)].unbind(1)
                own = part.inputs[n, INPUTS.index("first: logit")]
                columns.append((own[y, x].float(), logits[n, y, x], part.truth[n, y, x]))
    own, logit, truth = (torch.cat(column).numpy() for column in zip(*columns, strict=True))
    doubt = np.minimum(-np.sign(own) * logit, 0)
    nll = np.logaddexp(0, np.where(truth, -logit, logit)).mean()
    return roc_auc_score((own > 0) != truth, doubt), ((logit > 0) == truth).mean(), nll


def fit(args):
    parts = {kind: opened(args.val, kind) for kind in ("clean", "stress")}
    alone = {family: parts["stress"].some(of_family(args.val, parts["stress"], family)) for family in FAMILIES}

    def tell(name, reader, steps):
        cells = [" ".join(f"{value:.4f}" for value in measured(reader, part)) for part in parts.values()]
        print(f"{name:36s} {steps:4d} steps  clean {cells[0]}  stressed {cells[1]}", flush=True)
        each = " ".join(f"{family} {measured(reader, part)[0]:.4f}" for family, part in alone.items())
        print(f"    {each}", flush=True)

    tell("mean of both looks", None, 0)
    for name in args.readers:
        kinds, count, seed, context = name.split("-")
        kinds, count, seed, context = kinds.split("+"), int(count), int(seed), int(context)
        pictures = np.random.default_rng(seed).permutation(count)
        reader, steps = reader_of(args.out, kinds, pictures, seed, context)
        tell(name, reader, steps)
        if args.exports is not None:
            model = load_exported(MODEL)
            model.reader = reader
            spec, whole = exported_backbone(MODEL)
            about = {"kinds": kinds, "pictures": count, "seed": seed, "steps_kept": steps}
            export_model(model, spec, args.exports / name, with_backbone=whole, record=about)


def main():
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    drawn = verbs.add_parser("draw")
    drawn.add_argument("source")
    drawn.add_argument("split")
    drawn.add_argument("out", type=Path)
    drawn.add_argument("count", type=int)
    drawn.add_argument("kinds", nargs="+")
    drawn.add_argument("--attackers", nargs="*", default=[])
    drawn.set_defaults(run=draw)
    fitted = verbs.add_parser("fit")
    fitted.add_argument("out", type=Path)
    fitted.add_argument("val", type=Path)
    fitted.add_argument("readers", nargs="+", help="KIND+KIND-PICTURES-SEED-CONTEXT")
    fitted.add_argument("--exports", type=Path)
    fitted.set_defaults(run=fit)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
