#!/bin/sh
# All conformance cases beside Debian's buildah, and beside the BuildKit in Debian's docker. `npm run test:peers`: four minutes.
#
# Where there is no dockerd, Debian's packages of it are unpacked, not installed; all that they write is in one directory and goes with it.
set -eu
cd "$(dirname "$0")/../.."
export PATH="$PWD/node_modules/.bin:$PATH"

[ "$(id -u)" = 0 ] || { echo 'Only root can run dockerd.' >&2; exit 1; }
work=$(mktemp -d /tmp/tbuild-peers-XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM

if ! command -v dockerd >/dev/null; then
  (cd "$work" && apt-get download -q -o APT::Sandbox::User=root docker.io containerd)
  for package in "$work"/*.deb; do dpkg -x "$package" "$work/root"; done
  PATH="$work/root/usr/sbin:$work/root/usr/bin:$PATH"
fi

TBUILD_PEERS=all node --experimental-vm-modules --disable-warning=ExperimentalWarning node_modules/jest/bin/jest.js \
  --testMatch '**/test/conformance-buildah.test.ts' '**/test/peers/docker.ts' "$@"
