#!/bin/sh
# Runs a command in a machine with SGX, on a runner that has none: docs/ci in Cloister's repository.
#
#     enclave-tests.sh CLOISTER.deb COMMAND [ARGUMENTS]
#
# For Debian 12, as root, which is what containers of CI are. The exit code is the command's.
set -eu
package=$(realpath "$1")
shift

apt-get update -q
apt-get install -q -y --no-install-recommends "$package"

# It fetches a kernel, unless the runner has kept one.
exec cloister exec --timeout 600 --epc 64M -- "$@"
