#!/usr/bin/env bash
# Builds the release binary a second time, laid out by a profile of the first under load: target/pgo/tollgate.
# It needs llvm-profdata of rustc's own LLVM or a later one: `rustup component add llvm-tools`, or a package llvm-NN.
# With llvm-bolt (a package bolt-NN) the result is moved about once more, by what the finished code does under load.
set -euo pipefail
cd "$(dirname "$0")/.."

exec 3>&2
say() { printf '%s\n' "$*" >&3; }

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

bolt= gather=
for suffix in "-$wanted" ""; do
    if command -v "llvm-bolt$suffix" > /dev/null && command -v "merge-fdata$suffix" > /dev/null; then
        bolt=llvm-bolt$suffix gather=merge-fdata$suffix
        break
    fi
done

profiles=$PWD/target/pgo/profiles
rm -rf "$profiles"
mkdir -p "$profiles"
# A target is named so that the flags do not reach build scripts and macros. In the older form of symbols BOLT takes
# every module whose name begins with "warm" or "cold" for a piece of a function. Settings of the release profile must be
# the same each time: names of functions carry a hash of them, and the profile finds functions by their names.
build() {
    RUSTFLAGS="-Csymbol-mangling-version=v0 $1" \
        cargo build --release --target "$host" --target-dir "$2" --package tollgate
}
cargo build --quiet --package tollgate-load
cases=()
for case in kept logged fresh jwt-rs256 jwt-es256 jwt-hs256 policies tls-full tls-resumed tls-kept h2 body-100k websocket; do
    cases+=(--case "$case")
done
# Its figures are of no interest; a case that this machine has no tools for is missed by the profile, and no more.
load() {
    target/debug/tollgate-load compare "${cases[@]}" --rounds 1 --seconds 2 --alone --tollgate "$1" --results "$profiles" \
        > "$profiles/load.log" 2>&1 || say "a case failed: $profiles/load.log"
}

say "1 of 5: a binary that counts"
build "-Cprofile-generate=$profiles" target/pgo/counting
say "2 of 5: load"
load "target/pgo/counting/$host/release/tollgate"
"$merge" merge --output "$profiles/merged.profdata" "$profiles"/*.profraw
say "3 of 5: the binary"
# Where its addresses stand is kept for BOLT, which moves them.
build "-Cprofile-use=$profiles/merged.profdata${bolt:+ -Clink-arg=-Wl,--emit-relocs}" target/pgo/laid-out
binary=target/pgo/laid-out/$host/release/tollgate
# Moves its code by how it runs: what is run together lies together, and a branch that is seldom taken lies elsewhere.
# Lines of the source could be moved as well, but not so that valgrind reads them; what panics names its line all the same.
move() {
    say "4 of 5: load for BOLT"
    "$bolt" "$binary" -o target/pgo/tracing --instrument --instrumentation-file="$profiles/bolt" \
        --instrumentation-file-append-pid &&
        load target/pgo/tracing && "$gather" "$profiles"/bolt.*.fdata > "$profiles/merged.fdata" &&
        say "5 of 5: the binary, moved" &&
        "$bolt" "$binary" -o target/pgo/tollgate --data="$profiles/merged.fdata" --reorder-blocks=ext-tsp \
            --reorder-functions=cdsort --split-functions --split-all-cold --split-eh --icf=safe &&
        "${merge/profdata/objcopy}" --strip-debug target/pgo/tollgate &&
        target/pgo/tollgate --version
}
if [[ -z $bolt ]]; then
    say "llvm-bolt or merge-fdata is missing (apt-get install bolt-$wanted): steps 4 and 5 are left out"
    cp "$binary" target/pgo/tollgate
elif ! move >> "$profiles/bolt.log" 2>&1; then
    say "BOLT has failed ($profiles/bolt.log), so the binary is that of step 3"
    cp "$binary" target/pgo/tollgate
fi
say "target/pgo/tollgate"
