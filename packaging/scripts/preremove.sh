#!/bin/sh
# Before a removal; an upgrade changes nothing.
set -e

case ${1:-remove} in
upgrade | failed-upgrade | deconfigure | 1) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
    systemctl --quiet disable --now bindscope-audit.timer >/dev/null 2>&1 || true
fi
exit 0
