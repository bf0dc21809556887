#!/bin/sh
# Makes an authority and the certificates of examples 3 and 4: certificates.sh FOLDER PROXY [NAME...]
# PROXY is the proxy's host name or address; each NAME is one who shows a certificate.
# An authority that is there already is used again. Keep ca.key off the machines that use the rest.
set -eu
folder=$1 proxy=$2
shift 2
umask 077
mkdir -p "$folder"
cd "$folder"

if [ ! -e ca.crt ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj '/CN=PushProx authority' -keyout ca.key -out ca.crt 2>/dev/null
fi

# issue FILE NAME
issue() {
  case $2 in
  *[!0-9.]*) san=DNS:$2 ;;
  *) san=IP:$2 ;;
  esac
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" \
    -addext "subjectAltName=$san" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 \
    -copy_extensions copy -out "$1.crt" 2>/dev/null
  rm "$1.csr"
}

issue proxy "$proxy"
for name; do issue "$name" "$name"; done
