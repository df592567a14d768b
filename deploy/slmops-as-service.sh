#!/bin/sh
# slmops for an operator, installed as /usr/local/bin/slmops: root's commands run as the service does, with its user, settings and
# home, so that nothing in its home ever belongs to root. Other users get the plain command line, with a home of their own.
set -eu
slmops=/opt/slmops/current/bin/slmops
if [ "$(id -u)" -ne 0 ]; then
  exec "$slmops" "$@"
fi
if [ -t 0 ] && [ -t 1 ]; then channel=--pty; else channel=--pipe; fi
exec systemd-run --quiet --wait --collect "$channel" --uid=slmops --gid=slmops \
  --property=EnvironmentFile=-/etc/slmops/slmops.env --property=UMask=0077 --property=StateDirectory=slmops \
  --property=StateDirectoryMode=0700 --property=WorkingDirectory=/var/lib/slmops \
  --setenv=SLMOPS_HOME=/var/lib/slmops --setenv=TERM="${TERM:-dumb}" -- "$slmops" "$@"
