"""Sort a predicted folder by risk, as pre-annotations for Label Studio, CVAT or FiftyOne."""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac review-queue answers --to label-studio --out queue"
TOOLS = ("label-studio", "cvat", "fiftyone")


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("folder", type=Path, help="--save of ruac predict FOLDER")
    parser.add_argument("--to", choices=TOOLS, required=True, help="the tool that reads it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--min-risk", type=float, default=0.0, help="leave out pictures below it (default: %(default)s)"
    )
    parser.add_argument("--pictures", type=Path, help="fiftyone: the folder that was predicted")
    parser.add_argument("--prefix", help="label-studio: before each picture's name (default: its local files)")
    args = parser.parse_args(argv)

    from ruac.base.errors import RuacError
    from ruac.inference.review.cvat import write_cvat
    from ruac.inference.review.fiftyone import write_fiftyone
    from ruac.inference.review.label_studio import LOCAL_FILES, write_label_studio
    from ruac.inference.review.queue import read_queue

    if (args.pictures is not None) != (args.to == "fiftyone"):
        raise RuacError("--pictures: expected with --to fiftyone, and with no other")
    if args.prefix is not None and args.to != "label-studio":
        raise RuacError("--prefix: expected with --to label-studio only")
    queue = read_queue(args.folder, min_risk=args.min_risk)
    if args.to == "label-studio":
        written = write_label_studio(queue, args.out, prefix=LOCAL_FILES if args.prefix is None else args.prefix)
    elif args.to == "cvat":
        written = write_cvat(queue, args.out)
    else:
        written = write_fiftyone(queue, args.out, pictures=args.pictures)
    print(f"{len(queue.pictures)} pictures, {len(queue.safe)} below the risk {args.min_risk:g} left out")
    print(*(f"riskiest: {picture.file} ({picture.risk:.2f})" for picture in queue.pictures[:3]), sep="\n")
    if queue.unanswered:
        print(*(f"not in the queue, without an answer: {name}" for name in queue.unanswered), sep="\n")
    print(*(f"written: {path}" for path in written), sep="\n")
