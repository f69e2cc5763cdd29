#!/usr/bin/env bash
# The image, built without a registry and run as a container runtime does: from scratch by buildah, then in namespaces of
# its own, read-only, not as root, without capabilities. BINARY is what goes into it; default: the release binary.
set -euo pipefail
cd "$(dirname "$0")/.."

((EUID == 0)) || { echo "namespaces and mounts: run it as root" >&2; exit 1; }
# A container that CI runs in may forbid this, and then nothing here can be tried.
if ! why=$(unshare --mount --net --pid --ipc --uts --fork sh -c 'mount -t tmpfs tmpfs /mnt' 2>&1); then
    echo "SKIPPED: this machine lets root have no namespaces and mounts of its own, so no image can be run: $why"
    exit 0
fi

binary=${BINARY:-target/release/tollgate}
scratch=$(mktemp -d)
image=localhost/tollgate:try container= runner=
# In storage of its own, on the plain file system.
buildah() { command buildah --storage-driver vfs --root "$scratch/storage" --runroot "$scratch/run" "$@"; }
fail() { echo "FAILED: $*" >&2; cat "$scratch/log" >&2 2> /dev/null || true; exit 1; }
leave() {
    [[ -z $runner ]] || kill -KILL "$runner" 2> /dev/null || true
    [[ -z $container ]] || buildah rm "$container" > /dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap leave EXIT
until_() {
    local what=$1 end=$((SECONDS + 30))
    shift
    until "$@" > /dev/null 2>&1; do
        ((SECONDS < end)) || fail "$what: not within 30 s"
        sleep 0.1
    done
}

for pair in buildah:buildah curl:curl strip:binutils ip:iproute2 pgrep:procps; do
    command -v "${pair%%:*}" > /dev/null || apt-get install --yes --no-install-recommends "${pair##*:}"
done
[[ -x $binary ]] || cargo build --release --locked --bin tollgate
cargo run --locked --quiet --package tollgate-packaging --no-default-features -- target/packaging
scripts/image-root.sh "$binary" target/packaging/tollgate.cdx.json "$scratch/image"

# The last stage of the Dockerfile, with what its first stage would have made on this machine.
sed -n '/^FROM scratch/,$p' Dockerfile | sed 's/ --from=build//' > "$scratch/Dockerfile"
mkdir "$scratch/context"
mv "$scratch/image" "$scratch/context/image"
buildah build --isolation chroot --format docker --quiet -f "$scratch/Dockerfile" -t "$image" "$scratch/context" > /dev/null
size=$(du -s --apparent-size --block-size=1 "$scratch/context/image" | cut -f 1)
((size < 40 << 20)) || fail "the image has $((size >> 20)) MiB"
container=$(buildah from "$image")
root=$(buildah mount "$container")
user=$(buildah inspect --type image --format '{{.OCIv1.Config.User}}' "$image")
[[ $user == 10001:10001 ]] || fail "it would run as \"$user\""
buildah inspect --type image "$image" | grep '"Test"' > /dev/null || fail "no HEALTHCHECK"
echo "built: $((size >> 20)) MiB, user $user"

# Process 1 of a process namespace; a network, a mount table and a /proc of its own; the root file system read-only.
cat > "$scratch/inside.sh" << 'SH'
set -eu
ip link set lo up
mount --bind "$1" "$1"
mkdir -p "$1/proc" "$1/run/tollgate"
mount -t proc proc "$1/proc"
mount -t tmpfs -o uid=10001,gid=10001,mode=0700 tmpfs "$1/run/tollgate"
mount -o remount,bind,ro "$1"
exec setpriv --no-new-privs \
    chroot --userspec=10001:10001 "$1" /usr/bin/tollgate run
SH
unshare --mount --net --pid --ipc --uts --fork --kill-child sh "$scratch/inside.sh" "$root" > "$scratch/log" 2>&1 &
runner=$!
first() { pgrep -P "$runner" | head -n 1; }
until_ "process 1" first
one=$(first)
net() { nsenter -t "$one" -n "$@"; }
health() { nsenter -t "$one" -m -n -p -r -w -S 10001 -G 10001 /usr/bin/tollgate health; }
until_ "healthy" health
[[ $(net curl -s http://127.0.0.1:8080/) == "Tollgate serves"* ]] || fail "no answer"
[[ $(awk '/^Uid/ { print $2 }' "/proc/$one/status") == 10001 ]] || fail "it runs as root"
[[ $(awk '/^CapEff/ { print $2 }' "/proc/$one/status") == 0000000000000000 ]] || fail "it has capabilities"
[[ $(awk '/^NSpid/ { print $NF }' "/proc/$one/status") == 1 ]] || fail "it is not process 1"
echo "runs: process 1, user 10001, no capabilities, read-only, healthy"

answer=$(nsenter -t "$one" -m -n -p -r -w -S 10001 -G 10001 /usr/bin/tollgate upgrade 2>&1) && fail "process 1 hands over"
[[ $answer == *"process 1 of a container"* ]] || fail "why it does not hand over: $answer"

# A process whose parent is gone is process 1's to take leave of.
nsenter -t "$one" -p sh -c '(sleep 0.3 &) ; exit 0'
zombies() { ps -o stat= --ppid "$one" | grep Z > /dev/null; }
until_ "the orphan" sh -c "! ps -o args= --ppid $one | grep -q sleep"
! zombies || fail "an orphan stays in the table of processes"
echo "reaps orphans"

# TERM: the request that is in flight is finished.
begin=$SECONDS
kill -TERM "$one"
wait "$runner" || fail "it ended with $?"
runner=
echo "TERM: drained and left after $((SECONDS - begin)) s"
echo "everything holds after $SECONDS s"
