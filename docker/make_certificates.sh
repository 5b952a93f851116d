#!/bin/sh
# Makes certificates for a testbed: one authority, and a key and a certificate for every NAME.
#
#   docker/make_certificates.sh AUTHORITY CERTIFICATES FEDERATION NAME...
#
# AUTHORITY is the authority's folder. The files of node NAME are in CERTIFICATES/NAME. Valid certificates are kept.
# Real parties take each step on the machine where the key belongs, and no machine sees the keys of two parties:
# docs/TWO_PARTIES.md.
set -eu

authority=$1
certificates=$2
federation=$3
shift 3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -e "$authority/ca.key" ] || deca-node cert init --federation "$federation" --authority "$authority"

for name in "$@"; do
    folder=$certificates/$name
    if deca-node cert check "$name" --dir "$folder" 2>/dev/null; then
        continue
    fi
    deca-node cert request "$name" --federation "$federation" --dir "$folder"
    # `approve` leaves the certificate in the working directory, and prints the authority's fingerprint last.
    (cd "$work" && deca-node cert approve "$folder/$name.csr" --authority "$authority" --replace) > "$work/said"
    fingerprint=$(tail -n 1 "$work/said")
    deca-node cert install "$work/$name.crt" --fingerprint "$fingerprint" --dir "$folder"
done
