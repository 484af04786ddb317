"""``ruac reproduce`` as a script: tools/reproduce.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.reproduce import main

if __name__ == "__main__":
    run_tool(main)
