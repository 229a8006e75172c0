#!/usr/bin/env bash
# Installs the real programs that the tests use (Debian packages), when they are missing and this user may install them.
# Otherwise names them in one line. Part names are "command:package".
set -euo pipefail

parts=(nginx:nginx-light curl:curl openssl:openssl redis-server:redis-server haproxy:haproxy)
missing=()
for part in "${parts[@]}"; do
  PATH="$PATH:/usr/sbin" command -v "${part%%:*}" >/dev/null || missing+=("${part##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null
else
  echo "test: install these Debian packages first: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
