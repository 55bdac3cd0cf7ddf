#!/usr/bin/env bash
# SLURM: one slide a task of an array. A task that runs out of time is queued again and goes on.
#
#     ls /data/slides/*.svs >slides.txt
#     sbatch --array=1-$(wc -l <slides.txt)%50 examples/slurm_array.sh slides.txt results --budget 10%
#
# slides.txt has a path on each line, and after it, parted by tabs, options of this slide alone; what follows
# the folder for the results is given to wsi-seg for each. --overwrite is for a task's first try. What the site
# wants (partition, account, a GPU by --gres=gpu:1) goes on sbatch's line, and wins over what is here.
# `sacct -X -o JobID,State,ExitCode` shows each task's exit code, which is wsi-seg's.
#SBATCH --job-name=wsi-seg
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=wsi-seg-%A_%a.log
set -euo pipefail

MARGIN_S=120  # for the windows at work when time is up, and the levels of the mask
MAX_TRIES=50  # a task that ends with 75 so often is not getting anywhere

list=$1
results=$2
shift 2
IFS=$'\t' read -r -a line <<<"$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$list" | tr -d '\r')"
if [ "${#line[@]}" -eq 0 ]; then
    echo "$list has no line $SLURM_ARRAY_TASK_ID" >&2
    exit 2
fi

# By itself the job's own id is the whole array's for one of the tasks.
task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
# Older versions of SLURM do not tell a job when it will end.
end=${SLURM_JOB_END_TIME:-$(date -d "$(squeue --noheader --jobs "$task" --format %e)" +%s)}
left=$((end - $(date +%s) - MARGIN_S))
options=(-o "$results" --workers "${SLURM_CPUS_PER_TASK:-1}" --max-seconds "$((left > 0 ? left : 1))")
for option in "$@" "${line[@]:1}"; do
    if [ "$option" != --overwrite ] || [ "${SLURM_RESTART_COUNT:-0}" -eq 0 ]; then
        options+=("$option") # else a task that was queued again would begin anew
    fi
done
code=0
wsi-seg run "${line[0]}" "${options[@]}" || code=$?

if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$MAX_TRIES" ]; then
    scontrol requeue "$task" || echo "it was not queued again" >&2
fi
exit "$code"
