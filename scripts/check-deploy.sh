#!/usr/bin/env bash
# The manifests and the chart: rendered by kustomize and Helm's engine, checked by the schemas of Kubernetes; their
# configuration by the binary, their rules by promtool. BLESS=1 writes deploy/prometheus/prometheusrule.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin

command -v promtool > /dev/null || { echo "promtool is missing: scripts/setup.sh ci" >&2; exit 1; }
venv=target/deploy-venv
if ! cmp -s deploy/requirements.txt "$venv/installed"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --requirement deploy/requirements.txt
    cp deploy/requirements.txt "$venv/installed"
fi
# Helm's engine says of each link in the chart that it follows it.
"$venv/bin/python" scripts/deploy/check.py "${1:-target/debug/tollgate}" 2> >(grep -v 'found symbolic link' >&2)

promtool check rules --lint=all --lint-fatal deploy/prometheus/rules/*.yml
promtool check config deploy/prometheus/prometheus.yml > /dev/null
promtool test rules deploy/prometheus/tests/*.yml
