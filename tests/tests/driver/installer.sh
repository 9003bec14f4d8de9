#!/bin/sh
# Stands for NVIDIA's installer in a .run file (README of the driver, "Installing the NVIDIA Driver"): it writes down its options and puts a
# library and a module where that does. It cannot show a build, nor what that checks before.
set -eu
version=535.261.03
log=/var/log/nvidia-installer.log
kernel=$(uname -r)
for option in "$@"; do
    echo "$option" >> /srv/options
    case $option in --kernel-name=*) kernel=${option#*=} ;; esac
done
if [ -e /srv/compiler-error ]; then
    # What an installer of branch 535 says, and what only its log says.
    printf 'nvidia-installer log file '"'$log'"'\n   /tmp/x/nvidia/nv-pci.c:237:9: error: too few arguments\n' > "$log"
    echo 'ERROR: An error occurred while performing the step: "Building kernel modules". See '"$log"' for details.' >&2
    echo "ERROR: Installation has failed.  Please see the file '$log' for details." >&2
    exit 1
fi
if [ -e /srv/other-error ]; then
    echo 'ERROR: You do not appear to have libc header files installed on your system.' > "$log"
    echo "ERROR: Installation has failed.  Please see the file '$log' for details." >&2
    exit 1
fi
libraries=/usr/lib/$(uname -m)-linux-gnu
: > "$libraries/libnvidia-ml.so.$version"
ln -sf "libnvidia-ml.so.$version" "$libraries/libnvidia-ml.so.1"
mkdir -p "/lib/modules/$kernel/kernel/drivers/video"
: > "/lib/modules/$kernel/kernel/drivers/video/nvidia.ko"
echo kernel/drivers/video/nvidia.ko: >> "/lib/modules/$kernel/modules.dep"
