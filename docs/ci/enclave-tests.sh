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

# A kernel, unpacked and not installed: nothing on the runner boots it but cloister.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cloister
if [ ! -d "$cache/boot" ]; then
    kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    mkdir -p "$cache/packages"
    (cd "$cache/packages" && apt-get download -q "$kernel" && dpkg-deb -x "$kernel"_*.deb "$cache")
    rm -r "$cache/packages"
fi

exec cloister exec --timeout 600 --epc 64M -- "$@"
