#!/usr/bin/env bash
# The whole comparison: every figure beside its anchors in one run, into docs/performance.md and
# docs/performance-*.svg. Takes some minutes, and a machine that does nothing else meanwhile.
# Best as root: the programs then run as a user without privileges, in IPC namespaces of their own.
#
#   benches/compare.sh [--quick] [--only SECTION,…] [--runs N] [--size MIB]
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
command -v cargo >/dev/null || export PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH"
for tool in nginx curl socat rsync; do
    [[ -n $(PATH=$PATH:/usr/sbin:/sbin type -P "$tool") ]] || echo "compare.sh: $tool is not installed: its figures will be missing" >&2
done
exec cargo bench --bench speed -- "$@" --write docs
