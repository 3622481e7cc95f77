#!/usr/bin/env bash
# After a purge the bytes of what was deleted lie nowhere in the data directory, RocksDB's files included: every file is
# searched for pieces of every blob and manifest. What another organisation has, too, is served bit for bit.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_binaries
# shellcheck source=tools/e2e/containers.sh
. "$(dirname "${BASH_SOURCE[0]}")/containers.sh"

data=$work/data gone=$work/gone stays=$work/stays
mkdir "$gone" "$stays"

# raw DIRECTORY: names each file of DIRECTORY of which a piece of 64 bytes lies in a file of the data directory, and that one.
# Pieces that something has that stays are left out. Of JSON with descriptors the pieces lie around sizes: the digests
# alone stand in the report of the purge, as they should.
raw() {
    python3 - "$1" "$stays" "$data" <<'EOF'
import mmap, os, re, sys
sought, stays, data = sys.argv[1:]
read = lambda path: open(path, "rb").read()
kept = [] if sought == stays else [read(os.path.join(stays, name)) for name in os.listdir(stays)]

def pieces(content):
    places = [match.start() - 40 for match in re.finditer(rb'"size"', content)]
    places = places or [0, len(content) // 3, len(content) // 2, len(content) - 64]
    found = {content[max(place, 0):max(place, 0) + 64] for place in places}
    return [piece for piece in found if not any(piece in other for other in kept)]

wanted = {name: pieces(read(os.path.join(sought, name))) for name in sorted(os.listdir(sought))}
for name, of in wanted.items():
    assert of, f"{name} has no piece of its own"
for directory, _, files in os.walk(data):
    for file in files:
        path = os.path.join(directory, file)
        with open(path, "rb") as opened:
            if os.path.getsize(path) == 0:
                continue
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for name, of in wanted.items():
                    if any(content.find(piece) >= 0 for piece in of):
                        print(name, os.path.relpath(path, data))
EOF
}

# blob_of FILE TYPE: its descriptor.
blob_of() { jq -cn --arg type "$2" --arg digest "$(digest_of "$1")" --argjson size "$(stat -c %s "$1")" '{mediaType: $type, $digest, $size}'; }

# put_manifest REPOSITORY REFERENCE FILE: pushes it; the type stands in it.
put_manifest() { [[ $(status PUT "/v2/$1/manifests/$2" -H "Content-Type: $(jq -r .mediaType "$3")" -T "$3") == 201 ]]; }

# image REPOSITORY TAG NAME WHERE LAYER…: pushes an image with a config of its own, which is written to WHERE as is its manifest.
image() {
    local repository=$1 tag=$2 name=$3 where=$4 layer layers='[]'
    shift 4
    jq -cn --arg nonce "$(head -c 200 /dev/urandom | base64 -w 0)" \
        '{architecture: "amd64", os: "linux", config: {Labels: {$nonce}}, rootfs: {type: "layers", diff_ids: []}}' >"$where/$name.config"
    [[ $(put_blob "$repository" "$where/$name.config") == 201 ]]
    for layer in "$@"; do
        [[ $(put_blob "$repository" "$layer") == 201 ]]
        layers=$(jq -c --argjson layer "$(blob_of "$layer" application/vnd.oci.image.layer.v1.tar)" '. + [$layer]' <<<"$layers")
    done
    jq -cn --argjson config "$(blob_of "$where/$name.config" application/vnd.oci.image.config.v1+json)" --argjson layers "$layers" \
        '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", $config, $layers}' >"$where/$name.manifest"
    put_manifest "$repository" "$tag" "$where/$name.manifest"
}

# Two organisations. What `gone` has a copy of is the first one's alone; what `stays` has, the other's too.
push_all() {
    head -c 3000000 /dev/urandom >"$gone/large"
    head -c 50000 /dev/urandom >"$gone/middle"
    head -c 700 /dev/urandom >"$gone/small"
    head -c 70 /dev/urandom >"$gone/tiny"
    head -c 300000 /dev/urandom >"$stays/shared"
    head -c 2000000 /dev/urandom >"$stays/shared-large"
    head -c 4000 /dev/urandom >"$stays/other"
    image team/app 1 first "$gone" "$stays/shared" "$gone/large" "$gone/small"
    image team/app 2 second "$gone" "$stays/shared" "$stays/shared-large" "$gone/tiny"
    image team/tools/deep latest third "$gone" "$gone/large" "$gone/middle"
    image other/app 1 kept "$stays" "$stays/shared" "$stays/shared-large" "$stays/other"
    # The same image in both, pushed by another client.
    skopeo copy -q --preserve-digests --src-tls-verify=false --dest-tls-verify=false \
        "docker://$address/other/app:1" "docker://$address/team/copy:1"
    # Superseded, so that a tag has history.
    put_manifest team/app 2 "$gone/first.manifest"
    put_manifest team/app 2 "$gone/second.manifest"
    jq -cn --argjson one "$(blob_of "$gone/first.manifest" application/vnd.oci.image.manifest.v1+json)" \
        --argjson two "$(blob_of "$gone/second.manifest" application/vnd.oci.image.manifest.v1+json)" \
        '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [$one, $two]}' >"$gone/index.manifest"
    put_manifest team/app multi "$gone/index.manifest"
    head -c 500 /dev/urandom >"$gone/signature"
    [[ $(put_blob team/app "$gone/signature") == 201 ]]
    jq -cn --argjson layer "$(blob_of "$gone/signature" application/octet-stream)" \
        --argjson config "$(blob_of "$gone/signature" application/vnd.example.signature)" \
        --argjson subject "$(blob_of "$gone/first.manifest" application/vnd.oci.image.manifest.v1+json)" \
        '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", $config, layers: [$layer], $subject}' >"$gone/signature.manifest"
    put_manifest team/app "$(digest_of "$gone/signature.manifest")" "$gone/signature.manifest"
}

all_found() {
    raw "$gone" | cut -d' ' -f1 | sort -u >"$work/found"
    diff "$work/found" <(find "$gone" -type f -printf '%f\n' | sort)
}

delete_all() {
    local manifest repository
    for manifest in "$gone"/*.manifest; do
        for repository in team/app team/tools/deep; do
            [[ $(status DELETE "/v2/$repository/manifests/$(digest_of "$manifest")") == 202 ]] || continue
        done
    done
    [[ $(status DELETE "/v2/team/copy/manifests/$(digest_of "$stays/kept.manifest")") == 202 ]]
    [[ $(status GET "/v2/team/app/manifests/$(digest_of "$gone/first.manifest")") == 404 ]]
}

# A blob that no manifest names yet, which a push may be about to name.
push_late() {
    head -c 9000 /dev/urandom >"$stays/late"
    [[ $(put_blob team/app "$stays/late") == 201 ]]
}

purge() {
    local file
    "$orlop" purge team --server "http://$address" --json >"$work/report"
    jq -c . "$work/report"
    for file in "$gone"/*; do
        jq -e --arg digest "$(digest_of "$file")" 'any(.dropped[]; .digest == $digest)' "$work/report"
    done
    jq -e '.still_read == 0 and .freed_bytes > 3000000 and .returned_bytes > 3000000' "$work/report"
    jq -e --arg digest "$(digest_of "$stays/late")" 'any(.kept[]; .digest == $digest and .why == "grace")' "$work/report"
}

none_found() {
    [[ -z $(raw "$gone" | tee "$work/found") ]] || { cat "$work/found"; return 1; }
    # The search itself works.
    [[ $(raw "$stays" | cut -d' ' -f1 | sort -u) == "$(find "$stays" -type f -printf '%f\n' | sort)" ]]
}

others_served() {
    local file
    for file in shared shared-large other kept.config; do blob_is other/app "$stays/$file"; done
    pull "docker://$address/other/app:1" "dir:$work/back-$starts"
    cmp "$work/back-$starts/manifest.json" "$stays/kept.manifest"
    blob_is team/app "$stays/late"
    [[ $(status GET "/v2/team/app/blobs/$(digest_of "$gone/large")") == 404 ]]
}

start_server "$data"
check "images, an index and a signature are pushed to two organisations" push_all
stop_server || fail "the server ends cleanly" "$server_log"
start_server "$data"
check "the search finds a piece of all of it" all_found
check "one organisation deletes all that it has" delete_all
check "it is held: the search still finds it" all_found
check "a blob is pushed that no manifest names yet" push_late
check "the purge tells all that it dropped, and what a grace keeps" purge
check "right after the purge no file has a piece of it" none_found
check "what the other organisation has is served bit for bit" others_served
kill_server
check "after a kill no file has a piece of it" none_found
start_server "$data"
check "after a restart what the other organisation has is served bit for bit" others_served
stop_server || fail "the server ends cleanly" "$server_log"
check "after a clean end no file has a piece of it" none_found
finish
