#!/usr/bin/env bash
# Builds the release binary a second time, laid out by a profile of the first under load: target/pgo/tollgate.
# It needs llvm-profdata of rustc's own LLVM or a later one: `rustup component add llvm-tools`, or a package llvm-NN.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

host=$(rustc -vV | sed -n 's/^host: //p')
wanted=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
merge=
for candidate in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "llvm-profdata-$wanted" llvm-profdata; do
    if found=$("$candidate" merge --version 2> /dev/null || "$candidate" --version 2> /dev/null) &&
        (($(sed -n 's/.*LLVM version \([0-9]*\).*/\1/p' <<< "$found" | head -n 1) >= wanted)); then
        merge=$candidate
        break
    fi
done
if [[ -z $merge ]]; then
    say "llvm-profdata of LLVM $wanted or later is missing: rustup component add llvm-tools, or apt-get install llvm-$wanted"
    exit 1
fi

profiles=$PWD/target/pgo/profiles
rm -rf "$profiles"
mkdir -p "$profiles"
# A target is named so that the flags do not reach build scripts and macros.
build() { RUSTFLAGS=$1 cargo build --release --target "$host" --target-dir "$2" --package tollgate; }

say "1 of 3: a binary that counts"
build "-Cprofile-generate=$profiles" target/pgo/counting
say "2 of 3: load"
cargo build --quiet --package tollgate-load
cases=()
for case in kept logged fresh jwt-rs256 jwt-es256 jwt-hs256 policies tls-full tls-resumed tls-kept h2 body-100k websocket; do
    cases+=(--case "$case")
done
# Its figures are of no interest; a case that this machine has no tools for is missed by the profile, and no more.
target/debug/tollgate-load compare "${cases[@]}" --rounds 1 --seconds 2 --alone \
    --tollgate "target/pgo/counting/$host/release/tollgate" --results "$profiles" > "$profiles/load.log" 2>&1 ||
    say "a case failed: $profiles/load.log"
"$merge" merge --output "$profiles/merged.profdata" "$profiles"/*.profraw
say "3 of 3: the binary"
build "-Cprofile-use=$profiles/merged.profdata" target/pgo/laid-out
cp "target/pgo/laid-out/$host/release/tollgate" target/pgo/tollgate
say "target/pgo/tollgate"
