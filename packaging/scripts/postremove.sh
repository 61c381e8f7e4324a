#!/bin/sh
# After a removal; an upgrade changes nothing.
set -e

case ${1:-remove} in
upgrade | failed-upgrade | abort-install | abort-upgrade | disappear | 1) exit 0 ;;
esac
if [ -e /etc/apparmor.d/bindscope ]; then
    if [ -d /sys/kernel/security/apparmor ] && command -v apparmor_parser >/dev/null 2>&1; then
        apparmor_parser --remove /etc/apparmor.d/bindscope >/dev/null 2>&1 || true
    fi
    rm -f /etc/apparmor.d/bindscope
fi
if [ "${1:-}" = purge ]; then
    rm -rf /var/lib/bindscope
fi
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || true
fi
exit 0
