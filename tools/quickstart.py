"""Train, export, sweep, predict and report on the embedded default, or on folders of your own.

tools/quickstart.py [source=DIR] ['domains=[DIR,DIR]'] [out=DIR] [key=value ...]
"""

import argparse

from ruac.base.config import load_config
from ruac.base.errors import run_tool
from ruac.studies.quickstart import QuickstartConfig, run_quickstart


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of QuickstartConfig")
    run_quickstart(load_config(QuickstartConfig, None, parser.parse_args(argv).overrides))


if __name__ == "__main__":
    run_tool(main)
