#!/usr/bin/env bash
# `tollgate demo`, driven from outside: with a token, without, past the limit; and nothing stays behind.
set -euo pipefail
cd "$(dirname "$0")/.."

tollgate=${1:-target/debug/tollgate}
lines=$(mktemp)
"$tollgate" demo --quiet --port 0 --for 120 > "$lines" < /dev/null &
demo=$!
trap 'kill "$demo" 2> /dev/null || true; rm -f "$lines"' EXIT

for _ in $(seq 600); do
    grep -q '^NO_SCOPE=' "$lines" && break
    kill -0 "$demo" || { echo "the demo has ended" >&2; exit 1; }
    sleep 0.1
done
# Four assignments: GATEWAY, ADMIN, TOKEN, NO_SCOPE.
# shellcheck disable=SC1090
source "$lines"

status() { curl -s -o /dev/null -m 20 -w '%{http_code}' "$@"; }
expect() {
    local wanted=$1 what=$2 got
    shift 2
    got=$(status "$@") || true
    printf '%-32s %s\n' "$what" "$got"
    [[ $got == "$wanted" ]] || { echo "expected $wanted" >&2; exit 1; }
}

expect 200 "ready" "$ADMIN/readyz"
expect 401 "without a token" "$GATEWAY/orders/42"
expect 403 "without the scope" -H "Authorization: Bearer $NO_SCOPE" "$GATEWAY/orders/42"
expect 200 "with a token" -H "Authorization: Bearer $TOKEN" "$GATEWAY/orders/42"
expect 401 "with a forged token" -H "Authorization: Bearer ${TOKEN}x" "$GATEWAY/orders/42"

limited=no
for _ in $(seq 100); do
    if [[ $(status -H "Authorization: Bearer $TOKEN" "$GATEWAY/orders/42") == 429 ]]; then
        limited=yes
        break
    fi
done
printf '%-32s %s\n' "past the limit" "$limited"
[[ $limited == yes ]] || { echo "no 429 after a hundred requests" >&2; exit 1; }
metrics=$(curl -s -m 20 "$ADMIN/metrics")
grep -q '^tollgate_limit_decisions_total{limit="per_user",result="refused"} [1-9]' <<< "$metrics" ||
    { echo "the refusal is not counted" >&2; exit 1; }

kill -INT "$demo"
wait "$demo" || { echo "the demo has failed" >&2; exit 1; }
if curl -s -m 5 -o /dev/null "$GATEWAY/hello"; then
    echo "something of the demo stayed behind" >&2
    exit 1
fi
echo "the demo works, and nothing stays behind"
