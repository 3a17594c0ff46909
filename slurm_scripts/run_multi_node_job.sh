#!/usr/bin/env bash
# Train and test on several nodes:  sbatch --nodes=4 slurm_scripts/run_multi_node_job.sh [--cfg FILE.yaml] [KEY VALUE ...]
# Options of sbatch go before the script and win over the lines below, for example:
#   sbatch --nodes=4 --partition=long slurm_scripts/run_multi_node_job.sh TRAIN.BATCH_SIZE 16
# TRAIN.BATCH_SIZE is the clips of one node in one pass: times the nodes it may not exceed GLOBAL_BATCH_SIZE.

# ---- What to ask of Slurm. One task is one process on one GPU: --ntasks-per-node is the number of GPUs.
#SBATCH --job-name=timesformer
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=9
#SBATCH --time=3-00:00:00
#SBATCH --output=%x-%j.log

# ---- What your site may want besides: take out one # and fill in.
##SBATCH --partition=PARTITION
##SBATCH --account=ACCOUNT
##SBATCH --qos=QOS
##SBATCH --constraint=FEATURE
##SBATCH --mem=400G

# ---- Two minutes before the limit, and when preempted: save, requeue, go on with the same number and log.
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append

# ---- Yours. A variable of the same name in your shell wins:  CONFIG=my.yaml sbatch ...
MODULES=${MODULES-}                             # for `module load`, such as "cuda/12.4"
ACTIVATE=${ACTIVATE-.venv/bin/activate}         # sourced; conda: "$HOME/miniconda3/bin/activate NAME"; empty: nothing
CONFIG=${CONFIG-configs/Kinetics/TimeSformer_divST_8x32_224.yaml}
OUTPUT_DIR=${OUTPUT_DIR-output/$SLURM_JOB_NAME-$SLURM_JOB_ID}  # on a file system that all nodes share
RESTARTS=${RESTARTS-20}                         # the job requeues itself at most so many times

# Nodes with several networks: the interface that the processes shall use, such as ib0 (nothing is guessed).
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0

# The checkout is where Slurm got this script from, wherever you stand; relative paths start from where you stand.
script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*/slurm_scripts/[^/ ]*\.sh\).*|\1|p')
CHECKOUT=$(dirname "$(dirname "${script:-$PWD/slurm_scripts/job.sh}")")
source "$CHECKOUT/slurm_scripts/train_and_requeue.sh"
