#!/usr/bin/env bash
# The whole comparison: every figure beside its anchors in one run, into docs/performance.md and
# docs/performance-*.svg. Takes some minutes, and a machine that does nothing else meanwhile.
# Best as root: the programs then run as a user without privileges, in an IPC namespace of their own.
# MQFS_BEFORE=FOLDER compares with the mqfs-server, mqfs-client and speed of an older build too.
#
#   benches/compare.sh [--quick] [--only SECTION,…] [--runs N] [--size MIB]
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"
for tool in cargo cc; do
    type -P "$tool" >/dev/null || { echo "compare.sh: $tool is not installed: nothing can be built" >&2; exit 1; }
done
for tool in nginx curl rsync chrt; do
    [[ -n $(PATH=$PATH:/usr/sbin:/sbin type -P "$tool") ]] || echo "compare.sh: $tool is not installed: its figures will be missing" >&2
done
exec cargo bench --bench speed -- "$@" --write docs
