#!/usr/bin/env bash
# The index can be lost, stale, another store's or damaged: what the store knows afterwards is the same, byte for byte, and so is
# the state hash, worked out from scratch.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_binaries
data=$work/data

# load_images SEED: some images and small blobs into the server that runs.
load_images() {
    "$load" push-images --address "$address" --seed "$1" --seconds 60 --images 8 --acks "$server_data.acks"
    "$load" push-blobs --address "$address" --seed "$1" --count 300
}

end_server() { stop_server || fail "the server ends cleanly" "$server_log"; }

# fill DATA SEED: starts, loads, stops.
fill() {
    start_server "$1"
    check "images are pushed (seed $2)" load_images "$2"
    end_server
}

# state DATA NAME: the dump, and the last operation with the state hash as a verification finds it, into $work/NAME*.
state() {
    dump "$1" "$work/$2"
    if [[ ${E2E_SERVER:-orlop} == orlop ]]; then
        "$orlop" verify --data "$1" --json 2>/dev/null | jq -er '"\(.lsn) \(.state_hash // error)"' >"$work/$2.hash"
    else
        cp "$work/$2" "$work/$2.hash"
    fi
}

# same_after WHAT: a start and a stop later dump and state hash are those from before.
same_after() {
    start_server "$data"
    end_server
    state "$data" after
    # A dump of nothing would be equal to another.
    check "the dump is the same after $1" eval 'test -s "$work/before" && cmp "$work/before" "$work/after"'
    check "the state hash is the same after $1" \
        eval 'test -s "$work/before.hash" && cmp "$work/before.hash" "$work/after.hash"'
}

fill "$data" 1
cp -r "$data/index" "$work/stale"
fill "$data" 2
state "$data" before
check "the dump has a line for every row, and each ends in JSON" \
    jq -es 'length > 100' <(sed -E 's/^[^{]*//' "$work/before")

same_after "a plain restart"

rm -r "$data/index"
same_after "index/ was deleted"

rm -r "$data/index"
cp -r "$work/stale" "$data/index"
same_after "a stale copy of index/ was put back"

fill "$work/other" 3
rm -r "$data/index"
cp -r "$work/other/index" "$data/index"
same_after "another store's index/ was put there"

find "$data/index" -name '*.sst' -size +0 | while read -r file; do
    head -c "$(stat -c %s "$file")" /dev/urandom >"$file"
done
same_after "every table file of index/ was overwritten"

# What a kill leaves behind: replayed onto its index, and rebuilt without it, it adds up to the same.
start_server "$data"
check "images are pushed before a kill" load_images 4
kill_server
cp -r "$data" "$work/killed"
start_server "$data"
end_server
state "$data" before
rm -r "$work/killed/index"
data=$work/killed
same_after "a kill, by replay and by rebuild"

start_server "$data"
check "all that was acknowledged is served" "$load" check --address "$address" --acks "$work/data.acks"
end_server
finish
