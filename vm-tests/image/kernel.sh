#!/bin/sh
# kernel.sh ROOT: puts Debian's cloud kernel into ROOT. Unpacked and not installed,
# because installing it builds an initrd that a machine without a boot loader never reads.
set -eu
root=$1
archives=/var/cache/apt/archives
package=$(chroot "$root" apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -n 1)
set -- "$root$archives/${package}"_*.deb
if ! [ -e "$1" ]; then
    chroot "$root" sh -c "cd $archives && apt-get -q -o APT::Sandbox::User=root download $package"
    set -- "$root$archives/${package}"_*.deb
fi
dpkg-deb --fsys-tarfile "$1" | tar --extract --directory "$root" --keep-directory-symlink
chroot "$root" depmod --all "${package#linux-image-}"
