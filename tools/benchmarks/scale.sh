# shellcheck shell=bash disable=SC2034,SC2154
# What things cost by how much is stored: one store that grows, and a CI day by day, both through the library. Sourced by
# tools/bench.

# Where the report's links lead.
plots=$(dirname "$out")/benches/plots
points=$plots/points.tsv

# scaled NAME ARGUMENT…: runs the bench until it says that it is done, then kills it, as that is part of what is measured.
scaled() {
    local name=$1 pid
    shift
    : >"$work/$name.out"
    "$scale" "$dir" "$@" >"$work/$name.out" 2>"$work/$name.err" &
    pid=$!
    until grep -qx 'done' "$work/$name.out"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            wait "$pid" || die "$name: $(tail -n 3 "$work/$name.err")"
            break
        fi
        sleep 0.2
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    sed -n 's/^point\t//p' "$work/$name.out" >>"$work/points"
    say "$name: $SECONDS s"
}

# Some 3 kB for each image; what the days take is gone by then.
largest=${sizes##*,}
take_place $((largest * 5 / 1000000 + days_tags / 150 + 5))
SECONDS=0
scaled days days "$days" "$days_tags"
from=0
for size in ${sizes//,/ }; do
    scaled "$size" at "$size" "$from"
    from=$size
done
scaled opened opened "$from"

mkdir -p "$plots"
cp "$work/points" "$points"
"$root/tools/benchmarks/plot" "$points" "$plots"
jq -Rn --argjson days "$days" --argjson tags "$days_tags" '{days: $days, tags: $tags}' >"$lines"
jq -Rc 'split("\t") | {name: .[0], unit: .[1], size: (.[2] | tonumber), value: (.[3] | tonumber)}' "$points" >"$results"
write_report scale
say "wrote $out and $plots"
