"""``ruac compare`` as a script: tools/compare.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.compare import main

if __name__ == "__main__":
    run_tool(main)
