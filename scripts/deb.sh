#!/usr/bin/env bash
# Builds the Debian package into target/debian. PROFILE=dev takes the binary that tests use, and REVISION=2 makes a package
# that is newer than the one of the same version.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release} revision=${REVISION:-1}
cargo deb --version > /dev/null 2>&1 || cargo install --locked cargo-deb --version '^3.8'
command -v dpkg-shlibdeps > /dev/null || { echo "missing: apt-get install dpkg-dev" >&2; exit 1; }
cargo build --locked --profile "$profile" --bin tollgate
cargo run --locked --quiet -p tollgate-packaging -- target/packaging
# The profile keeps what names functions and lines, for profilers; packages do not.
cargo deb --locked --no-build --strip --profile "$profile" --deb-revision "$revision" --output target/debian/ ${FAST:+--fast}
if [[ -z ${FAST:-} ]] && command -v lintian > /dev/null; then
    lintian --fail-on error,warning --allow-root "target/debian/tollgate_"*"-${revision}_"*.deb
fi
