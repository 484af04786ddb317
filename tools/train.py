"""``ruac train`` as a script: tools/train.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.train import main

if __name__ == "__main__":
    run_tool(main)
