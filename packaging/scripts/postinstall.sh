#!/bin/sh
# After an installation or an upgrade. Nothing here may make it fail.
set -e

profile=/usr/share/bindscope/apparmor/bindscope
# AppArmor 3 cannot parse the profile, and a file that it cannot parse would break its start. So the parser is asked first.
if [ -d /etc/apparmor.d ] && command -v apparmor_parser >/dev/null 2>&1 &&
    apparmor_parser --skip-kernel-load --skip-cache "$profile" >/dev/null 2>&1; then
    cp "$profile" /etc/apparmor.d/bindscope && chmod 644 /etc/apparmor.d/bindscope || true
    if [ -d /sys/kernel/security/apparmor ]; then
        apparmor_parser --replace --write-cache /etc/apparmor.d/bindscope >/dev/null 2>&1 || true
    fi
fi
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || true
fi
exit 0
