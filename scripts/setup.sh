#!/usr/bin/env bash
# Installs what a recipe of the Makefile needs and the machine lacks. Says plainly what it cannot do.
#   scripts/setup.sh build     cmake and a C compiler, for the cryptography, the allocator and zlib
#   scripts/setup.sh check     the same, rustfmt and clippy
#   scripts/setup.sh ci        the same, curl, HAProxy, which the tests put in front, Redis and dnsmasq, which they ask,
#                              and node with npm, by which they run an OpenID provider
#                              and gRPC peers; systemd-analyze, what `deploy` needs, and what packages and images are
#                              built and tried with
#   scripts/setup.sh deploy    what `build` needs, Prometheus with promtool, Redis, Python, and node with npm
#   scripts/setup.sh bench     what `build` needs, nginx, HAProxy, wrk, h2load and valgrind
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }

# The program that shows whether a package is there, and the package.
build="cmake:cmake cc:gcc c++:g++ make:make"
deploy="promtool:prometheus prometheus:prometheus redis-server:redis-server python3:python3 node:nodejs npm:npm"
case "${1:-build}" in
    build | check) wanted=$build ;;
    deploy) wanted="$build $deploy" ;;
    ci)
        wanted="$build $deploy curl:curl haproxy:haproxy dnsmasq:dnsmasq-base systemd-analyze:systemd strip:binutils"
        wanted+=" buildah:buildah debootstrap:debootstrap systemd-nspawn:systemd-container ip:iproute2 pgrep:procps"
        wanted+=" dpkg-shlibdeps:dpkg-dev"
        ;;
    bench)
        wanted="$build wrk:wrk nginx:nginx-light haproxy:haproxy taskset:util-linux"
        wanted+=" h2load:nghttp2-client callgrind_control:valgrind"
        ;;
    *) say "usage: $0 build|check|ci|deploy|bench"; exit 2 ;;
esac

missing=()
for pair in $wanted; do
    # nginx and HAProxy stand where only root's PATH looks.
    PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" > /dev/null || missing+=("${pair##*:}")
done
# A Python of Debian's has the module, and needs a package to use it.
case "${1:-build}" in
    ci | deploy) python3 -c 'import ensurepip' 2> /dev/null || missing+=(python3-venv) ;;
esac

if ((${#missing[@]})); then
    say "missing: ${missing[*]}"
    if ! command -v apt-get > /dev/null; then
        say "This script knows apt-get alone, and there is none here: install them with your package manager."
        exit 1
    fi
    root=()
    if (($(id -u) != 0)); then
        if ! command -v sudo > /dev/null; then
            say "Installing needs root, and there is no sudo: run as root: apt-get install ${missing[*]}"
            exit 1
        fi
        root=(sudo)
    fi
    # Services that a package starts by itself would take ports of ours.
    install() {
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
    }
    install "${missing[@]}" || { "${root[@]}" apt-get update; install "${missing[@]}"; }
fi

if ! command -v cargo > /dev/null; then
    say "There is no cargo: install Rust first (https://rustup.rs, or your package manager; the version stands in Cargo.toml)."
    exit 1
fi

case "${1:-build}" in
    check | ci)
        for component in fmt:rustfmt clippy:clippy; do
            cargo "${component%%:*}" --version > /dev/null 2>&1 && continue
            if ! rustup component add "${component##*:}"; then
                say "############################################################"
                say "# ${component##*:} is missing and cannot be installed: this part of the check is SKIPPED"
                say "############################################################"
                [[ -z ${CI:-} ]] || exit 1
            fi
        done
        ;;
esac

# The schemas of the Prometheus operator.
case "${1:-build}" in
    ci | deploy) (cd "$(dirname "$0")/deploy" && npm ci --ignore-scripts --no-audit --no-fund) ;;
esac

# The OpenID provider and the gRPC peers of the tests, in the versions of their lock files.
if [[ ${1:-build} == ci ]]; then
    for peer in oidc grpc; do
        (cd "$(dirname "$0")/../tests/$peer" && npm ci --ignore-scripts --no-audit --no-fund)
    done
fi
