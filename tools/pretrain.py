"""``ruac pretrain`` as a script: tools/pretrain.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.pretrain import main

if __name__ == "__main__":
    run_tool(main)
