"""Write a model as ONNX graphs: a picture to features, features with prompts to masks and uncertainty."""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac export-onnx checkpoints/ruac_nano runs/onnx"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("model", help="exported folder, or a hub's user/model")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--backbone", help="name or YAML, for a head-only export")
    parser.add_argument("--int8", metavar="DATA", help="also OUT/int8, with ranges from 32 pictures of this data set")
    args = parser.parse_args(argv)

    from ruac.inference.onnx_export import export_onnx, quantise_onnx
    from ruac.inference.predictor import Predictor

    predictor = Predictor.from_pretrained(args.model, backbone=args.backbone, device="cpu")
    print(f"exported: {export_onnx(predictor.model, args.out)}")
    if args.int8 is not None:
        from ruac.data.open import open_dataset

        data = open_dataset(args.int8)
        pictures = (data[number].image for number in range(min(32, len(data))))
        print(f"exported: {quantise_onnx(args.out, args.out / 'int8', pictures)}")
