#!/usr/bin/env bash
# The root file system of the image: BINARY, BILL OF MATERIALS and where to put it. Of the machine that it runs on it takes
# the libraries that the binary is linked to, and the certificates.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 bill=$2 root=$3

mkdir -p "$root"/{etc/tollgate/conf.d,etc/ssl/certs,usr/bin,usr/share/doc/tollgate,tmp}
strip -o "$root/usr/bin/tollgate" "$binary"
# Whoever resolves names by the C library finds what it needs in the library itself.
{ ldd "$binary" | awk '$2 == "=>" { print $3 } $1 ~ "^/" { print $1 }'; } | while read -r library; do
    install -D -m 755 "$(realpath "$library")" "$root$library"
done
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp conf/container.toml "$root/etc/tollgate/tollgate.toml"
cp "$bill" LICENSE "$root/usr/share/doc/tollgate/"
echo 'tollgate:x:10001:10001::/:/sbin/nologin' > "$root/etc/passwd"
echo 'tollgate:x:10001:' > "$root/etc/group"
install -d -m 700 -o 10001 -g 10001 "$root/run/tollgate"
chmod 1777 "$root/tmp"
