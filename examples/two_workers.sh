#!/usr/bin/env bash
# A Dask scheduler and two workers started by hand on this machine, and wsi-seg on them.
#
#     examples/two_workers.sh [what wsi-seg takes: SLIDE... and options]
#
# Without arguments it segments the example slide into the folder out. Its exit code is wsi-seg's.
# The environment with wsi-seg must be active. On several machines the three commands are the same, each
# started on its own machine, with an address that the others reach instead of 127.0.0.1.
set -euo pipefail
set -m # each process below leads a group of its own: ctrl-C reaches wsi-seg first, and none is left over

if [ $# -eq 0 ]; then
    set -- "$(dirname "$0")/data/CMU-1-Small-Region.svs" -o out
fi
place=$(mktemp -d)
scheduler=$place/scheduler.json
started=()
command=

end() {
    trap '' HUP INT TERM
    for pid in ${command:+"$command"} ${started[@]+"${started[@]}"}; do
        kill -TERM -- "-$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$place"
}
trap end EXIT
trap 'exit 143' HUP INT TERM

# Nobody looks at a dashboard, so nothing is sampled for it. Its server is there all the same, for health checks,
# and listens on all interfaces unless it has an address of its own.
within=(--host 127.0.0.1 --no-dashboard --dashboard-address 127.0.0.1:0)
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL=1s

dask scheduler "${within[@]}" --port 0 --scheduler-file "$scheduler" \
    2>"$place/scheduler.log" &
started+=($!)
for name in one two; do
    # The tasks hold their own pixels, a few at a time; Dask has nothing to spill, so it sets no limit.
    dask worker --scheduler-file "$scheduler" "${within[@]}" --name "$name" \
        --nworkers 1 --nthreads 1 --memory-limit 0 --death-timeout 60 --local-directory "$place" \
        2>"$place/$name.log" &
    started+=($!)
done
until [ -s "$scheduler" ]; do
    if ! kill -0 "${started[0]}" 2>/dev/null; then
        cat "$place/scheduler.log" >&2
        exit 1
    fi
    sleep 0.1
done

wsi-seg "$@" --scheduler "$scheduler" &
command=$!
trap 'kill -TERM "$command" 2>/dev/null || true' HUP INT TERM # it ends by itself, with a valid store
code=0
wait "$command" || code=$?
while kill -0 "$command" 2>/dev/null; do # a signal ended the wait, not the command
    code=0
    wait "$command" || code=$?
done
command=
exit "$code"
