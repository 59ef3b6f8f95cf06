#!/usr/bin/env bash
# Train as a slurm job: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGS of tools/train.py]
# Environment: see tools/slurm.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/slurm.sh" train 'CONFIG' "$@"
