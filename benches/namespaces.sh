#!/usr/bin/env bash
# Many IPC namespaces with an mqfs-server each: how long they take to start, what memory they use,
# and what CPU time at rest. The figures of docs/sandboxes.md. Needs root.
#
#   benches/namespaces.sh [NAMESPACES [SECONDS]]
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
count=${1:-100} seconds=${2:-10}
PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin" cargo build --quiet --release --bin mqfs-server
scratch=$(mktemp -d) pids=()
end() {
    ((${#pids[@]} == 0)) || kill -- "${pids[@]}"
    wait
    rm -r -- "$scratch"
}
trap end EXIT

# A file in /proc of all servers.
proc() { printf "/proc/%d/$1\n" "${pids[@]}" | xargs cat; }
# The sum of one of its fields.
sum() { proc "$1" | awk -v name="$2" '$1 == name { sum += $2 } END { print sum }'; }
# Their CPU time in microseconds; without children, of which each forks one every minute.
cpu() { proc schedstat | awk '{ sum += $1 } END { printf "%d", sum / 1000 }'; }
kernel() { awk '/^(Slab|PageTables|KernelStack|Percpu):/ { sum += $2 } END { print sum }' /proc/meminfo; }

before=$(kernel) start=${EPOCHREALTIME/./}
for ((i = 0; i < count; i++)); do
    mkfifo "$scratch/ready"
    unshare --ipc target/release/mqfs-server --quiet --root /srv >"$scratch/ready" &
    pids+=($!)
    read -r _ <"$scratch/ready" # the server is ready
    rm "$scratch/ready"
done
started=$((${EPOCHREALTIME/./} - start)) after=$(kernel)

sleep 2 # until each has looked for orphans
cpu=$(cpu)
sleep "$seconds"
cpu=$(($(cpu) - cpu))
printf '%d namespaces with a server each, mean of a server:\n' "$count"
per() { awk -v what="$1" -v value="$2" -v count="$count" -v unit="$3" 'BEGIN { printf "%-34s %8.2f %s\n", what, value / count, unit }'; }
per 'start, with unshare, one by one' "$((started / 1000))" ms
per 'memory, private' "$(($(sum smaps_rollup Private_Clean:) + $(sum smaps_rollup Private_Dirty:)))" KiB
per 'memory, proportional (PSS)' "$(sum smaps_rollup Pss:)" KiB
per 'memory of the kernel' "$((after - before))" KiB
per "CPU time in $seconds s at rest" "$cpu" µs
