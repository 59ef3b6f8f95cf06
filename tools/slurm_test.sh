#!/usr/bin/env bash
# Evaluate as a slurm job:
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [ARGS of tools/test.py]
# Environment: see tools/slurm.sh.
exec bash "$(dirname "${BASH_SOURCE[0]}")/slurm.sh" test 'CONFIG CHECKPOINT' "$@"
