"""``ruac prepare-domain`` as a script: tools/prepare_domain.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.prepare_domain import main

if __name__ == "__main__":
    run_tool(main)
