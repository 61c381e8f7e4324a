#!/usr/bin/env bash
# Unpacks an archive of bindscope whose checksum is the one that was given. Inputs come from the environment.
set -euo pipefail

: "${BINDSCOPE_PROGRAM:?the archive}" "${BINDSCOPE_SHA256:?its checksum}" "${BINDSCOPE_HOME:?a directory}"
if ! [[ $BINDSCOPE_SHA256 =~ ^[0-9a-f]{64}$ ]]; then
    echo "sha256 is not a SHA-256 in hexadecimal: copy it from SHA256SUMS of the release" >&2
    exit 2
fi
mkdir -p "$BINDSCOPE_HOME"
archive=$BINDSCOPE_HOME/archive.tar.gz
if [ -f "$BINDSCOPE_PROGRAM" ]; then
    cp -- "$BINDSCOPE_PROGRAM" "$archive"
else
    curl --fail --silent --show-error --location --proto '=https' --output "$archive" -- "$BINDSCOPE_PROGRAM"
fi
if ! sha256sum --quiet --check <<<"$BINDSCOPE_SHA256  $archive"; then
    rm -f "$archive"
    echo "the archive has another checksum than sha256: it was not unpacked" >&2
    exit 1
fi
tar --extract --gzip --file "$archive" --directory "$BINDSCOPE_HOME" --strip-components 1
"$BINDSCOPE_HOME/bindscope" --version
if [ -n "${GITHUB_PATH:-}" ]; then
    echo "$BINDSCOPE_HOME" >>"$GITHUB_PATH"
fi
