"""``ruac sweep`` as a script: tools/sweep.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.sweep import main

if __name__ == "__main__":
    run_tool(main)
