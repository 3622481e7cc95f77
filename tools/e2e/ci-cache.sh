#!/usr/bin/env bash
# A build cache as CI has it: buildah builds with --layers --cache-to and --cache-from against a repository that a policy caps.
# Each build begins with an empty storage, as a fresh runner does. Builds hit; the cap holds while two of them push at once;
# what was pulled longest ago goes first; a pinned tag stays; and the index does not grow with what came and went.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_binaries
# shellcheck source=tools/e2e/containers.sh
. "$(dirname "${BASH_SOURCE[0]}")/containers.sh"

data=$work/data repository=ci/cache
# What builds have in common is about 1.1 MB, and each source 300 kB beside it.
cap=$((4 << 20)) source_bytes=300000

ask() { "$orlop" "$@" --server "http://$address"; }

# A root file system from nothing but a static program.
base() {
    mkdir "$work/debs"
    cd "$work/debs"
    apt-get -qq -o APT::Sandbox::User=root download busybox-static
    dpkg-deb -x busybox-static_*.deb tree
    cp tree/bin/busybox "$work/busybox"
}

# source NAME: a checkout of that name; the same bytes each time.
source_of() {
    local context=$work/context-$1
    mkdir -p "$context"
    cp "$work/busybox" "$context/busybox"
    [[ -e $context/source ]] || head -c "$source_bytes" /dev/urandom >"$context/source"
    # Contents alone make the key of a copied file: times do not.
    cat >"$context/Containerfile" <<'END'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY source /source
RUN /bin/busybox sha256sum /source >/built
END
}

# build NAME RUNNER: builds a source on a runner that has nothing yet; what it says goes to $work/built-RUNNER.
build_on() {
    local name=$1 runner=$2
    source_of "$name"
    rm -rf "${work:?}/$runner" "$work/$runner-run"
    buildah --root "$work/$runner" --runroot "$work/$runner-run" --storage-driver vfs build \
        --signature-policy "$work/policy.json" --isolation chroot --tls-verify=false --layers \
        --cache-to "$address/$repository" --cache-from "$address/$repository" -t "$name" "$work/context-$name" \
        >"$work/built-$runner" 2>&1 || { cat "$work/built-$runner"; return 1; }
    rm -rf "${work:?}/$runner" "$work/$runner-run"
}

# pulled RUNNER, pushed RUNNER: steps of its last build that came out of the cache, and that went into it.
pulled() { grep -c 'Cache pulled from remote' "$work/built-$1" || true; }
pushed() { grep -c 'Pushing cache' "$work/built-$1" || true; }

# The tag of the last step of a runner's build.
last_key() { grep -oE "(Pushing cache|Cache pulled from remote) [^ ]*:[0-9a-f]{64}" "$work/built-$1" | tail -n 1 | grep -oE '[0-9a-f]{64}$'; }

# is_there TAG: without pulling it.
is_there() { curl -sf "http://$address/v2/$repository/tags/list" | jq -e --arg tag "$1" '.tags | index($tag)' >/dev/null; }

used() { curl -sf "http://$address/api/v1/usage?repository=$repository" | jq .unique_bytes; }

set_policy() {
    ask policy set ci --pattern 'ci/*' --tag-pattern '*' --tag-pattern '!pinned-*' --size-max "$cap"
    ask policy explain "$repository"
}

first_build_fills() {
    build_on one r1
    [[ $(pushed r1) == 4 && $(pulled r1) == 0 ]]
    last_key r1 >"$work/key-one"
}

second_build_hits() {
    build_on one r2
    [[ $(pulled r2) == 4 && $(pushed r2) == 0 ]]
    [[ $(last_key r2) == "$(cat "$work/key-one")" ]]
}

other_source_shares() {
    build_on two r1
    [[ $(pulled r1) == 2 && $(pushed r1) == 2 ]]
    last_key r1 >"$work/key-two"
}

pin() {
    skopeo copy -q --src-tls-verify=false --dest-tls-verify=false \
        "docker://$address/$repository:$(cat "$work/key-two")" "docker://$address/$repository:pinned-two"
}

# watch_used FILE: what is used, again and again, until FILE is there, or the server is gone.
watch_used() {
    until [[ -e $1 ]]; do
        used >>"$work/used" || return 0
        sleep 0.05
    done
}

# Two runners at once build sources that nobody has built; between those, `one` is built again and again.
writers() {
    local round watcher
    rm -f "$work/over"
    watch_used "$work/over" &
    watcher=$!
    # After a restart it is known to the hour only when something was pulled before.
    build_on one r3
    [[ $(pulled r3) == 4 ]]
    for round in {1..8}; do
        build_on "a-$1-$round" r1 &
        build_on "b-$1-$round" r2
        wait $!
        # What all builds have in common is hit in each.
        (($(pulled r1) >= 2 && $(pulled r2) >= 2))
        build_on one r3
        [[ $(pulled r3) == 4 && $(pushed r3) == 0 ]]
        [[ $round != 1 ]] || last_key r1 >"$work/key-a-$1"
    done
    last_key r1 >"$work/key-late-$1"
    touch "$work/over"
    wait "$watcher"
}

# No image of a build has more than the common part, its source and some.
cap_held() {
    local most
    most=$(sort -n "$work/used" | tail -n 1)
    echo "used at most $most bytes of $cap in $(wc -l <"$work/used") looks"
    ((most <= cap + 1500000 && most > cap / 2))
    (($(used) <= cap))
}

# What was pulled again and again is there, and what came last; what came early and was not pulled is gone.
oldest_went() {
    is_there "$(cat "$work/key-one")"
    is_there "$(cat "$work/key-late-$1")"
    [[ ! $(is_there "$(cat "$work/key-a-$1")" && echo there) ]]
}

pinned_stays() {
    is_there pinned-two
    pull "docker://$address/$repository:pinned-two" "dir:$work/pinned-$1"
}

# Blobs of what was evicted are kept as long as clients may rely on them.
all_gone() {
    for _ in {1..60}; do
        [[ $(ask gc --status --json | jq -c '.due.link | [.count, .next_at]') != '[0,null]' ]] || return 0
        sleep 2
    done
    return 1
}

# rows FILE: how many rows each table has, but for what is kept a time after something went, and what grows with time only.
rows() {
    dump "$data" "$work/dump"
    cut -d' ' -f1 "$work/dump" | sort | uniq -c | awk '$2 !~ /^(drops|due-drops|dropped|reports|samples)$/ { print $2, $1 }' >"$1"
}

# No table has many more rows after as much again was written.
does_not_grow() {
    rows "$work/rows-second"
    join -a 1 -a 2 -e 0 -o 0,1.2,2.2 "$work/rows-first" "$work/rows-second" | tee "$work/rows"
    awk '$3 > $2 * 1.25 + 20 { print $1 " has grown from " $2 " to " $3; bad = 1 } END { exit bad }' "$work/rows"
}

check "a base is made of a Debian package" base
# What is due goes within a second, and blobs of what was evicted a minute after their upload.
export ORLOP_COLLECT_INTERVAL=1s ORLOP_REGISTRY_GRACE=1m
start_server "$data"
check "a policy caps the repository" set_policy
check "the first build pushes each step" first_build_fills
check "the same build on another runner pulls each step and pushes none" second_build_hits
check "a build of another source pulls what it has in common" other_source_shares
check "an image of it is pinned by a tag that the policy leaves alone" pin
check "two runners build at once, and one source again and again, which hits" writers first
check "the repository never uses more than its cap and an image" cap_held
check "what was pulled longest ago went, what was pulled again is there" oldest_went first
check "the pinned image is there, and can be pulled" pinned_stays first
check "what was evicted leaves the store" all_gone
stop_server || fail "the server ends cleanly" "$server_log"
check "rows are counted" rows "$work/rows-first"
start_server "$data"
check "as much is built again" writers second
check "the cap was held all the time" cap_held
check "what was pulled longest ago went again" oldest_went second
check "the pinned image is still there" pinned_stays second
check "the store is what it adds up to" ask verify
check "what was evicted leaves the store" all_gone
stop_server || fail "the server ends cleanly" "$server_log"
check "the index did not grow" does_not_grow
finish
