"""Export a trained run as a model folder."""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac export runs/ruac runs/ruac/export --head-only"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("run", help="out= of ruac train")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--head-only", action="store_true", help="leave the backbone's weights out")
    parser.add_argument("--license", help="of the weights, for the model card, such as apache-2.0; default: not stated")
    args = parser.parse_args(argv)

    from ruac.training.export_run import export_run

    card = {} if args.license is None else {"license": args.license}
    print(f"exported: {export_run(args.run, args.out, with_backbone=not args.head_only, card=card)}")
