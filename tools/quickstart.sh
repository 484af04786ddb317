#!/bin/sh
# Set everything up and do the main job; arguments go to tools/quickstart.py.
set -eu
cd "$(dirname "$0")/.."
sh tools/setup.sh
OMP_WAIT_POLICY=PASSIVE exec .venv/bin/python tools/quickstart.py "$@"
