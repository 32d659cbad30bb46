#!/usr/bin/env bash
# Real disks that fill up and fail, under the real binary: tests/disks.sh (as root, two minutes).
#
# Makes file systems of some 200 MB: ext4 and xfs on loop devices, which fill up, and ext4 on a zram device, which with
# a limit of memory fails every write with EIO; runs the tests of tests/broker/disks.rs on them; and takes all of it away
# again, whatever happened. Where this machine cannot make them it says so, NOT CHECKED, and exits with 77.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "error: $*"
    exit 1
}

cannot() {
    echo "NOT CHECKED: $*"
    exit 77
}

[ "$(id -u)" = 0 ] || cannot "tests/disks.sh makes file systems: run it as root"
for program in mkfs.ext4 mkfs.xfs mount losetup; do
    command -v "$program" >/dev/null || fail "$program is missing: install e2fsprogs, xfsprogs and mount"
done

work=$(mktemp -d)
zram=""
cleanup() {
    status=$?
    set +e
    mountpoint -q "$work/disk" && umount "$work/disk"
    if [ -n "$zram" ]; then
        echo 1 >"/sys/block/zram$zram/reset"
        echo "$zram" >/sys/class/zram-control/hot_remove
        [ -e "$work/node" ] && rm -f "/dev/zram$zram"
    fi
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
mkdir "$work/disk"

# tests FILTER…: runs those of tests/broker/disks.rs.
tests() {
    CHRONIK_TEST_DISK=$work/disk CHRONIK_TEST_ZRAM=zram$zram timeout 900 \
        cargo test --locked --features real-disks --test broker -- --test-threads 1 "${@/#/disks::}"
}

for kind in ext4 xfs; do
    echo "--- a small $kind"
    # xfs makes nothing below 300 MB.
    [ "$kind" = xfs ] && bytes=320M || bytes=200M
    truncate -s "$bytes" "$work/image"
    "mkfs.$kind" -q "$work/image" || fail "mkfs.$kind failed"
    mount -o loop "$work/image" "$work/disk" || cannot "no loop device can be mounted here"
    tests a_disk_at_its_reserve a_full_disk
    umount "$work/disk"
    rm "$work/image"
done

echo "--- a device that fails"
[ -e /sys/class/zram-control/hot_add ] || modprobe zram ||
    cannot "this kernel has no zram (CONFIG_ZRAM): its writes can be made to fail, those of a loop device cannot"
zram=$(cat /sys/class/zram-control/hot_add)
if [ ! -e "/dev/zram$zram" ]; then
    # No udev here.
    mknod "/dev/zram$zram" b "$(cut -d: -f1 "/sys/block/zram$zram/dev")" "$(cut -d: -f2 "/sys/block/zram$zram/dev")"
    touch "$work/node"
fi
echo 400M >"/sys/block/zram$zram/disksize"
mkfs.ext4 -q "/dev/zram$zram"
mount "/dev/zram$zram" "$work/disk"
tests a_disk_that_fails
echo "disks: all passed, everything taken away again"
