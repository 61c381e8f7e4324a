#!/usr/bin/env bash
# Runs bindscope with the arguments in BINDSCOPE_ARGS, one on each line, and passes its exit code on.
set -uo pipefail

mapfile -t arguments < <(printf '%s\n' "${BINDSCOPE_ARGS:-check}" | sed '/^[[:space:]]*$/d')
code=0
"${BINDSCOPE_HOME:?a directory}/bindscope" "${arguments[@]}" || code=$?
if [ -n "${GITHUB_OUTPUT:-}" ]; then
    echo "exit-code=$code" >>"$GITHUB_OUTPUT"
fi
if [ "$code" = 4 ] && [ "$(cat /proc/sys/kernel/apparmor_restrict_unprivileged_userns 2>/dev/null)" = 1 ]; then
    echo "::notice::AppArmor restricts user namespaces on this runner: run sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 before this step"
fi
exit "$code"
