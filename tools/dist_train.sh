#!/usr/bin/env bash
# Train on NUM_PROC processes of this machine, one a GPU where there are GPUs:
#   tools/dist_train.sh CONFIG NUM_PROC [ARGS of tools/train.py]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT (docs/distributed.md).
tools=$(dirname "${BASH_SOURCE[0]}")
exec bash "$tools/python.sh" -m normplug.launch.torchrun "$tools/train.py" "$@"
