#!/usr/bin/env bash
# Usage, time machine, collection and verification by the command line: against a server, and on a store that none has.
# The images go in and out by skopeo. The first part is the reference case: one image of 75 MB in three organisations.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_binaries
# shellcheck source=tools/e2e/containers.sh
. "$(dirname "${BASH_SOURCE[0]}")/containers.sh"

image_bytes=75000000
data=$work/data

# ask ARGUMENT…: a command to the server. at_rest: the same to the store that nobody serves.
ask() { "$orlop" "$@" --server "http://$address"; }
at_rest() { "$orlop" "$@" --data "$data"; }

# used FIELD [O|R]: a number of usage, exactly.
used() {
    local field=$1
    shift
    ask usage --json "$@" | jq ".$field"
}

# says CODE TEXT COMMAND…: the command ends with that code, and says that.
says() {
    local expected=$1 text=$2 status=0
    shift 2
    "$@" >"$work/said" 2>&1 || status=$?
    cat "$work/said"
    [[ $status == "$expected" ]]
    grep -qF -- "$text" "$work/said"
}

# one_layout DIRECTORY BYTES: an OCI layout with an image `app`, whose config and layer have so many bytes together. The
# layer is a plain tar that nothing can compress.
one_layout() {
    local layout=$1 bytes=$2 config config_bytes layer_bytes
    mkdir -p "$layout/blobs/sha256" "$layout-tree"
    # The config is as long with one digest as with any other.
    config_of() { jq -cn --arg id "sha256:$1" '{architecture: "amd64", os: "linux", rootfs: {type: "layers", diff_ids: [$id]}}'; }
    config_bytes=$(config_of "$(printf '0%.0s' {1..64})" | wc -c)
    layer_bytes=$((bytes - config_bytes))
    # A tar of one file has four blocks of its own, and is filled up with zeros.
    head -c $((layer_bytes / 10240 * 10240 - 10240)) /dev/urandom >"$layout-tree/content"
    tar -C "$layout-tree" -cf "$layout-layer" content
    truncate -s "$layer_bytes" "$layout-layer"
    config=$(config_of "$(sha256sum <"$layout-layer" | cut -d' ' -f1)")
    add_blob "$layout" "$layout-layer" >"$layout-layer-digest"
    echo "$config" >"$layout-config"
    add_blob "$layout" "$layout-config" >"$layout-config-digest"
    jq -cn --argjson layer "$layer_bytes" --argjson config "$config_bytes" \
        --arg layer_digest "$(cat "$layout-layer-digest")" --arg config_digest "$(cat "$layout-config-digest")" '{
            schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
            config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $config_digest, size: $config},
            layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar", digest: $layer_digest, size: $layer}]
        }' >"$layout-manifest"
    add_blob "$layout" "$layout-manifest" >"$layout-digest"
    echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    jq -cn --argjson size "$(stat -c %s "$layout-manifest")" --arg digest "$(cat "$layout-digest")" '{
            schemaVersion: 2, manifests: [{
                mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $digest, size: $size,
                annotations: {"org.opencontainers.image.ref.name": "app"}
            }]
        }' >"$layout/index.json"
}

# add_blob LAYOUT FILE: a blob of a layout; its digest.
add_blob() {
    local digest
    digest=$(digest_of "$2")
    cp "$2" "$1/blobs/sha256/${digest#sha256:}"
    echo "$digest"
}

make_images() {
    one_layout "$work/image" "$image_bytes"
    one_layout "$work/other" 5000000
    [[ $(skopeo inspect --raw "oci:$work/image:app" | jq '.config.size + .layers[0].size') == "$image_bytes" ]]
}

push_all() {
    local name
    for name in org1/image:latest org2/image:latest org2/image:1.0 org3/image:latest org3/base:latest; do
        push --preserve-digests "oci:$work/image:app" "docker://$address/$name"
    done
}

# The same image counts once in the registry, once in each organisation, and once in each repository of one.
reference_case() {
    local scope
    [[ $(used unique_bytes) == "$image_bytes" ]]
    for scope in org1 org2 org3 org1/image org2/image org3/image org3/base; do
        [[ $(used unique_bytes "$scope") == "$image_bytes" ]]
        ask usage "$scope" | grep -qF '71.5 MiB in 2 blobs'
    done
    ask usage | grep -qF 'Shared layers count in each part'
    [[ $(ask usage --json | jq -c '[.organizations, .repositories, .manifests, .tags, .blobs]') == '[3,4,1,5,2]' ]]
    [[ $(used tags org2/image) == 2 && $(used tags org3) == 2 && $(used repositories org3) == 2 ]]
}

# Two repositories of one organisation, and then one of them with an image more.
two_repositories() {
    push --preserve-digests "oci:$work/image:app" "docker://$address/org4/one:latest"
    push --preserve-digests "oci:$work/image:app" "docker://$address/org4/two:latest"
    [[ $(used unique_bytes org4) == "$image_bytes" ]]
    [[ $(used unique_bytes org4/one) == "$image_bytes" && $(used unique_bytes org4/two) == "$image_bytes" ]]
    push --preserve-digests "oci:$work/other:app" "docker://$address/org4/two:other"
    [[ $(used unique_bytes org4) == $((image_bytes + 5000000)) && $(used unique_bytes org4/one) == "$image_bytes" ]]
    [[ $(used unique_bytes) == $((image_bytes + 5000000)) ]]
}

lists() {
    [[ $(ask ls --json | jq -c '[.organizations[].name]') == '["org1","org2","org3","org4"]' ]]
    [[ $(ask ls org3 --json | jq -c '[.repositories[].name]') == '["org3/base","org3/image"]' ]]
    [[ $(ask ls org2/image --json | jq -c '[.manifests[].tags]') == '[["1.0","latest"]]' ]]
    # In the registry other repositories keep the same blobs: nothing of them is the image's own.
    [[ $(ask ls org4/two --own --json | jq -c '[.manifests[] | select(.tags == ["latest"]).own_bytes]') == '[0]' ]]
    ask ls | grep -qE '^org3 +2 +1 +2 +2 +71.5 MiB +0 B$'
    ask ls -n 1 | grep -qF 'There are more'
    # Read by nobody to its end, which is no failure.
    ask ls org2/image --json | head -n 1 >/dev/null
    ask segments | grep -qE ' single +sealed '
}

# A name without a slash: a repository of its own, an organisation, or both.
plain_names() {
    push --preserve-digests "oci:$work/other:app" "docker://$address/plain:latest"
    push --preserve-digests "oci:$work/image:app" "docker://$address/plain/image:latest"
    [[ $(used unique_bytes plain) == 5000000 && $(used unique_bytes plain/) == "$image_bytes" ]]
    [[ $(used unique_bytes _) == 5000000 ]]
    skopeo delete --tls-verify=false "docker://$address/plain:latest"
    skopeo delete --tls-verify=false "docker://$address/plain/image:latest"
}

refusals() {
    says 2 '"nobody" is not known' ask usage nobody
    says 2 'orlop history' ask restore org1/image "sha256:$(printf '0%.0s' {1..64})"
    says 2 'https is not built yet' "$orlop" usage --server https://localhost
    says 2 '--data' "$orlop" usage --server "http://127.0.0.1:$(free_port)"
    # The server has the store.
    says 2 '--server' at_rest usage
}

# What deleting would give, deleting, and having it back: by another tag, then without one.
time_machine() {
    local digest
    digest=$(cat "$work/other-digest")
    ask what-if org4/two --tag other --json >"$work/what-if"
    jq -e '.in_organization.freed_bytes == 5000000 and .in_organization.reclaimable_bytes == 5000000' "$work/what-if"
    [[ $(ask what-if org4/one --json | jq .in_organization.freed_bytes) == 0 ]]
    skopeo delete --tls-verify=false "docker://$address/org4/two:other"
    if pull "docker://$address/org4/two:other" "dir:$work/gone"; then return 1; fi
    [[ $(used reclaimable_bytes org4) == 5000000 && $(used unique_bytes org4) == $((image_bytes + 5000000)) ]]
    ask history org4/two other | grep -qF "$digest"
    ask restore org4/two back "$digest" | grep -qF "org4/two:back is $digest again"
    pull "docker://$address/org4/two:back" "oci:$work/back:app"
    same_layout "$work/back" "$work/back"
    [[ $(used reclaimable_bytes org4) == 0 ]]
    ask why org4/two:back | grep -qF 'tag back'
    ask why "$(cat "$work/other-layer-digest")" | grep -qF "$digest"
    skopeo delete --tls-verify=false "docker://$address/org4/two:back"
}

disk_bytes() { du -s --block-size=1 "$data/segments" | cut -f1; }

# What is held is purged: its bytes are off the disk when the command ends, and found nowhere.
purged() {
    local before layer
    layer=$(cat "$work/other-layer-digest")
    before=$(disk_bytes)
    ask purge org4 --dry-run | grep -qF 'nothing was changed'
    [[ $(used unique_bytes org4) == $((image_bytes + 5000000)) ]]
    # The image was in two places, and nobody has it any more.
    ask purge _ >"$work/purge"
    ask purge org4 --json | jq -e '.dropped | any(.kind == "manifest" and .repository == "org4/two")'
    [[ $(used unique_bytes org4) == "$image_bytes" ]]
    [[ $(used unique_bytes) == "$image_bytes" ]]
    # Its blobs are kept until the grace of their upload is over, which the server's settings make a minute.
    while ask blob "$layer" --json | jq -e .present >/dev/null; do
        sleep 2
        ask gc >"$work/gc"
    done
    (($(disk_bytes) < before - 4900000))
    ask blob "$layer" --search >"$work/blob"
    grep -qF 'It was dropped' "$work/blob"
    grep -qF 'No copy of its bytes is left' "$work/blob"
    says 2 dropped ask restore org4/two "$(cat "$work/other-digest")"
    ask gc --status | grep -qE ' (purge|request) '
    ask compact | grep -qF 'compacted'
}

# What is held goes early when somebody agrees on a terminal, or says so before; not more of it than it takes.
freed() {
    local tag
    for tag in 1 2; do
        one_layout "$work/held-$tag" $((3000000 + tag))
        push --preserve-digests "oci:$work/held-$tag:app" "docker://$address/org6/image:$tag"
        skopeo delete --tls-verify=false "docker://$address/org6/image:$tag"
        sleep 1
    done
    ask gc --free 2MiB --dry-run >"$work/plan"
    grep -qF "$(cat "$work/held-1-digest")" "$work/plan"
    grep -qF 'That reaches the 2.0 MiB' "$work/plan"
    [[ ! $(grep -F "$(cat "$work/held-2-digest")" <(sed -n '/^Would end/,/^$/p' "$work/plan")) ]]
    says 2 '--yes' ask gc --free 2MiB </dev/null
    # A terminal of util-linux's making, on which somebody says no, and then yes.
    says 2 'nothing was done' on_terminal n
    ask restore org6/image "$(cat "$work/held-1-digest")"
    skopeo delete --tls-verify=false "docker://$address/org6/image@$(cat "$work/held-1-digest")"
    says 0 'are reached' on_terminal y
    # The first one was deleted again, so the second one was the older.
    says 2 dropped ask restore org6/image "$(cat "$work/held-2-digest")"
    ask history org6/image | grep -qF "$(cat "$work/held-1-digest")"
    says 1 'not reached' ask gc --free 1GiB --yes
    says 2 dropped ask restore org6/image "$(cat "$work/held-1-digest")"
}

# on_terminal ANSWER: frees 2 MiB, and answers the question.
on_terminal() {
    # What is typed before the question stays in the terminal until it is asked.
    echo "$1" | script -qec "'$orlop' gc --free 2MiB --server 'http://$address'" /dev/null
}

paused() {
    ask pause compact | grep -qxF 'paused: compact'
    ask pause collect | grep -qxF 'paused: collect, compact'
    says 1 'orlop resume collect' ask gc
}

resumed() {
    ask gc --status | grep -qE '^paused +collect, compact$'
    ask resume collect
    ask resume compact | grep -qxF 'paused: nothing'
    ask gc
}

# What an organisation has costs it nothing more; what it has no room for is refused, and told in numbers.
limited() {
    ask quota org5/ 78000000 | grep -qF 'quota of org5/'
    push --preserve-digests "oci:$work/image:app" "docker://$address/org5/one:latest"
    push --preserve-digests "oci:$work/image:app" "docker://$address/org5/two:latest"
    if push --preserve-digests "oci:$work/other:app" "docker://$address/org5/two:other" >"$work/denied" 2>&1; then return 1; fi
    grep -qF 'organization org5 may store 78000000 bytes' "$work/denied"
    ask quota org5/one --json | jq -e '.quotas[0].used_bytes > 75000000 and .quotas[0].uploading_bytes == 0'
    ask quota org5/ 90MiB
    push --preserve-digests "oci:$work/other:app" "docker://$address/org5/two:other"
    pull "docker://$address/org5/two:other" "dir:$work/pulled"
    ask ls org5/two --json | jq -e '[.manifests[] | select(.tags == ["other"]).pulled_at != null] == [true]'
    ask quota org5/ none | grep -qF 'no quota'
    ask quota org1/ 1GiB
}

# A policy is tried, and takes nothing; set, and one collection does what it said. Pinned tags stay, fixed ones don't move.
governed() {
    local tag keep=(policy set keep --pattern 'org6/*' --keep-newest 1 --tag-pattern '!pinned-*')
    for tag in pinned-one one two three; do
        push --preserve-digests "oci:$work/other:app" "docker://$address/org6/app:$tag"
    done
    ask "${keep[@]}" --dry-run --json | jq -e '.plan.tags == 2 and [.plan.going[].tag] == ["one", "two"]'
    [[ $(used tags org6/app) == 4 ]]
    ask "${keep[@]}" | grep -qF 'policy keep'
    ask policy explain org6/app | grep -qF 'org6/app is governed by policy keep (org6/*)'
    ask policy explain org6/app --json | jq -e '.effect.newest == 1'
    ask gc >"$work/said"
    [[ $(used tags org6/app) == 2 ]]
    ask history org6/app | grep -qE '^one '
    ask policy set fixed --pattern org6/app --immutable='pinned-*' | grep -qF 'where both match, fixed governs'
    if push --preserve-digests "oci:$work/image:app" "docker://$address/org6/app:pinned-one" >"$work/denied" 2>&1; then return 1; fi
    grep -qF 'immutable by policy fixed' "$work/denied"
    says 2 'keep_newest = 0 is not accepted' ask policy set fixed --pattern org6/app --keep-newest 0
    ask policy ls --json | jq -e '[.policies[].policy.name] == ["fixed", "keep"]'
    ask policy rm fixed
    ask policy rm keep
}

verified() {
    ask verify | grep -qF 'no findings'
    ask verify --content --json | jq -e --argjson bytes "$image_bytes" '.findings == [] and .content_bytes > $bytes'
}

# The same questions to the store itself have the same answers.
at_rest_as_served() {
    local question
    for question in usage "usage org3" "ls" "ls org3" "ls org2/image" "history org4/two" "quota org1/image"; do
        # shellcheck disable=SC2086 # words
        at_rest $question --json >"$work/rest"
        # shellcheck disable=SC2086 # words
        diff <(jq -S 'del(.disk_bytes)' "$work/rest") <(jq -S 'del(.disk_bytes)' "$work/served-${question//[ \/]/-}")
    done
    at_rest verify --content | grep -qF 'no findings'
    says 2 'no orlop data directory' "$orlop" usage --data "$work/nowhere"
    [[ ! -e $work/nowhere ]]
}

save_answers() {
    local question
    for question in usage "usage org3" "ls" "ls org3" "ls org2/image" "history org4/two" "quota org1/image"; do
        # shellcheck disable=SC2086 # words
        ask $question --json >"$work/served-${question//[ \/]/-}"
    done
}

# A changed byte is found by reading, and only then.
damage_is_found() {
    local file offset
    file=$(find "$data/segments" -name '*.segment' -size +70M)
    offset=$(($(stat -c %s "$file") / 2))
    printf 'x' | dd of="$file" bs=1 seek="$offset" conv=notrunc status=none
    at_rest verify | grep -qF 'no findings'
    says 1 "$(cat "$work/image-layer-digest")" at_rest verify --content
}

check "an image of 75 MB is made" make_images
# The least that there is, so that a purge shows on the disk soon.
export ORLOP_REGISTRY_GRACE=1m
start_server "$data"
check "the image is pushed to three organisations" push_all
check "the reference case: 75 MB in the registry, in each organisation, in each repository" reference_case
check "one image in two repositories of an organisation counts once there" two_repositories
check "organisations, repositories, manifests and segments are listed" lists
check "a name without a slash is a repository, an organisation, or both" plain_names
check "what cannot be done is refused with a remedy" refusals
check "what was deleted comes back" time_machine
check "what is purged leaves the disk" purged
check "so much is freed of what is held, when somebody agrees" freed
check "a served store is verified" verified
check "collecting and compacting are paused" paused
stop_server || fail "the server ends cleanly" "$server_log"
start_server "$data"
check "pauses outlive a restart, and end" resumed
check "a quota is held" limited
check "a policy is tried, set, explained, and does what it says" governed
check "answers are kept for comparison" save_answers
stop_server || fail "the server ends cleanly" "$server_log"
check "the store answers the same without a server" at_rest_as_served
check "a changed byte is found" damage_is_found
finish
