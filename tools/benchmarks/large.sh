# shellcheck shell=bash disable=SC2034,SC2154
# A store of very many images, and a repository of as many tags: filled once, through the library. Sourced by tools/bench.

# The store is filled and its process killed; sets `filled`, a directory.
fill() {
    local filler
    filled=$dir/filled
    mkdir "$filled"
    : >"$work/fill.out"
    "$scale" "$filled" fill "$million" "$million" >"$work/fill.out" 2>"$work/fill.err" &
    filler=$!
    until grep -qx 'done' "$work/fill.out"; do
        kill -0 "$filler" 2>/dev/null || die "the store of $million is not filled: $(tail -n 3 "$work/fill.err")"
        sleep 0.2
    done
    kill -KILL "$filler"
    wait "$filler" 2>/dev/null || true
    filled=$filled/store
}

# at_work SECONDS: 64 clients that pull any image, and push and pull others.
at_work() {
    local pulls
    load orlop pull-filled --items "$million" --clients 48 --seconds "$1" --seed "$seed" >"$work/pulls" &
    pulls=$!
    seed=$((seed + 1))
    load orlop mixed --clients 16 --seconds "$1" --repository bench/mixed --seed "$seed" >"$work/mixed" ||
        die "a large store: $(cat "$work/load.err")"
    wait "$pulls" || die "pulls of any of $million images: $(cat "$work/pulls")"
}

# What very many blobs and tags take of the disk, each kind in a store of its own: of few, what is reserved ahead would be
# most of it.
each() {
    local kind what name unit count value goal
    mkdir "$dir/each"
    "$scale" "$dir/each" each "$1" >"$work/each.out" 2>"$work/each.err" || die "each: $(tail -n 3 "$work/each.err")"
    for kind in 'blob disk <300' 'blob index <=200' 'tag disk <500' 'tag index -'; do
        read -r kind what goal <<<"$kind"
        IFS=$'\t' read -r _ name unit count value < <(grep "$what for each $kind" "$work/each.out")
        note "$kind-$what-of-many" "$unit" "$goal" "$name, $count of them" "cargo bench --bench scale -- DIR each $1"
        result "$kind-$what-of-many" orlop "$value"
    done
    rm -rf "$dir/each"
}

large() {
    each $((million / 10))
    fill
    say "filled: $(sed -n 's/^point\t//p' "$work/fill.out" | tr '\t' ' ')"
    note start-killed ms "<5000" "start to first answer, $million blobs and manifests, after kill -9"
    note start-clean ms "<500" "the same, after a clean end"
    note memory-large mib-resident "<300" "most memory with $million blobs and manifests, 64 clients at work"
    note pull-filled ops - "pull a manifest and its config, any of $million images, 48 of 64 clients" \
        "pull-filled --items $million --clients 48"
    for ((round = 1; round <= turns; round++)); do
        start orlop "$filled"
        result start-killed orlop "$started_ms"
        at_work $((seconds + 1))
        end orlop KILL
    done
    for ((round = 1; round <= turns; round++)); do
        start orlop "$filled"
        result start-clean orlop "$started_ms"
        end orlop
    done
    round=1
    start orlop "$filled"
    at_work $((5 * seconds))
    result memory-large orlop "$(memory_mib VmHWM orlop)"
    result pull-filled orlop "$(jq .work[0].per_second "$work/pulls")" \
        "$(jq -c '{p50_ms: (.work[0].p50_us / 1000), p99_ms: (.work[0].p99_us / 1000)}' "$work/pulls")"
    note list-large ops ">=15000" "a page of 100 tags out of $million, 16 clients" \
        "list-tags --clients 16 --seconds $seconds --repository bench/million --items $million"
    note collect-large ms "<100 collect-$images_few*0.67" "collect $deleted deleted images out of $million"
    note collect-large-nothing ms "<10 collect-$images_few-nothing*0.67" "collect with nothing to do, $million images"
    for ((round = 1; round <= turns; round++)); do
        take list-large ops orlop list-tags --clients 16 --seconds "$seconds" --repository bench/million --items "$million"
        pushed orlop 1 "$((100 + round))"
        collect_orlop collect-large
    done
    round=1
    end orlop
    rm -rf "$dir/filled"
}
