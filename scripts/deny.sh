#!/usr/bin/env bash
# The dependencies: licences, bans, sources, and known vulnerabilities where their database can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."

loudly() {
    printf '############################################################\n# %s\n############################################################\n' "$*" >&2
}

if ! command -v cargo-deny > /dev/null; then
    loudly "cargo-deny is missing and is built now, once: this takes some minutes"
    cargo install cargo-deny --locked
fi

cargo deny --all-features --locked check licenses bans sources

# Offline, the advisories of the last fetch are no news: say so instead of passing.
if timeout 120 cargo deny fetch db > /dev/null 2>&1; then
    cargo deny --all-features --locked check advisories
else
    loudly "the advisory database cannot be fetched: known vulnerabilities are NOT checked here"
fi
