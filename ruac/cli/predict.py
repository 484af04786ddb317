"""Segment an image with its uncertainty, from clicks or a box; or a folder, from a prompts file or by itself."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = """ruac predict photo.jpg --point 120 80 --out overlay.png --save answer
  ruac predict photos --automatic --save answers
  ruac predict photos --prompts prompts.json --save answers"""


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("image", type=Path, metavar="image|folder")
    parser.add_argument("--point", nargs=2, type=float, action="append", default=[], metavar=("X", "Y"))
    parser.add_argument("--background", nargs=2, type=float, action="append", default=[], metavar=("X", "Y"))
    parser.add_argument("--box", nargs=4, type=float, metavar=("X0", "Y0", "X1", "Y1"))
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="of a folder: JSON or COCO boxes, docs/outputs.md")
    parser.add_argument(
        "--automatic", nargs="*", metavar="KEY=VALUE", help="of a folder: every mask; such as points_per_side=16"
    )
    parser.add_argument(
        "--look",
        action="append",
        metavar="LOOK",
        help="look again: zoom, auto, flip, zoom+flip, zoom:2.4",
    )
    parser.add_argument("--model", help="exported folder (default: the embedded model)")
    parser.add_argument("--backbone", help="name or YAML, for a head-only export")
    parser.add_argument(
        "--out", type=Path, help="overlay, as PNG, JPEG, WebP or TIFF (default: IMAGE.uncertainty.png beside it)"
    )
    parser.add_argument("--save", type=Path, metavar="DIR", help="write masks, 16-bit uncertainty and JSON there")
    parser.add_argument("--alpha", type=float, help="also inner and outer masks that are wrong by at most this share")
    parser.add_argument("--conformal", help="file of ruac conformal (default: that of the model's folder)")
    args = parser.parse_args(argv)
    (_folder if args.image.is_dir() else _picture)(args)


def _picture(args: argparse.Namespace) -> None:
    import numpy as np

    from ruac.base.errors import RuacError
    from ruac.data.sample import IMAGE_SUFFIXES, read_image
    from ruac.evaluation.report.overlay import picture_format, save_overlay
    from ruac.inference.predictor import DEFAULT, Predictor
    from ruac.inference.save import check_same_picture, save_answer

    if args.prompts is not None or args.automatic is not None:
        raise RuacError(f"{args.image}: expected a folder for --prompts and --automatic")
    alike = (path for path in args.image.parent.glob("*") if path.stem == args.image.stem and path != args.image)
    twins = any(path.suffix.lower() in IMAGE_SUFFIXES for path in alike)  # a.jpg beside a.png
    out = args.out or args.image.with_name(f"{args.image.name if twins else args.image.stem}.uncertainty.png")
    picture_format(out)  # a name that cannot be written is said before the work
    if args.save is not None and args.image.is_file():
        check_same_picture(args.save, args.image.stem, args.image)
    predictor = Predictor.from_pretrained(args.model or DEFAULT, backbone=args.backbone, conformal=args.conformal)
    image = read_image(args.image)
    predictor.set_image(image)
    clicks = args.point + args.background
    points = np.array(clicks) if clicks else None
    labels = np.array([1] * len(args.point) + [0] * len(args.background)) if clicks else None
    answer = predictor.predict(points, labels, args.box, looks=args.look, alpha=args.alpha)
    save_overlay(out, image, answer.masks[0], answer.uncertainty[0], points=points, labels=labels)
    unsure = float((answer.uncertainty[0] > 0.5).mean())
    print(f"predicted IoU {answer.scores[0]:.3f}, {unsure:.1%} of the pixels are unsure (u > 0.5)\noverlay: {out}")
    if answer.outer is not None:
        areas = {name: int(mask[0].sum()) for name, mask in (("inner", answer.inner), ("outer", answer.outer))}
        print(f"alpha {args.alpha:g}: inner mask {areas['inner']} pixels, outer mask {areas['outer']} pixels")
    if args.save is not None:
        saved = save_answer(args.save, args.image.stem, answer, picture=args.image)
        print(*(f"saved: {path}" for path in saved), sep="\n")


def _folder(args: argparse.Namespace) -> None:
    from ruac.base.config import load_config
    from ruac.base.errors import RuacError
    from ruac.inference.automatic import AutomaticConfig
    from ruac.inference.folder import FolderQuestion, picture_names, predict_folder
    from ruac.inference.predictor import DEFAULT, Predictor
    from ruac.inference.prompts_file import read_prompts
    from ruac.inference.save import INDEX

    if args.point or args.background or args.box or args.out:
        raise RuacError(f"{args.image}: a folder; expected --prompts or --automatic, and no clicks, box or --out")
    if args.save is None or (args.prompts is None) == (args.automatic is None):
        raise RuacError(f"{args.image}: a folder; expected --save DIR with either --prompts FILE or --automatic")
    prompts, automatic = None, None
    if args.prompts is None:
        automatic = load_config(AutomaticConfig, overrides=args.automatic)
    else:
        prompts = read_prompts(args.prompts, picture_names(args.image, beside=args.save)[0])
    predictor = Predictor.from_pretrained(args.model or DEFAULT, backbone=args.backbone, conformal=args.conformal)
    question = FolderQuestion(prompts, automatic, args.look, args.alpha)
    run = predict_folder(predictor, args.image, args.save, question)
    print(f"{len(run.answered)} pictures answered, {len(run.kept)} finished before, list: {args.save / INDEX}")
    for names, what in ((run.unprompted, "without a prompt"), (run.other, "no picture by its name")):
        print(*(f"left out, {what}: {name}" for name in names), sep="\n", end="\n" if names else "")
    if run.failed:
        print(*(f"failed: {reason}" for reason in run.failed.values()), sep="\n", file=sys.stderr)
        raise SystemExit(1)
