#!/usr/bin/env bash
# Run Python with this repository importable: $PYTHON, else that of .venv, else `python`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    [ ! -x "$root/.venv/bin/python" ] || PYTHON=$root/.venv/bin/python
fi
if ! command -v "$PYTHON" >/dev/null; then
    echo "tools/python.sh: error: there is no $PYTHON; run make setup, or set PYTHON" >&2
    exit 2
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" "$@"
