#!/usr/bin/env bash
# Prove the README on a bare machine: a minimal Debian 12 in a chroot with git and make, nothing else.
#   sudo tools/bare_machine.sh FOLDER [make targets, by default: demo test]
# Clones this repository's HEAD into FOLDER/root/geonorm and runs the targets there. Needs root,
# debootstrap and some 20 GB; FOLDER is left for a look and is safe to delete afterwards.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "a chroot needs root: sudo $0 $*" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "apt-get install debootstrap" >&2; exit 1; }
folder=$(realpath -m "$1")
shift
targets=${*:-demo test}
repository=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)

[ -e "$folder/etc/debian_version" ] ||
    debootstrap --variant=minbase --include=git,make,ca-certificates bookworm "$folder"
# What this machine needs to reach its package indexes, it needs in the chroot too.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/apt/sources.list \
            /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || cp -L "$file" "$folder$file"
done
cp -r /etc/apt/apt.conf.d /etc/apt/sources.list.d "$folder/etc/apt/" 2>/dev/null || true
rm -rf "$folder/root/geonorm"
git clone --quiet "$repository" "$folder/root/geonorm"

mount --bind /proc "$folder/proc"
mount --bind /dev "$folder/dev"
trap 'umount "$folder/proc" "$folder/dev"' EXIT
for target in $targets; do
    start=$SECONDS
    chroot "$folder" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        make -C /root/geonorm "$target"
    echo "bare machine: make $target passed in $((SECONDS - start)) s"
done
