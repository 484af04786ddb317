#!/bin/sh
# Ask the advisory database of PyPI about the versions in requirements.lock; arguments go to pip-audit.
# Status 1: one of them has a known vulnerability. What could not be asked is said, with status 0.
set -eu
cd "$(dirname "$0")/.."
if ! audit=$(command -v pip-audit || ls .venv/bin/pip-audit 2>/dev/null); then
    echo "audit: not done: pip-audit is not installed; pip install pip-audit"
    exit 0
fi
status=0
said=$("$audit" --requirement requirements.lock --disable-pip --require-hashes --progress-spinner off --timeout 5 "$@" 2>&1) ||
    status=$?
case $said in
*ConnectionError* | *ConnectTimeout* | *ReadTimeout* | *"Max retries exceeded"*)
    echo "audit: not done: the advisory database cannot be reached"
    exit 0
    ;;
esac
echo "$said" | grep -v "could not be audited" || true
if unknown=$(echo "$said" | grep -c "could not be audited"); then
    echo "audit: not done for $unknown packages, of which the database says nothing"
fi
exit "$status"
