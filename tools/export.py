"""Export a trained run as a model folder: tools/export.py RUN OUT [--head-only]"""

import argparse

from ruac.base.errors import run_tool
from ruac.training.export_run import export_run


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="out= of tools/train.py")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--head-only", action="store_true", help="leave the backbone's weights out")
    args = parser.parse_args(argv)
    print(f"exported: {export_run(args.run, args.out, with_backbone=not args.head_only)}")


if __name__ == "__main__":
    run_tool(main)
