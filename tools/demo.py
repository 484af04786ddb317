"""``ruac demo`` as a script: tools/demo.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.demo import main

if __name__ == "__main__":
    run_tool(main)
