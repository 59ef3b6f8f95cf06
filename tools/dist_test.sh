#!/usr/bin/env bash
# Evaluate on NUM_PROC processes of this machine, one a GPU where there are GPUs:
#   tools/dist_test.sh CONFIG CHECKPOINT NUM_PROC [ARGS of tools/test.py]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT (docs/distributed.md).
tools=$(dirname "${BASH_SOURCE[0]}")
exec bash "$tools/python.sh" -m normplug.launch.torchrun "$tools/test.py" "$@"
