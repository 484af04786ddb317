"""Readers of two looks by what their second pictures are: the numbers of kinds.md, printed again, and their exports.

python docs/results/logs/looks/kinds.py draw SRC SPLIT OUT FIRST COUNT KIND... [--attackers kind=RUN ...]
python docs/results/logs/looks/kinds.py fit OUT VAL EXPORTS POOL READER...

draw: pixels of objects that were looked at twice, of pictures FIRST to FIRST + COUNT of a fixed order, each changed as
each KIND says; pictures may be drawn by several processes. fit: readers of some of the first POOL pictures, measured on
the pictures in VAL, drawn of the other split, and exported. No domain is looked at.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from ruac.base.config import load_config
from ruac.calibration.descent import descend
from ruac.data.augment import MEAN, STD, prepare
from ruac.data.open import open_dataset
from ruac.data.synthetic.shifts import SHIFTS
from ruac.fitting.look_reader import LookPixels, LookReaderFitConfig, look_pixels
from ruac.inference.export import export_model, exported_backbone, load_exported
from ruac.training.adversarial import TrainConfig
from ruac.training.attack import build_attacker
from ruac.training.trained_attacker import load_attacker
from ruac.uncertainty.look_reader import INPUTS, LookReader, LookReaderConfig, reread

MODEL = "checkpoints/ruac_nano_scale"
CONFIG = LookReaderFitConfig(source="-", export=MODEL)
FAMILIES = list(SHIFTS)


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
    torch.set_num_threads(1)
    model = load_exported(MODEL).eval()
    dataset = open_dataset(args.source, split=args.split)
    order = np.random.default_rng(0).permutation(len(dataset))[args.first : args.first + args.count]
    changes = attackers(args.kinds, dict(text.split("=", 1) for text in args.attackers))
    args.out.mkdir(parents=True, exist_ok=True)
    columns = {kind: [] for kind in args.kinds}
    for place, number in enumerate(order):
        sample = dataset[int(number)]
        rng = np.random.default_rng([int(number), 1])
        masks = sample.masks[rng.permutation(len(sample.masks))[: CONFIG.objects]]
        for kind in args.kinds:
            rng = np.random.default_rng([int(number), 2])  # each kind meets the same objects and numbers of clicks
            torch.manual_seed(int(number))
            family, view = -1, (sample.image, masks)
            if kind == "stress":
                family = int(np.random.default_rng([int(number), 3]).integers(len(FAMILIES)))
                view = SHIFTS[FAMILIES[family]](sample.image, masks, np.random.default_rng([int(number), 4]))
            elif kind in FAMILIES:
                family = FAMILIES.index(kind)
                view = SHIFTS[kind](sample.image, masks, np.random.default_rng([int(number), 4]))
            elif kind != "clean":
                view = attacked(changes[kind], model.backbone, sample.image, masks)
            if not len(view[1]) or not view[1].any():
                continue
            view = view[0], view[1][view[1].any(axis=(1, 2))]
            for inputs, mean, truth in look_pixels(model, *view, CONFIG, rng):
                about = torch.tensor([args.first + place, family])
                columns[kind].append((inputs.half(), mean, truth.bool(), about.expand(len(truth), 2)))
        if place % 50 == 49 or place == len(order) - 1:
            print(f"{place + 1} pictures", flush=True)
    for kind, rows in columns.items():
        names = ("inputs", "mean", "truth", "about")
        arrays = {name: torch.cat(column).numpy() for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        path = args.out / f"{kind}_{args.first}.npz"
        np.savez(path.with_suffix(".tmp.npz"), **arrays)
        path.with_suffix(".tmp.npz").rename(path)


def pixels(folder, kinds, pictures):
    """`LookPixels` of some kinds of `pictures`, by their place in the order in which they are drawn, and families."""
    columns = []
    for kind in kinds:
        for path in sorted(folder.glob(f"{kind}_[0-9]*.npz"), key=lambda path: int(path.stem.rsplit("_", 1)[1])):
            if path.stem.rsplit("_", 1)[0] != kind:
                continue
            with np.load(path) as file:
                keep = np.isin(file["about"][:, 0], pictures)
                if keep.any():
                    columns.append([file[name][keep] for name in ("inputs", "mean", "truth", "about")])
    inputs, mean, truth, about = (torch.from_numpy(np.concatenate(column)) for column in zip(*columns, strict=True))
    return LookPixels(inputs.float(), mean.float(), truth.float(), about[:, 0]), about[:, 1]


def reader_of(folder, kinds, pictures, seed, without=None):
    """A reader fitted to some kinds of views of `pictures`, whose last fifth says when to stop; and the steps kept."""
    seen, family = pixels(folder, kinds, pictures)
    if without is not None:
        seen = seen.some(family != without)
    held = torch.from_numpy(np.isin(seen.image.numpy(), pictures[-max(1, len(pictures) // 5) :]))
    fitted, held = seen.some(~held), seen.some(held)
    torch.manual_seed(seed)
    reader = LookReader(LookReaderConfig())
    reader.standardise(fitted.inputs)
    generator = torch.Generator().manual_seed(seed)

    def loss(_):
        return fitted.some(torch.randint(len(fitted.truth), (CONFIG.batch,), generator=generator)).loss(reader)

    def of_held():
        with torch.no_grad():
            return float(held.loss(reader))

    steps = descend(reader, loss, steps=CONFIG.steps, rate=CONFIG.rate, held_out=of_held)
    return reader.eval(), steps


@torch.no_grad()
def measured(reader, seen):
    """AUROC of SAM 2's own errors in the band, masks kept; accuracy of the band and NLL of the reread probability."""
    reading = reader.read(seen.inputs.T[None, :, :, None])
    logit = reread(seen.logits[None, None, :, None], reading).reshape(-1).numpy()
    per_object = CONFIG.pixels + CONFIG.map_pixels
    band = np.arange(len(logit)) % per_object < CONFIG.pixels
    own, truth = seen.inputs[:, INPUTS.index("first: logit")].numpy()[band], seen.truth.numpy()[band] > 0.5
    logit = logit[band]
    doubt = np.minimum(-np.sign(own) * logit, 0)
    nll = np.logaddexp(0, np.where(truth, -logit, logit)).mean()
    return roc_auc_score((own > 0) != truth, doubt), ((logit > 0) == truth).mean(), nll


def fit(args):
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    every = np.arange(10**6)
    parts = {kind: pixels(args.val, [kind], every)[0] for kind in ("clean", "stress")}

    def tell(name, reader, steps):
        cells = [" ".join(f"{value:.4f}" for value in measured(reader, part)) for part in parts.values()]
        print(f"{name:32s} {steps:5d} steps  clean {cells[0]}  stressed {cells[1]}", flush=True)

    def export(name, reader, about):
        model = load_exported(MODEL)
        model.reader = reader
        spec, whole = exported_backbone(MODEL)
        export_model(model, spec, args.exports / name, with_backbone=whole, record=about)

    for name in args.readers:
        kinds, count, seed = name.split("-")
        kinds, count, seed = kinds.split("+"), int(count), int(seed)
        pool = np.arange(args.pool)
        pictures = np.random.default_rng(seed).permutation(pool)[:count] if count < len(pool) else rng.permutation(pool)
        reader, steps = reader_of(args.out, kinds, pictures, seed)
        tell(name, reader, steps)
        export(name, reader, {"kinds": kinds, "pictures": len(pictures), "seed": seed, "steps_kept": steps})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    drawn = verbs.add_parser("draw")
    drawn.add_argument("source")
    drawn.add_argument("split")
    drawn.add_argument("out", type=Path)
    drawn.add_argument("first", type=int)
    drawn.add_argument("count", type=int)
    drawn.add_argument("kinds", nargs="+")
    drawn.add_argument("--attackers", nargs="*", default=[])
    drawn.set_defaults(run=draw)
    fitted = verbs.add_parser("fit")
    fitted.add_argument("out", type=Path)
    fitted.add_argument("val", type=Path)
    fitted.add_argument("exports", type=Path)
    fitted.add_argument("pool", type=int, help="pictures drawn so far, of which a reader gets some")
    fitted.add_argument("readers", nargs="+", help="KIND+KIND-PICTURES-SEED")
    fitted.set_defaults(run=fit)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
