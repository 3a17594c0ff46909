# What the job scripts of this folder have in common; they source it. Runs tools/run_net.py on every task of the job, and
# puts the job back into the queue when it was stopped for a time limit or a preemption.

if [ -n "$MODULES" ]; then module load $MODULES; fi
# A relative path that is not here is one of the checkout. ACTIVATE may have arguments (conda).
in_checkout() { if [ ! -e "${1%% *}" ] && [ -e "$CHECKOUT/${1%% *}" ]; then echo "$CHECKOUT/$1"; else echo "$1"; fi; }
if [ -n "$ACTIVATE" ]; then source $(in_checkout "$ACTIVATE"); fi
export PYTHONPATH="$CHECKOUT${PYTHONPATH:+:$PYTHONPATH}"  # this checkout, whatever else is installed

# The tasks find one another by Slurm's variables. When one fails, srun ends the others. srun does not take over
# --cpus-per-task from sbatch (Slurm 22.05 and later).
status=0
srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  python -u "$CHECKOUT/tools/run_net.py" --cfg "$(in_checkout "$CONFIG")" NUM_GPUS auto OUTPUT_DIR "$OUTPUT_DIR" "$@" TRAIN.AUTO_RESUME True || status=$?

case $status in
  75) again=yes ;;         # stopped by the signal, and the checkpoint is on the disk
  138 | 140) again=yes ;;  # the signal came before anybody listened: killed by SIGUSR1 or SIGUSR2
  143)                     # SIGTERM: a preemption with time to leave, after which Slurm takes a job for failed; or scancel
    scontrol show job "$SLURM_JOB_ID" | grep -q 'PreemptTime=[0-9]' && again=yes || again=no ;;
  *) again=no ;;
esac
if [ "$again" = yes ] && [ "${SLURM_RESTART_COUNT:-0}" -ge "$RESTARTS" ]; then
  echo "not requeued: that was restart $SLURM_RESTART_COUNT of RESTARTS=$RESTARTS. To go on, submit with OUTPUT_DIR=$OUTPUT_DIR"
elif [ "$again" = yes ]; then
  echo "requeueing job $SLURM_JOB_ID; it resumes from the newest checkpoint in $OUTPUT_DIR"
  # After a preemption Slurm itself may have requeued the job, and refuses to do it twice.
  if ! refusal=$(scontrol requeue "$SLURM_JOB_ID" 2>&1); then
    if scontrol show job "$SLURM_JOB_ID" | grep -q 'JobState=\(PENDING\|PREEMPTED\|REQUEUED\|COMPLETING\)'; then
      echo "Slurm has requeued it already"
    else
      echo "error: not requeued: $refusal. The same sbatch command with OUTPUT_DIR=$OUTPUT_DIR resumes it" >&2
    fi
  fi
fi
exit "$status"
