"""Segment an image with its uncertainty: tools/predict.py IMAGE --point X Y [--box X0 Y0 X1 Y1] [--out FILE]"""

import argparse
from pathlib import Path

import numpy as np

from ruac.base.errors import run_tool
from ruac.data.sample import read_image
from ruac.evaluation.report.overlay import picture_format, save_overlay
from ruac.inference.predictor import DEFAULT, Predictor


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--point", nargs=2, type=float, action="append", default=[], metavar=("X", "Y"))
    parser.add_argument("--background", nargs=2, type=float, action="append", default=[], metavar=("X", "Y"))
    parser.add_argument("--box", nargs=4, type=float, metavar=("X0", "Y0", "X1", "Y1"))
    parser.add_argument("--model", default=str(DEFAULT), help="exported folder")
    parser.add_argument("--backbone", help="name or YAML, for a head-only export")
    parser.add_argument(
        "--out", type=Path, help="overlay to write, as PNG, JPEG, WebP or TIFF (default: IMAGE.uncertainty.png)"
    )
    args = parser.parse_args(argv)

    out = args.out or args.image.with_suffix(".uncertainty.png")
    picture_format(out)  # a name that cannot be written is said before the work
    predictor = Predictor(args.model, backbone=args.backbone)
    image = read_image(args.image)
    predictor.set_image(image)
    clicks = args.point + args.background
    points = np.array(clicks) if clicks else None
    labels = np.array([1] * len(args.point) + [0] * len(args.background)) if clicks else None
    answer = predictor.predict(points=points, labels=labels, box=args.box)
    save_overlay(out, image, answer.masks[0], answer.uncertainty[0], points=points, labels=labels)
    unsure = float((answer.uncertainty[0] > 0.5).mean())
    print(f"predicted IoU {answer.scores[0]:.3f}, {unsure:.1%} of the pixels are unsure (u > 0.5)\noverlay: {out}")


if __name__ == "__main__":
    run_tool(main)
