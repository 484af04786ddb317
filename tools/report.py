"""Write the HTML report of a sweep.

python tools/report.py runs/sweep                      # writes runs/sweep/report.html
python tools/report.py runs/sweep --out report.html --title "Zero-shot, 23 domains"
"""

import argparse

from ruac.base.errors import run_tool
from ruac.evaluation.report import build_report


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", help="result folder of a sweep")
    parser.add_argument("--out", help="HTML file to write (default: report.html in the result folder)")
    parser.add_argument("--title", help="heading of the report")
    arguments = parser.parse_args(argv)
    print(build_report(arguments.results, arguments.out, arguments.title))


if __name__ == "__main__":
    run_tool(main)
