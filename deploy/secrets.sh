#!/usr/bin/env bash
# Makes the secrets of the compose cluster, once: what is there already is kept, what is near its end is made anew.
#
#   deploy/secrets.sh [DIRECTORY]      default: deploy/secrets beside this file
#
# CULVERT_BASE_DOMAIN (default: localhost) is the domain that tunnels are served under.
#
# The directory is for its owner alone (0700), and that guards the files in it. They themselves may be read by everybody,
# because Docker shows a file to a container with the owner that it has on the host, and each container runs as another user.
#
# Needs bash and openssl. Nothing secret is given to a program as an argument, where other users could see it.
set -euo pipefail
# The last part of a pipe is this shell, so that `store` can note what it made.
shopt -s lastpipe
umask 077

directory=${1:-$(cd "$(dirname "$0")" && pwd)/secrets}
domain=${CULVERT_BASE_DOMAIN:-localhost}
# What ends sooner is made anew, in seconds. Certificates and tokens live for 397 days, the authority for ten years.
renew_before=$((30 * 86400))
token_life=$((397 * 86400))

mkdir -p "$directory/certificates"
chmod 0700 "$directory"
# HAProxy reads this directory as a whole, as its own user.
chmod 0755 "$directory/certificates"
cd "$directory"
[[ $domain =~ ^[A-Za-z0-9.-]+$ ]] || { echo "secrets: CULVERT_BASE_DOMAIN is no domain name: $domain" >&2; exit 1; }

made=()
# Reads the content of a file from standard input. An interrupted run leaves no half a file.
store() {
  cat > "$1.new"
  chmod 0444 "$1.new"
  mv -f "$1.new" "$1"
  made+=("$1")
}

random() { openssl rand -base64 48 | tr -d '\n'; }
# Without the characters that a configuration file or a URL gives a meaning to.
password() { openssl rand -hex 32 | tr -d '\n'; }

[ -s jwt-secret ] || random | store jwt-secret
[ -s cluster-secret ] || random | store cluster-secret
[ -s redis-password ] || password | store redis-password
# What Redis itself reads: whoever connects needs the password, its replicas and sentinels too.
if [ redis-password -nt redis-auth.conf ]; then
  printf 'requirepass %s\nmasterauth %s\n' "$(< redis-password)" "$(< redis-password)" | store redis-auth.conf
fi
if [ redis-password -nt sentinel-auth.conf ]; then
  printf 'requirepass %s\nsentinel sentinel-pass %s\nsentinel auth-pass culvert %s\n' \
    "$(< redis-password)" "$(< redis-password)" "$(< redis-password)" | store sentinel-auth.conf
fi

# ----- certificates: one authority, which agents trust, for the agents' port and, until a real one is there, for visitors

lives() { [ -s "$1" ] && openssl x509 -in "$1" -noout -checkend "$renew_before" > /dev/null; }
names() { openssl x509 -in "$1" -noout -ext subjectAltName 2> /dev/null; }

if ! lives ca.crt || [ ! -s ca.key ]; then
  openssl ecparam -name prime256v1 -genkey -noout | store ca.key
  # No container needs it.
  chmod 0400 ca.key
  openssl req -x509 -new -key ca.key -sha256 -days 3650 -subj '/CN=Culvert authority of this cluster' \
    -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' | store ca.crt
fi
if ! lives agents.crt || [ ! -s agents.key ] || [ ca.crt -nt agents.crt ] || [[ $(names agents.crt) != *"DNS:$domain,"* ]]; then
  openssl ecparam -name prime256v1 -genkey -noout | store agents.key
  openssl req -new -key agents.key -subj "/CN=$domain" -out request.new
  printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' 'extendedKeyUsage=serverAuth' \
    "subjectAltName=DNS:$domain,DNS:*.$domain,DNS:haproxy,DNS:localhost,IP:127.0.0.1" > extensions.new
  openssl x509 -req -in request.new -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -sha256 -days 397 \
    -extfile extensions.new 2> /dev/null | store agents.crt
  rm request.new extensions.new
fi
# A certificate of your own in that directory stays alone.
others=$(find certificates -name '*.pem' ! -name made-by-secrets.pem | head -1)
if [ -n "$others" ]; then
  rm -f certificates/made-by-secrets.pem
elif [ agents.crt -nt certificates/made-by-secrets.pem ]; then
  cat agents.crt ca.crt agents.key | store certificates/made-by-secrets.pem
fi

# ----- tokens of the demonstration's agents: JWTs, HMAC-SHA256 (RFC 7515, RFC 2104)

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
# The bytes that are given in hexadecimal. `printf` belongs to the shell, so that no process has them as an argument.
bytes() { printf '%b' "$(sed 's/../\\x&/g' <<< "$1")"; }
# `padded KEY PAD`: the key in hexadecimal, each byte of its 64 with PAD.
padded() {
  local out='' at
  for ((at = 0; at < 128; at += 2)); do out+=$(printf '%02x' $((16#${1:at:2} ^ $2))); done
  bytes "$out"
}
# The signature of standard input with jwt-secret.
sign() {
  local key inner
  # Without white space around it, as the cores read it.
  key=$(sed 's/^[[:space:]]*//; s/[[:space:]]*$//' jwt-secret | tr -d '\n' | hex)
  [ ${#key} -le 128 ] || key=$(bytes "$key" | openssl dgst -sha256 -binary | hex)
  while [ ${#key} -lt 128 ]; do key+=0; done
  inner=$({ padded "$key" 0x36; cat; } | openssl dgst -sha256 -binary | hex)
  { padded "$key" 0x5c; bytes "$inner"; } | openssl dgst -sha256 -binary | base64url
}
# `token AGENT ACCOUNT`: for any subdomain, as the account's limits allow.
token() {
  local now body
  now=$(date +%s)
  body=$(printf '{"alg":"HS256","typ":"JWT"}' | base64url).$(printf '{"agent_id":"%s","account_id":"%s","iat":%d,"exp":%d}' \
    "$1" "$2" "$now" $((now + token_life)) | base64url)
  printf '%s.%s' "$body" "$(printf '%s' "$body" | sign)"
}
# A file's age tells how long its token has.
young() { [ -s "$1" ] && [ ! jwt-secret -nt "$1" ] && [ $(($(date +%s) - $(stat -c %Y "$1"))) -lt $((token_life - renew_before)) ]; }
for agent in agent-1 agent-2; do
  young "$agent.token" || token "$agent" demo | store "$agent.token"
done

if [ ${#made[@]} -eq 0 ]; then echo "secrets: all there in $directory"; else echo "secrets: made ${made[*]} in $directory"; fi
