#!/usr/bin/env bash
# A run whose trainings take all nodes of a SLURM job. From a checkout that all nodes see, after ./run_all.sh setup:
#
#   sbatch --nodes=2 docs/slurm.sh --profile paper --data DIR --out OUT
#
# What follows the file's name goes to ./run_all.sh; DIR and OUT are on a file system that all nodes share. A job that
# is requeued goes on from its last checkpoint. Change what your cluster calls otherwise:
#SBATCH --job-name=kitlib
#SBATCH --output=kitlib-%j.txt
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"

# The rendezvous of torchrun is on the node that runs this file; srun starts a torchrun for each training on every node.
PET_RDZV_ENDPOINT="$(hostname):$((20000 + SLURM_JOB_ID % 20000))"
export PET_NNODES="$SLURM_JOB_NUM_NODES" PET_RDZV_BACKEND=c10d PET_RDZV_ID="$SLURM_JOB_ID" PET_RDZV_ENDPOINT
export KIT_ON_EACH_HOST="srun --overlap --ntasks-per-node=1 --kill-on-bad-exit=1"

./run_all.sh --gpus "${SLURM_GPUS_ON_NODE:-0}" "$@"
