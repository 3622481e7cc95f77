#!/usr/bin/env bash
# A full disk: pushes are told so with 507, pulls and deletes go on, and nothing that was acknowledged is lost.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ $(id -u) != 0 ]]; then
    echo "not run: mounting a small file system needs root"
    exit 0
fi
need_binaries

truncate -s 256M "$work/disk"
PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q "$work/disk"
mkdir "$work/mnt"
mount -o loop "$work/disk" "$work/mnt"
mkdir "$work/blobs"
# What uploads leave free; the default is meant for larger disks.
export ORLOP_STORE_RESERVE_BYTES=32MiB

start_server "$work/mnt/data"

# fill_disk: pushes until the server says 507, each blob other bytes; keeps those that were acknowledged.
fill_disk() {
    local number code
    for number in $(seq 100); do
        head -c 8000000 /dev/urandom >"$work/blob"
        code=$(put_blob full/disk "$work/blob")
        case $code in
        201) mv "$work/blob" "$work/blobs/$number" ;;
        507) break ;;
        *) echo "status $code: $(cat "$work/body")"; return 1 ;;
        esac
    done
    echo "$code after $((number - 1)) blobs of 8 MB"
    [[ $code == 507 && $number -gt 5 ]]
    jq -e '.errors[0] | .code == "UNKNOWN" and (.message | test("full"))' "$work/body"
}

# Small pushes find the last of the room; then they are told the same.
fill_with_small() {
    local number code
    for number in $(seq 3000); do
        head -c 60000 /dev/urandom >"$work/blob"
        code=$(put_blob full/small "$work/blob")
        [[ $code == 201 ]] || break
    done
    echo "$code after $((number - 1)) blobs of 60 kB"
    [[ $code == 507 ]]
}

all_served() {
    for blob in "$work"/blobs/*; do blob_is full/disk "$blob"; done
}

delete_one() {
    local blob=$work/blobs/1
    [[ $(status DELETE "/v2/full/disk/blobs/$(digest_of "$blob")") == 202 ]]
    [[ $(status GET "/v2/full/disk/blobs/$(digest_of "$blob")") == 404 ]]
}

check "pushes of large blobs get 507 when the disk is full" fill_disk
check "pushes of small blobs get 507 too" fill_with_small
check "every acknowledged blob is served from the full disk" all_served
check "the server is alive and says so" eval '[[ $(status GET /v2/) == 200 ]]'
check "a delete works on the full disk" delete_one
rm -f "$work/blobs/1"
stop_server || fail "the server ends cleanly on the full disk" "$server_log"
start_server "$work/mnt/data"
check "every acknowledged blob is served after a restart on the full disk" all_served
stop_server || fail "the server ends cleanly after a restart on the full disk" "$server_log"
finish
