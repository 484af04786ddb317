#!/usr/bin/env python
"""``ruac fetch-checkpoint`` as a script: tools/fetch_checkpoint.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.fetch_checkpoint import main

if __name__ == "__main__":
    run_tool(main)
