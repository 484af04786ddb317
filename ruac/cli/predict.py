"""Segment an image with its uncertainty, from clicks or a box."""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac predict photo.jpg --point 120 80 --out overlay.png --save answer"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("image", type=Path)
    parser.add_argument("--point", nargs=2, type=float, action="append", default=[], metavar=("X", "Y"))
    parser.add_argument("--background", nargs=2, type=float, action="append", default=[], metavar=("X", "Y"))
    parser.add_argument("--box", nargs=4, type=float, metavar=("X0", "Y0", "X1", "Y1"))
    parser.add_argument(
        "--look", action="append", metavar="LOOK", help="look at the object again: zoom, flip, zoom+flip, zoom:2.4"
    )
    parser.add_argument("--model", help="exported folder (default: the embedded nano)")
    parser.add_argument("--backbone", help="name or YAML, for a head-only export")
    parser.add_argument(
        "--out", type=Path, help="overlay, as PNG, JPEG, WebP or TIFF (default: IMAGE.uncertainty.png beside it)"
    )
    parser.add_argument("--save", type=Path, metavar="DIR", help="also write mask, 16-bit uncertainty and JSON there")
    parser.add_argument("--alpha", type=float, help="also inner and outer masks that are wrong by at most this share")
    parser.add_argument("--conformal", help="file of ruac conformal (default: that of the model's folder)")
    args = parser.parse_args(argv)

    import numpy as np

    from ruac.data.sample import IMAGE_SUFFIXES, read_image
    from ruac.evaluation.report.overlay import picture_format, save_overlay
    from ruac.inference.predictor import DEFAULT, Predictor
    from ruac.inference.save import check_same_picture, save_answer

    alike = (path for path in args.image.parent.glob("*") if path.stem == args.image.stem and path != args.image)
    twins = any(path.suffix.lower() in IMAGE_SUFFIXES for path in alike)  # a.jpg beside a.png
    out = args.out or args.image.with_name(f"{args.image.name if twins else args.image.stem}.uncertainty.png")
    picture_format(out)  # a name that cannot be written is said before the work
    if args.save is not None and args.image.is_file():
        check_same_picture(args.save, args.image.stem, args.image)
    predictor = Predictor(args.model or DEFAULT, backbone=args.backbone, conformal=args.conformal)
    image = read_image(args.image)
    predictor.set_image(image)
    clicks = args.point + args.background
    points = np.array(clicks) if clicks else None
    labels = np.array([1] * len(args.point) + [0] * len(args.background)) if clicks else None
    answer = predictor.predict(points=points, labels=labels, box=args.box, looks=args.look, alpha=args.alpha)
    save_overlay(out, image, answer.masks[0], answer.uncertainty[0], points=points, labels=labels)
    unsure = float((answer.uncertainty[0] > 0.5).mean())
    print(f"predicted IoU {answer.scores[0]:.3f}, {unsure:.1%} of the pixels are unsure (u > 0.5)\noverlay: {out}")
    if answer.outer is not None:
        areas = {name: int(mask[0].sum()) for name, mask in (("inner", answer.inner), ("outer", answer.outer))}
        print(f"alpha {args.alpha:g}: inner mask {areas['inner']} pixels, outer mask {areas['outer']} pixels")
    if args.save is not None:
        saved = save_answer(args.save, args.image.stem, answer, picture=args.image)
        print(*(f"saved: {path}" for path in saved), sep="\n")
