#!/usr/bin/env bash
# A file system that the kernel has made read-only, as it does when the disk below it fails: pushes are refused and the log
# says why, pulls go on, and after a restart on a sound disk everything is there and pushes are taken again.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ $(id -u) != 0 ]]; then
    echo "not run: mounting a small file system needs root"
    exit 0
fi
need_binaries

export PATH=$PATH:/usr/sbin:/sbin ORLOP_STORE_RESERVE_BYTES=32MiB
truncate -s 256M "$work/disk"
mkfs.ext4 -q "$work/disk"
mkdir "$work/mnt" "$work/blobs"
mount -o loop "$work/disk" "$work/mnt"

push_some() {
    for number in 1 2 3 4; do
        head -c $((number * number * 100000)) /dev/urandom >"$work/blobs/$number"
        [[ $(put_blob failing/disk "$work/blobs/$number") == 201 ]]
    done
}
all_served() {
    for blob in "$work"/blobs/*; do blob_is failing/disk "$blob"; done
}
refused() {
    head -c 1000 /dev/urandom >"$work/blob"
    [[ $(put_blob failing/disk "$work/blob") == 503 ]] && grep 'does not take writes' "$work/body"
}
told() {
    [[ $(status GET /api/v1/status) == 200 ]] && jq . "$work/body"
    jq -e '(.writes | not) and (tostring | contains("Read-only file system"))' "$work/body"
}

start_server "$work/mnt/data"
check "blobs are pushed" push_some
# A server that has nothing open yet: what a read needs must be opened on the failed file system.
stop_server || fail "the server ends cleanly" "$server_log"
start_server "$work/mnt/data"
mount -o remount,abort "$work/mnt"
check "pushes are refused with 503 when the file system has failed" refused
check "the status says why" told
check "every blob is served from the failed file system" all_served
check "pushes are still refused" refused
check "the log says why" grep -q 'Read-only file system' "$server_log"
kill_server
umount "$work/mnt"
mount -o loop "$work/disk" "$work/mnt"
start_server "$work/mnt/data"
check "every blob is served after a restart on a sound disk" all_served
check "pushes are taken again" push_some
stop_server || fail "the server ends cleanly at last" "$server_log"
finish
