#!/bin/sh
# The login shell of `testbed exec` in a host, called as "-c COMMAND": a plain environment, then the command.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
unset SSH_CLIENT SSH_CONNECTION OLDPWD
cd /
eval "exec $2"
