"""Train a semantic segmenter from few labels, pseudo-labels and the rest of the pictures.

Methods: supervised, pseudo, self_training, conformal_sam, fixmatch, unimatch_v1, unimatch_v2 (docs/students.md).
"""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac train-student conformal_sam source=DIR pseudo_labels=runs/labels out=runs/student"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("config", help="name of a config of ours, or YAML of differences from StudentConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--resume", action="store_true", help="continue the run in out=")
    parser.add_argument("--split", action="store_true", help="only write the lists of pictures to out=")
    args = parser.parse_intermixed_args(argv)

    from pathlib import Path

    from ruac.base.assets import named_config
    from ruac.base.config import load_config
    from ruac.base.files import read_json
    from ruac.training.student.run import StudentConfig, open_split, train_student, write_split

    config = load_config(StudentConfig, named_config(args.config, "student"), args.overrides)
    if args.split:
        dataset, split = open_split(config)
        write_split(dataset, split, Path(config.out))
        print(f"lists: {config.out}: " + ", ".join(f"{len(places)} {name}" for name, places in vars(split).items()))
        return
    out = train_student(config, resume=args.resume)
    scores = read_json(out / "result.json")["validation"]
    print(" ".join(f"{name} {value:.4f}" for name, value in scores.items() if name != "iou"))
    print(f"result: {out / 'result.json'}")
