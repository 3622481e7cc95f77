# shellcheck shell=bash disable=SC2034,SC2154
# What collecting costs in stores of two sizes, and what it does to who pulls and pushes meanwhile. Sourced by tools/bench.

# Deleted images of a collection, beside those that stay.
deleted=100

# pushed SERVER IMAGES KEY: pushes so many images and 100 more, and deletes these.
pushed() {
    "$load" collecting --address "${addresses[$1]}" --data "$dir" --only-delete --deleted $deleted --kept "$2" --seed "$3" \
        >/dev/null 2>"$work/load.err" || die "collecting: $1: $(tail -n 3 "$work/load.err")"
}

# ordered SERVER PATH BODY: an order of the admin API; prints the milliseconds until its answer, and leaves that in
# $work/answer.
ordered() {
    curl -sf -o "$work/answer" -w '%{time_total}' -H 'Content-Type: application/json' -d "$3" "http://${addresses[$1]}/api/v1/$2" |
        awk '{ print $1 * 1000 }'
}

# collect_orlop LINE: collects what was deleted, then nothing; online.
collect_orlop() {
    local ms
    ms=$(ordered orlop purge '{"organization":"deleted"}') || die "$1: the purge was refused"
    result "$1" orlop "$ms" "$(jq -c '{freed_bytes}' "$work/answer")"
    jq -e '.freed_bytes > 0' "$work/answer" >/dev/null || die "$1: nothing was collected: $(cat "$work/answer")"
    ms=$(ordered orlop collect '{}') || die "$1: the collection was refused"
    result "$1-nothing" orlop "$ms"
}

# collect_other LINE DATA: the same by docker-registry, which must not be written to meanwhile.
collect_other() {
    local began what
    docker_registry_config "$2" 127.0.0.1:1 >"$work/collect.yml"
    for what in "$1" "$1-nothing"; do
        began=$(now_ms)
        docker-registry garbage-collect "$work/collect.yml" >"$work/garbage.log" 2>&1 ||
            die "$what: docker-registry: $(tail -n 3 "$work/garbage.log")"
        result "$what" docker-registry $(($(now_ms) - began))
    done
}

collecting() {
    local images name server data temporary
    for images in $images_few $images_many; do
        note "collect-$images" ms "<100" "collect $deleted deleted images out of $images"
        note "collect-$images-nothing" ms "<10" "collect with nothing to do, $images images"
        for server in orlop docker-registry; do
            data=$dir/$server-$images temporary=$data
            # Docker's registry fills a directory in memory many times as fast; what it collects lies on the disk.
            if [[ $server != orlop ]] && (($(df --output=avail -B1M /dev/shm 2>/dev/null | tail -n 1) > 4096)); then
                in_memory=$(mktemp -d /dev/shm/orlop-bench.XXXXXX) temporary=$in_memory
            fi
            start "$server" "$temporary"
            "$load" collecting --address "${addresses[$server]}" --data "$dir" --only-delete --deleted 0 --kept "$images" \
                >/dev/null 2>"$work/load.err" || die "collecting: $server: $(tail -n 3 "$work/load.err")"
            end "$server"
            if [[ $temporary != "$data" ]]; then
                cp -a "$temporary" "$data"
                rm -rf "$temporary"
            fi
        done
    done
    for ((round = 1; round <= turns; round++)); do
        for images in $images_few $images_many; do
            name=collect-$images
            start orlop "$dir/orlop-$images"
            pushed orlop 1 "$((1 + round))"
            collect_orlop "$name"
            end orlop
            # Once: pushing and deleting a hundred images takes it longer than all that is measured here.
            ((round == 1)) || continue
            start docker-registry "$dir/docker-registry-$images"
            pushed docker-registry 1 "$((1 + round))"
            end docker-registry
            collect_other "$name" "$dir/docker-registry-$images"
        done
    done
    rm -rf "$dir"/{orlop,docker-registry}-{"$images_few","$images_many"}
    round=1
    under_load
}

# Pulls and pushes at a set rate, before and while images are collected and compacted.
under_load() {
    local kind figures options=(--deleted 500 --kept 200 --rounds 5 --seconds 4 --children 0)
    ! $quick || options=(--deleted 50 --kept 20 --rounds 1 --seconds 1 --children 0)
    start orlop "$dir/orlop-loaded"
    figures=$("$load" collecting --address "${addresses[orlop]}" --data "$dir/orlop-loaded" "${options[@]}" 2>"$work/load.err" | tail -n 1) ||
        die "under load: $(tail -n 3 "$work/load.err")"
    for kind in pull push; do
        note "under-load-$kind" times "<=1.2" "p99 of a $kind of an image while collecting and compacting, to that before" \
            "orlop-load collecting ${options[*]}"
        result "under-load-$kind" orlop "$(jq --arg kind "$kind" \
            '[.together[] | select(.phase == "at work" and .work == $kind and .count >= 50).p99_ratio] | first' <<<"$figures")" \
            "$(jq -c --arg kind "$kind" '[.together[] | select(.phase == "at work" and .work == $kind)] | first | {p50_ms, p99_ms}' <<<"$figures")"
    done
    end orlop
    rm -rf "$dir/orlop-loaded"
}
