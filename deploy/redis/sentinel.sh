#!/bin/sh
# A sentinel writes what it learns into its configuration: each has a copy of its own, made at its first start.
set -eu
if [ ! -s sentinel.conf ]; then
  {
    sed "s/FIRST_MASTER/$FIRST_MASTER/" /usr/local/etc/redis/sentinel.conf
    cat /run/secrets/sentinel-auth
  } > sentinel.conf.new
  mv sentinel.conf.new sentinel.conf
fi
exec redis-server sentinel.conf --sentinel
