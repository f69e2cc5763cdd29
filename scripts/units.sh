#!/usr/bin/env bash
# What systemd says of the units, where it is installed: that they are right, and how much they give away.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v systemd-analyze > /dev/null || { echo "no systemd-analyze: units are not checked"; [[ -z ${CI:-} ]]; exit; }

# Programs and users that the package brings are not on this machine.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for unit in service socket; do
    sed 's|=/usr/bin/tollgate|=/bin/true|; /^User=/d; /^Group=/d; /^Documentation=/d' "systemd/tollgate.$unit" > "$scratch/tollgate.$unit"
done
complaints=$(systemd-analyze verify "$scratch"/tollgate.{service,socket} 2>&1 | grep -F "$scratch" || true)
[[ -z $complaints ]] || { echo "$complaints" >&2; exit 1; }
# Tenths: below 2.5.
systemd-analyze security --no-pager --offline=yes --threshold=24 systemd/tollgate.service | tail -n 1
