"""Show versions, devices and checkpoints, what is missing and how to get it."""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac doctor --json"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--json", action="store_true", help="for programs; the same findings")
    parser.add_argument("--answer", action="store_true", help="also let the embedded model answer, some seconds more")
    args = parser.parse_args(argv)

    from ruac.studies.doctor import as_json, as_text, examine, is_broken

    findings = examine(answer=args.answer)
    print(as_json(findings) if args.json else as_text(findings))
    if is_broken(findings):
        raise SystemExit(1)
