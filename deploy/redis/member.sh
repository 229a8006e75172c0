#!/bin/sh
# One of several Redis servers that sentinels watch. Sentinels write who is the master of whom into its configuration: each has a
# copy of its own, made at its first start, so that a master that comes back knows that it is none any more.
set -eu
if [ ! -s member.conf ]; then
  {
    echo 'include /usr/local/etc/redis/redis.conf'
    case " $(hostname -I) " in
      *" $FIRST_MASTER "*) ;;
      *) echo "replicaof $FIRST_MASTER 6379" ;;
    esac
  } > member.conf.new
  mv member.conf.new member.conf
fi
exec redis-server member.conf
