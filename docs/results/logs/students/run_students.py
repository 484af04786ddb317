"""Students on one domain: every row and seed that has no result yet, one after the other; see docs/results/students.md.

python docs/results/logs/students/run_students.py DOMAINS/camvid camvid TRUNK runs/students --seeds 0 1 2 --rows ...
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ruac.base.config import load_config
from ruac.data.classes import IGNORE, ClassFolder
from ruac.labelling.run import PseudoLabelConfig, run_pseudo_label
from ruac.training.student.run import StudentConfig, open_split, train_student, write_split

# Classes that are kept apart; ten labelled pictures cannot have all of the data sets' own.
GROUPS = {
    "camvid": {
        **{name: name for name in ("sky", "building", "road", "pavement", "tree", "car")},
        **{"pedestrian": "person", "bicyclist": "person", "pole": "post", "sign": "post", "fence": "post"},
    },
    "clothing": {
        **{"skin": "skin", "hair": "hair"},
        **dict.fromkeys(("shoes", "boots", "heels", "pumps", "sandals", "sneakers", "loafers"), "shoes"),
        **dict.fromkeys(("bag", "purse", "wallet"), "bag"),
        **dict.fromkeys(("shirt", "blouse", "t-shirt", "top", "sweater", "sweatshirt", "jumper", "vest"), "top"),
        **dict.fromkeys(("bodysuit", "coat", "jacket", "blazer", "cardigan", "cape", "suit"), "top"),
        **dict.fromkeys(("pants", "jeans", "shorts", "leggings", "skirt", "stockings", "socks", "tights"), "bottom"),
        **dict.fromkeys(("dress", "romper"), "dress"),
        **dict.fromkeys(("sunglasses", "glasses", "accessories", "belt", "hat", "bracelet", "necklace"), "accessory"),
        **dict.fromkeys(("scarf", "tie", "watch", "gloves"), "accessory"),
    },
    "cropweed": {"crop": "crop", "weed": "weed"},
}
BACKGROUND = {"cropweed"}  # what no object covers is known there: soil
ALPHA = 0.1
COMMON = ["side=128", "epochs=16", "stages.start=12", "validate_epochs=0", "engine.cpu=true", "engine.log_every=60"]
# Row: settings of train-student, and the labels it learns from: a filter and its regions.
ROWS = {
    "supervised": (["method=supervised"], None),
    "pseudo_unfiltered": (["method=pseudo"], ("none", "location")),
    "pseudo_filtered": (["method=pseudo"], ("class_conditional", "location")),
    "pseudo_half": (["method=pseudo"], ("half", "location")),
    "conformal_sam": (["method=conformal_sam"], ("class_conditional", "location")),
    "self_training": (["method=self_training"], None),
    "unfiltered_then_own": (["method=conformal_sam"], ("none", "location")),
    "fixmatch": (["method=fixmatch"], None),
    "unimatch_v1": (["method=unimatch_v1"], None),
    "unimatch_v2": (["method=unimatch_v2"], None),
    "conformal_unimatch": (["method=conformal_sam", "then=unimatch_v2"], ("class_conditional", "location")),
    "conformal_image": (["method=conformal_sam"], ("class_conditional", "image")),
    "conformal_clusters": (["method=conformal_sam"], ("class_conditional", "clusters")),
    "conformal_annuli": (["method=conformal_sam"], ("class_conditional", "annuli")),
    "all_labels": (["method=supervised"], None),
}


def grouped(domain: Path, groups: dict[str, str], background: bool, out: Path) -> Path:
    """The domain as label maps of the groups; what no object covers is class 0, or without `background` unknown."""
    if (out / "classes.txt").is_file():
        return out
    data = ClassFolder(domain, background=background)
    groups = {"background": "background", **groups} if background else groups
    names = list(dict.fromkeys(groups.values()))
    table = np.full(256, IGNORE, np.uint8)
    for place, name in enumerate(data.names):
        table[place] = names.index(groups[name])
    shutil.copytree(domain / "images", out / "images", dirs_exist_ok=True)
    (out / "labels").mkdir(exist_ok=True)
    for place in range(len(data)):
        stem = Path(data.files[place]).stem
        Image.fromarray(table[data[place].labels]).save(out / "labels" / f"{stem}.png")
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", type=Path)
    parser.add_argument("groups", choices=GROUPS)
    parser.add_argument("trunk")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=10, help="labelled pictures")
    parser.add_argument("--alpha", type=float, default=ALPHA, help="another one is part of the rows' names")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    args = parser.parse_args()
    torch.set_num_threads(1)

    background = args.groups in BACKGROUND
    source = grouped(args.domain, GROUPS[args.groups], background, args.out / "data" / args.groups)
    for seed in args.seeds:
        base = args.out / f"{args.groups}_{args.count}" / str(seed)
        training = round(0.6 * len(ClassFolder(source, background=background)))
        common = [
            *(f"source={source}", f"background={background}", f"model.trunk_weights={args.trunk}", *COMMON),
            *("split.held_out=0.4", f"split.seed={seed}", f"split.fraction={args.count / training}"),
            f"engine.seed={seed}",
        ]
        write_split(*open_split(load_config(StudentConfig, None, common)), base / "split")
        for row in args.rows:
            settings, labels = ROWS[row]
            out = base / (row if labels is None or args.alpha == ALPHA else f"{row}_{args.alpha:g}")
            if (out / "result.json").is_file():
                continue
            overrides = [*common, *settings, f"out={out}"]
            if labels is not None:
                overrides.append(f"pseudo_labels={pseudo(source, background, base, *labels, args.alpha)}")
            if row == "all_labels":
                overrides.append("split.fraction=1.0")
            train_student(load_config(StudentConfig, None, overrides), resume=(out / "last.pt").is_file())
            values = json.loads((out / "result.json").read_text())["validation"]
            shown = " ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "iou")
            print(f"{args.groups} {args.count} labelled, seed {seed}, {out.name}: {shown}", flush=True)


def pseudo(source: Path, background: bool, base: Path, kept: str, regions: str, alpha: float) -> Path:
    out = base / f"labels_{kept}_{regions}_{alpha:g}"
    if not (out / "record.json").is_file():
        settings = [
            *(f"source={source}", f"background={background}", "backbone=nano", "prompts=boxes", f"alpha={alpha}"),
            *(f"labelled={base}/split/labelled.txt", f"unlabelled={base}/split/unlabelled.txt", f"filter={kept}"),
            *(f"regions.kind={regions}", "cpu=true", "overlays=0", f"out={out}"),
        ]
        run_pseudo_label(load_config(PseudoLabelConfig, None, settings))
    return out


if __name__ == "__main__":
    main()
