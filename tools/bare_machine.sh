#!/usr/bin/env bash
# Prove the README on a bare machine: a minimal Debian 12 in a chroot with git and make, nothing else.
#   sudo tools/bare_machine.sh FOLDER [make targets, by default: demo test]
# Clones this repository's HEAD into FOLDER/root/geonorm and runs the targets there. Needs root,
# debootstrap and some 20 GB; FOLDER is left for a look and is safe to delete afterwards.
# MIRROR=URL names another Debian mirror.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,6s/^# //p' "$0"; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "a chroot needs root: sudo $0 $*" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "apt-get install debootstrap" >&2; exit 1; }
# Mounts in a namespace of their own end with it, however it ends: no rm -r of FOLDER can reach /dev.
[ -n "${GEONORM_UNSHARED:-}" ] ||
    exec env GEONORM_UNSHARED=1 unshare --mount --propagation private bash "$0" "$@"
folder=$(realpath -m "$1")
shift
targets=${*:-demo test}
repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)

# debootstrap removes its own folder when it is done; half a system is made anew.
if [ ! -e "$folder/etc/debian_version" ] || [ -e "$folder/debootstrap" ]; then
    debootstrap --variant=minbase --include=git,make,ca-certificates bookworm "$folder" \
        "${MIRROR:-http://deb.debian.org/debian}"
fi
# What this machine needs to reach its package indexes, it needs in the chroot too: addresses,
# proxies and certificates, and the folders that pip is told to look in. Its apt sources stay here:
# they may be another distribution's.
mkdir -p "$folder/etc/apt/apt.conf.d" "$folder/root/.config/pip"
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /root/.config/pip/pip.conf \
            /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || cp -L "$file" "$folder$file"
done
grep -lsi 'acquire::' /etc/apt/apt.conf.d/* | while read -r file; do
    cp "$file" "$folder/etc/apt/apt.conf.d/"
done || true
settings=(HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8)
while IFS= read -r setting; do
    settings+=("$setting")
done < <(env | grep -Ei '^(https?_proxy|no_proxy|pip_[a-z_]*|uv_[a-z_]*|ssl_cert_file|ssl_cert_dir)=' || true)
rm -rf "$folder/root/geonorm"
git clone --quiet "$repository" "$folder/root/geonorm"

mount -t proc proc "$folder/proc"
mount -t sysfs -o ro sysfs "$folder/sys"
mount --bind /dev "$folder/dev"
mount -t tmpfs tmpfs "$folder/dev/shm"  # through which loaders pass batches
for place in $(pip config list 2>/dev/null | grep -oE "(file://)?/[^' ]+" | sed 's#^file://##'); do
    place=${place%/simple}       # an index, whose files lie beside it
    [ -d "$place" ] || continue  # on this machine's own disk
    mkdir -p "$folder$place"
    mount --bind -o ro "$place" "$folder$place"
done
for target in $targets; do
    start=$SECONDS
    chroot "$folder" /usr/bin/env -i "${settings[@]}" make -C /root/geonorm "$target" </dev/null
    echo "bare machine: make $target passed in $((SECONDS - start)) s"
done
