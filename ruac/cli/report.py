"""Write the HTML report of a sweep."""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac report runs/sweep --out report.html --title 'Zero-shot, 23 domains'"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("results", help="result folder of a sweep")
    parser.add_argument("--out", help="HTML file to write (default: report.html in the result folder)")
    parser.add_argument("--title", help="heading of the report")
    arguments = parser.parse_args(argv)

    from ruac.evaluation.report import build_report

    print(build_report(arguments.results, arguments.out, arguments.title))
