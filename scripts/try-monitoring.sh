#!/usr/bin/env bash
# The rules and dashboards of deploy/, by a real Prometheus that scrapes a real Tollgate under load.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin

for program in prometheus promtool redis-server python3; do
    command -v "$program" > /dev/null || { echo "$program is missing: scripts/setup.sh ci" >&2; exit 1; }
done
exec python3 scripts/monitoring/main.py "${1:-target/debug/tollgate}"
