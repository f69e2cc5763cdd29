#!/usr/bin/env bash
# The package under a booted systemd, from nothing: installed, reloaded, upgraded under load, killed, stopped, removed.
# As root on a Debian; everything happens in a copy of a tree that debootstrap makes once (TOLLGATE_CACHE). DEBS is a
# directory with two packages, tollgate_*-1_*.deb and tollgate_*-2_*.deb; without it they are built with the dev profile.
set -euo pipefail
cd "$(dirname "$0")/.."

((EUID == 0)) || { echo "it boots a machine: run it as root" >&2; exit 1; }
# A container that CI runs in may forbid this, and then nothing here can be tried.
cannot() { echo "SKIPPED: this machine cannot boot another, so the package is not tried under systemd: $*"; exit 0; }
why=$(unshare --mount --net --pid --ipc --uts --cgroup --fork \
    sh -c 'mount -t tmpfs tmpfs /mnt && mknod /mnt/null c 1 3' 2>&1) || cannot "$why"
why=$(mkdir "/sys/fs/cgroup/tollgate-$$" 2>&1 && rmdir "/sys/fs/cgroup/tollgate-$$") || cannot "$why"

cache=${TOLLGATE_CACHE:-/var/cache/tollgate} tree=${TOLLGATE_CACHE:-/var/cache/tollgate}/bookworm
scratch=$(mktemp -d)
machine= leader= children=()

say() { printf '%-9s %s\n' "$(printf '%4d s' "$SECONDS")" "$*"; }
fail() {
    echo "FAILED: $*" >&2
    [[ -z $leader ]] || in_ journalctl --no-pager -u 'tollgate*' -n 40 >&2 || true
    exit 1
}
leave() {
    for child in "${children[@]}"; do kill "$child" 2> /dev/null || true; done
    if [[ -n $leader ]]; then
        # A halt from inside takes the copy of the tree away as well.
        kill -RTMIN+3 "$leader" 2> /dev/null || true
        for _ in $(seq 100); do kill -0 "$leader" 2> /dev/null && sleep 0.1 || break; done
        kill -KILL "$leader" 2> /dev/null || true
        wait "$machine" 2> /dev/null || true
    fi
    rm -rf "$scratch"
}
trap leave EXIT

# In the machine; `net` is a program of this one in the machine's network.
in_() { nsenter -t "$leader" -a -- "$@"; }
net() { nsenter -t "$leader" -n -- "$@"; }
put() { in_ tee "$1" > /dev/null; }
# Read whole: a grep that is content early would make journalctl fail.
journal() { in_ journalctl --no-pager -u tollgate > "$scratch/journal" && grep -qi "$1" "$scratch/journal"; }
shown() { in_ systemctl show tollgate.service --value -p "$1"; }
is() { local got; got=$(shown "$1"); [[ $got == "$2" ]] || fail "$1 is \"$got\", not \"$2\""; }
ask() { net curl -s -m 20 "http://127.0.0.1:8080$1"; }
code() { net curl -s -m 20 -o /dev/null -w '%{http_code}' "http://127.0.0.1:8080$1"; }
until_() {
    local what=$1 end=$((SECONDS + 30))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "$what: not within 30 s"
        sleep 0.1
    done
}

for pair in debootstrap:debootstrap systemd-nspawn:systemd-container python3:python3 curl:curl pgrep:procps; do
    command -v "${pair%%:*}" > /dev/null || apt-get install --yes --no-install-recommends "${pair##*:}"
done
if [[ ! -d $tree ]]; then
    say "debootstrap"
    mkdir -p "$cache"
    rm -rf "$tree.new"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,logrotate bookworm "$tree.new" > "$cache/debootstrap.log"
    : > "$tree.new/etc/machine-id"
    mv "$tree.new" "$tree"
fi
if [[ -z ${DEBS:-} ]]; then
    DEBS=$scratch/debs
    mkdir "$DEBS"
    for revision in 1 2; do
        PROFILE=dev FAST=1 REVISION=$revision scripts/deb.sh > "$scratch/deb.log" 2>&1 || { cat "$scratch/deb.log"; exit 1; }
        cp target/debian/tollgate_*-"$revision"_*.deb "$DEBS"
    done
fi

# ---------------------------------------------------------------------------------------------------------------- boot
say "boot"
systemd-nspawn --quiet --register=no --keep-unit --ephemeral --private-network --directory="$tree" --machine="tollgate-$$" \
    --bind-ro="$(realpath "$DEBS")":/debs --boot --console=read-only < /dev/null > "$scratch/console" 2>&1 &
machine=$!
booted() {
    leader=$(pgrep -P "$machine" | head -n 1) && [[ $(cat "/proc/$leader/comm" 2> /dev/null) == systemd ]] &&
        [[ $(in_ systemctl is-system-running 2> /dev/null) =~ ^(running|degraded)$ ]]
}
# Nothing of Tollgate has run yet.
for _ in $(seq 300); do booted && break || sleep 0.1; done
booted || cannot "not booted within 30 s: $(tail -n 3 "$scratch/console")"
say "$(in_ systemctl --version | head -n 1)"

cat > "$scratch/origin.py" << 'PY'
# Answers at once, or below /slow/N after N seconds.
import http.server, time
class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/slow/"):
            time.sleep(float(self.path.split("/")[2]))
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
Server(("127.0.0.1", 3000), Origin).serve_forever()
PY
cat > "$scratch/load.py" << 'PY'
# Half of the clients keep their connection, half do not. Says at TERM how many answers were right, and what was not.
import http.client, signal, sys, threading
right, wrong, over = [0], [], threading.Event()
def client(keeps):
    connection = None
    while not over.is_set():
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", 8080, timeout=20)
            connection.request("GET", "/app")
            answer = connection.getresponse()
            if answer.read() != b"hello": raise ValueError(f"status {answer.status}")
            right[0] += 1
            if not keeps: connection.close(); connection = None
        except Exception as error:
            wrong.append(repr(error)); connection = None
        over.wait(0.002)
signal.signal(signal.SIGTERM, lambda *_: over.set())
threads = [threading.Thread(target=client, args=(index % 2 == 0,)) for index in range(8)]
for thread in threads: thread.start()
print("loading", flush=True)
over.wait()
for thread in threads: thread.join()
print(right[0], len(wrong), wrong[:3], flush=True)
PY
nsenter -t "$leader" -n python3 "$scratch/origin.py" 2> /dev/null &
children+=($!)
load_begins() {
    : > "$scratch/load.out"
    nsenter -t "$leader" -n python3 "$scratch/load.py" > "$scratch/load.out" 2>&1 &
    loading=$!
    children+=("$loading")
    until_ "load" grep -q loading "$scratch/load.out"
}
load_ends() {
    kill "$loading"
    wait "$loading" || true
    local right wrong what
    read -r right wrong what < <(tail -n 1 "$scratch/load.out")
    [[ $wrong == 0 && $right -gt 20 ]] || fail "$1: $right answers, $wrong lost: $what"
    say "$1: $right answers, none lost"
}

# ------------------------------------------------------------------------------------------------------------- install
in_ sh -c 'dpkg -i /debs/tollgate_*-1_*.deb' > "$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg"; fail "installing"; }
is ActiveState active
is UnitFileState enabled
[[ $(ask /) == *"Tollgate serves"* ]] || fail "the package's own configuration does not answer"
main=$(shown MainPID)
[[ $(in_ stat -c %U "/proc/$main") == tollgate ]] || fail "it runs as somebody else"
# A sandbox that may not lift limits (no CAP_SYS_RESOURCE) gives less than the unit asks for.
wanted=524288
(($(ulimit -Hn) >= wanted)) || prlimit --nofile=$wanted:$wanted true 2> /dev/null || wanted=$(ulimit -Hn)
in_ grep -Eq "^Max open files +$wanted +$wanted" "/proc/$main/limits" || fail "LimitNOFILE: $(in_ grep open "/proc/$main/limits")"
is LimitNOFILE 524288
in_ systemd-analyze security --no-pager --threshold=25 tollgate.service > "$scratch/security" || fail "$(tail -n 1 "$scratch/security")"
say "installed and serving; $(tail -n 1 "$scratch/security" | sed 's/^[^ ]* //')"
in_ sh -c 'test -s /usr/share/man/man1/tollgate-run.1.gz && test -s /usr/share/bash-completion/completions/tollgate' ||
    fail "no man pages or completions"

# ------------------------------------------------------------------------------------------------- credentials, reload
in_ sh -c 'umask 077; head -c 48 /dev/urandom | od -An -tx1 | tr -d " \n" > /etc/tollgate/jwt.secret; mkdir -p /etc/systemd/system/tollgate.service.d'
put /etc/systemd/system/tollgate.service.d/local.conf << 'UNIT'
[Service]
LoadCredential=jwt.secret:/etc/tollgate/jwt.secret
WatchdogSec=3s
UNIT
configure() {
    put /etc/tollgate/tollgate.toml << TOML
version = 1
[server]
runtime_dir = "/run/tollgate"
drain_timeout = "20s"
[log.access]
output = "file:/var/log/tollgate/access.log"
[listeners.http]
address = "127.0.0.1:8080"
[auth.inside]
type = "jwt"
issuer = "https://id.example.com"
audience = ["tollgate"]
algorithms = ["HS256"]
secret_file = "\${CREDENTIALS_DIRECTORY}/jwt.secret"
[upstreams.origin]
endpoints = ["127.0.0.1:3000"]
[routes.app]
auth = "none"
upstream = "origin"
[routes.private]
path = "/private"
auth = "inside"
upstream = "origin"
[routes.which]
path = "/which"
auth = "none"
respond = { body = "$1" }
$2
TOML
}
configure first ''
in_ systemctl daemon-reload
in_ systemctl restart tollgate || fail "restart with a credential"
[[ $(code /private) == 401 && $(code /app) == 200 ]] || fail "the credential: $(code /private) $(code /app)"
say "LoadCredential: a secret that the user cannot read in /etc"

configure second ''
in_ systemctl reload tollgate || fail "a good reload"
[[ $(ask /which) == second ]] || fail "a good reload changes nothing"
configure third 'nonsense = 1'
! in_ systemctl reload tollgate 2> /dev/null || fail "a bad reload succeeds"
[[ $(ask /which) == second ]] || fail "a bad reload changes something"
is ActiveState active
journal 'nonsense' || fail "the reason of a bad reload is not in the journal"
configure third ''
say "reload: good and bad"

in_ logrotate --force /etc/logrotate.d/tollgate || fail "logrotate"
ask /app > /dev/null
until_ "a new log after rotation" in_ test -s /var/log/tollgate/access.log
in_ test -s /var/log/tollgate/access.log.1 || fail "no rotated log"
say "logrotate: USR1 opens a new file"

# ------------------------------------------------------------------------------------------------------------- upgrade
load_begins
net curl -s -m 30 http://127.0.0.1:8080/slow/4 > "$scratch/slow" &
slow=$!
until_ "a request in flight" sh -c "nsenter -t $leader -n curl -s 127.0.0.1:9900/metrics | grep -q '^tollgate_http_requests_in_flight.* [1-9]'"
old=$(shown MainPID)
in_ sh -c 'dpkg -i /debs/tollgate_*-2_*.deb' > "$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg"; fail "upgrading"; }
new=$(shown MainPID)
[[ $new != "$old" ]] || { cat "$scratch/dpkg"; fail "the package's upgrade does not hand over"; }
[[ $(in_ readlink "/proc/$new/exe") == /usr/bin/tollgate ]] || fail "the successor runs another binary"
in_ test -d "/proc/$old" || fail "the predecessor did not wait for its request"
wait "$slow"
[[ $(cat "$scratch/slow") == hello ]] || fail "the draining process was cut off"
until_ "the predecessor leaves" in_ test ! -d "/proc/$old"
is ActiveState active
is MainPID "$new"
is NRestarts 0
load_ends "the package's upgrade under load"

load_begins
for _ in 1 2 3; do in_ tollgate upgrade > /dev/null || fail "tollgate upgrade"; done
until_ "systemd follows" in_ sh -c "[ \$(systemctl show tollgate --value -p MainPID) != $new ]"
load_ends "three upgrades in a row under load"

load_begins
old=$(shown MainPID)
in_ sh -c 'dpkg -i /debs/tollgate_*-1_*.deb' > "$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg"; fail "going back"; }
[[ $(shown MainPID) != "$old" ]] || { cat "$scratch/dpkg"; fail "going back to the package before does not hand over"; }
load_ends "back to the package before, under load"

# systemd sees that the new main process is gone, and has it replaced when the predecessor has left: what that can finish
# within five seconds is finished.
in_ sed -i '/WatchdogSec/d' /etc/systemd/system/tollgate.service.d/local.conf
in_ systemctl daemon-reload
net curl -s -m 30 http://127.0.0.1:8080/slow/3 > "$scratch/slow" &
slow=$!
net curl -s -m 60 http://127.0.0.1:8080/slow/40 > "$scratch/slower" &
slower=$!
until_ "two requests in flight" sh -c "nsenter -t $leader -n curl -s 127.0.0.1:9900/metrics | grep -q '^tollgate_http_requests_in_flight.* 2'"
old=$(shown MainPID)
in_ tollgate upgrade > /dev/null
new=$(shown MainPID)
[[ $(in_ ps -o ppid= -p "$new") -eq 1 ]] || fail "the successor is no child of systemd's"
! journal 'not our child' || fail "systemd says that it may not notice the successor's end"
begin=$SECONDS
in_ kill -KILL "$new"
until_ "a main process that is killed while another drains is replaced" sh -c "[ \$(nsenter -t $leader -a systemctl show tollgate --value -p NRestarts) = 1 ]"
until_ "serving again" sh -c "[ \$(nsenter -t $leader -a systemctl is-active tollgate) = active ]"
((SECONDS - begin < 12)) || fail "serving again took $((SECONDS - begin)) s"
wait "$slow"
[[ $(cat "$scratch/slow") == hello ]] || fail "the predecessor's short request was cut off"
wait "$slower" || true
[[ ! -s $scratch/slower ]] || fail "a request of 40 s was finished"
[[ $(code /app) == 200 ]] || fail "not serving after the kill"
say "kill -9 of the successor during the drain: seen at once, serving again after $((SECONDS - begin)) s"
printf 'WatchdogSec=3s\n' | in_ tee -a /etc/systemd/system/tollgate.service.d/local.conf > /dev/null
in_ systemctl daemon-reload
in_ systemctl restart tollgate || fail "restart with the watchdog"

# ----------------------------------------------------------------------------------------------- watchdog, crash, stop
old=$(shown MainPID)
in_ kill -STOP "$old"
until_ "the watchdog" sh -c "p=\$(nsenter -t $leader -a systemctl show tollgate --value -p MainPID); [ \$p != $old ] && [ \$p != 0 ]"
until_ "serving again" sh -c "[ \$(nsenter -t $leader -a systemctl is-active tollgate) = active ]"
journal 'watchdog' || fail "it was not the watchdog"
say "watchdog: a stopped process is replaced"

configure broken 'absurd = 1'
! in_ systemctl restart tollgate 2> /dev/null || fail "a configuration that cannot be served starts"
is ActiveState failed
is ExecMainStatus 78
is NRestarts 0
journal absurd || fail "the journal does not say what is wrong"
configure mended ''
in_ systemctl reset-failed tollgate
in_ systemctl start tollgate || fail "starting when it is mended"
say "a mistake in the configuration: one start, exit code 78, no loop"

net curl -s -m 30 http://127.0.0.1:8080/slow/3 > "$scratch/slow" &
slow=$!
until_ "a request in flight" sh -c "nsenter -t $leader -n curl -s 127.0.0.1:9900/metrics | grep -q '^tollgate_http_requests_in_flight.* [1-9]'"
begin=$SECONDS
in_ systemctl stop tollgate
wait "$slow"
[[ $(cat "$scratch/slow") == hello ]] || fail "stop cuts off a request"
is Result success
((SECONDS - begin < 15)) || fail "stop took $((SECONDS - begin)) s"
say "stop: the request in flight is finished, after $((SECONDS - begin)) s"

# --------------------------------------------------------------------------------------------------- socket activation
in_ mkdir -p /etc/systemd/system/tollgate.socket.d
put /etc/systemd/system/tollgate.socket.d/local.conf << 'UNIT'
[Socket]
ListenStream=
ListenStream=127.0.0.1:8080
UNIT
in_ systemctl daemon-reload
in_ systemctl start tollgate.socket || fail "the socket unit"
is ActiveState inactive
[[ $(code /app) == 200 ]] || fail "the first connection does not start the service"
active() { [[ $(shown ActiveState) == active ]]; }
until_ "started by a connection" active
load_begins
in_ systemctl restart tollgate || fail "restart behind a socket"
in_ tollgate upgrade > /dev/null || fail "upgrade behind a socket"
in_ systemctl restart tollgate || fail "restart behind a socket after an upgrade"
load_ends "socket activation: restarts and an upgrade under load"
in_ systemctl stop tollgate.socket tollgate.service
printf '[Socket]\nFileDescriptorName=other\n' | put /etc/systemd/system/tollgate.socket.d/name.conf
in_ systemctl daemon-reload
in_ systemctl start tollgate.socket
! in_ systemctl start tollgate.service 2> /dev/null || fail "a socket that no listener is called like is taken"
journal 'there is no \[listeners.other\]' || fail "the reason is not told"
in_ systemctl stop tollgate.socket
in_ rm -r /etc/systemd/system/tollgate.socket.d
in_ systemctl daemon-reload
in_ systemctl reset-failed
in_ systemctl start tollgate || fail "without a socket again"
say "socket activation: a wrong name is refused"

# -------------------------------------------------------------------------------------------------------------- remove
in_ dpkg --remove tollgate > "$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg"; fail "removing"; }
is ActiveState inactive
in_ test ! -e /usr/bin/tollgate || fail "the binary stays"
in_ test -s /etc/tollgate/tollgate.toml || fail "removing takes the configuration away"
in_ dpkg --purge tollgate > "$scratch/dpkg" 2>&1 || { cat "$scratch/dpkg"; fail "purging"; }
in_ sh -c 'test ! -e /etc/tollgate/tollgate.toml && test ! -e /etc/logrotate.d/tollgate && test ! -e /var/log/tollgate' ||
    fail "purging leaves something behind"
in_ getent passwd tollgate > /dev/null || fail "the user is gone"
say "removed, purged"
echo "everything holds after $SECONDS s"
