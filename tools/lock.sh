#!/bin/sh
# Write requirements.lock: the dependencies at the versions of .venv, which the tests run with, and their hashes.
set -eu
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "lock: uv is not installed; pip install uv"; exit 2; }
versions=$(mktemp)
trap 'rm -f "$versions"' EXIT
.venv/bin/python -m pip --disable-pip-version-check list --format=freeze --exclude ruac | sed 's/+.*//' >"$versions"
uv pip compile pyproject.toml --constraints "$versions" --universal --python-version 3.11 --generate-hashes \
    --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "sh tools/lock.sh" \
    --quiet --output-file requirements.lock
