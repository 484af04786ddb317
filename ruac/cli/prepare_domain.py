"""Check the native download of a data set, and convert it.

Prints what was found and draws OUT/NAME.png; --convert also writes the COCO folder OUT/NAME. A tree
that differs is an error that says what was expected.
"""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

PROTOCOLS = ("ruac", "sam1")  # as ruac.data.domains has them, which takes seconds to import
EXAMPLE = "ruac prepare-domain ovis downloads/OVIS --convert"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("name", nargs="?", help="such as ovis; left out, all names are listed")
    parser.add_argument("root", nargs="?", help="folder of the download")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="ruac", help="whose splits (default: %(default)s)")
    parser.add_argument("--split", help="another split instead")
    parser.add_argument("--seed", type=int, default=0, help="of the sample of a large set (default: %(default)s)")
    parser.add_argument(
        "--orientation",
        choices=("seen", "stored"),
        default="seen",
        help="what annotations were made on where sizes do not tell: the picture as seen, or its stored pixels",
    )
    parser.add_argument("--convert", action="store_true", help="write the common COCO folder")
    parser.add_argument("--out", type=Path, default=Path("prepared"), help="where to (default: %(default)s)")
    parser.add_argument("--cards", action="store_true", help="print docs/domains.md and stop")
    args = parser.parse_args(argv)

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ruac.base.errors import RuacError
    from ruac.data.domains import CARDS, open_domain
    from ruac.data.domains.markdown import cards_page
    from ruac.data.domains.prepare import convert, describe, save_panels

    if args.cards:
        print(cards_page(), end="")
        return
    if args.name is None or args.root is None:
        raise RuacError("expected NAME and ROOT; NAME is one of: " + ", ".join(CARDS))

    chosen = {"protocol": args.protocol, "split": args.split, "seed": args.seed, "orientation": args.orientation}
    dataset = open_domain(args.name, args.root, **chosen)
    print(describe(dataset))
    save_panels(dataset, args.out / f"{args.name}.png")
    print(f"panels: {args.out / args.name}.png")
    if args.convert:
        with Progress(TextColumn("convert"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
            task = bar.add_task("convert", total=len(dataset))
            convert(dataset, args.out / args.name, lambda done: bar.update(task, completed=done))
        print(f"converted: {args.out / args.name}")
