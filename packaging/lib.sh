# shellcheck shell=bash
# Shared by the scripts of this directory, which source it.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# Time of the latest commit: the one time in everything that is made, so that two builds are equal.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export LC_ALL=C.UTF-8 TZ=UTC CARGO_TERM_COLOR=never
umask 022

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

need() {
    local name
    for name in "$@"; do
        command -v "$name" >/dev/null || fail "there is no $name (the Debian packages are listed in docs/release.md)"
    done
}

version() {
    sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1
}

# Installs the programs of a list into a virtual environment, unless the same list was installed before, and prints its bin.
tools() {
    local list=$1 directory
    directory=$target/packaging/$(basename "$list" .txt)
    if ! cmp -s "$list" "$directory/list"; then
        rm -rf "$directory"
        # Not a python3 that stands earlier in PATH: Debian's has venv (python3-venv).
        /usr/bin/python3 -m venv "$directory" >&2
        "$directory/bin/pip" --quiet --disable-pip-version-check install --only-binary :all: -r "$list" >&2
        cp "$list" "$directory/list"
    fi
    echo "$directory/bin"
}
