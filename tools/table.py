"""``ruac table`` as a script: tools/table.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.table import main

if __name__ == "__main__":
    run_tool(main)
