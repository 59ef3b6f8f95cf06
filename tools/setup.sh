#!/usr/bin/env bash
# Create the virtual environment $2 with Python $1 and install the tested stack into it.
set -euo pipefail
python=$1 venv=$2

if [ -z "$python" ]; then
    echo 'setup: no Python 3.10, 3.11 or 3.12 found; install one, or name it: make setup PYTHON=/path/to/python3.11' >&2
    exit 2
fi
if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv" || {
        echo "setup: '$python -m venv' failed; on Debian and Ubuntu it needs the package python3-venv" >&2
        exit 2
    }
fi
# uv installs the stack in seconds and honours pyproject.toml's build dependencies for mmcv.
# One of our own: an old uv on the PATH would ignore those.
uv=$venv/bin/uv
[ -x "$uv" ] || "$venv/bin/python" -m pip install --quiet 'uv>=0.9'
"$uv" pip install --quiet --python "$venv/bin/python" --constraint tools/constraints.txt --editable '.[all]'
"$venv/bin/python" -m normplug
