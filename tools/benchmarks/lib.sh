# shellcheck shell=bash disable=SC2034,SC2154
# What the parts of tools/bench share: servers that are started, loaded and killed, and figures that are written down.
# Sourced, never run. `dir` is the directory on the disk that is measured, `work` one for files of our own.

# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.sh"

declare -A addresses pids
# Lines of the report, and the figures of all rounds, as JSON.
lines=$work/lines results=$work/results round=1 seed=0 arguments='' busy_before=0
: >"$lines"
: >"$results"

# Jiffies of all CPUs so far: idle ones, and all.
jiffies() { awk '/^cpu / { print $5 + $6, $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9; exit }' /proc/stat; }

# How busy the machine is with something else, in percent; before the build, which is a load itself.
look_busy() {
    local idle_before all_before idle_after all_after
    read -r idle_before all_before < <(jiffies)
    sleep 3
    read -r idle_after all_after < <(jiffies)
    busy_before=$((100 - 100 * (idle_after - idle_before) / (all_after - all_before)))
}

# take_place GIB: makes `dir` a new directory below what it names, if so much is free there.
take_place() {
    local free_gib
    free_gib=$(($(df --output=avail -B1G "$dir" | tail -n 1)))
    ((free_gib >= $1)) || die "$dir has $free_gib GiB free, and $1 are needed; name another place by --dir"
    dir=$(mktemp -d "$dir/orlop-bench.XXXXXX")
    trap 'cleanup; rm -rf "$dir" "${in_memory:-$dir}"' EXIT
}

# need_scale: builds the bench that fills stores through the library, unless the environment says where it is; sets `scale`.
need_scale() {
    scale=${E2E_SCALE:-}
    [[ -z $scale ]] || return 0
    prepare bench
    scale=$(build --bench scale --message-format=json | jq -r 'select(.target.name? == "scale" and .executable?) | .executable')
    [[ -x $scale ]] || die "the bench scale was not built"
}

# note NAME UNIT GOALS TITLE [COMMAND]: describes a line, once. UNIT is `mib`, `ops`, `ms`, `us`, `bytes`, `mib-resident`,
# `times` or `number`. GOALS are words, `-` for none: `docker-registry*3`, `nginx*0.7`, `limit*0.7` or another line's name
# say how many times better than that orlop has to be; `<50` and `>15000` what its figure has to be.
note() {
    ! grep -qF "\"name\":\"$1\"," "$lines" || return 0
    jq -cn --arg name "$1" --arg unit "$2" --arg goals "$3" --arg title "$4" --arg command "${5:-}" '$ARGS.named' >>"$lines"
}

# result LINE SERVER VALUE [JSON]: one measured value, or null. SERVER is `limit` for what the machine can do at most.
result() {
    jq -cn --arg line "$1" --arg server "$2" --argjson value "$3" --argjson more "${4:-{\}}" --argjson round "$round" \
        '{round: $round, line: $line, server: $server, value: $value} + $more' >>"$results"
}

launch_orlop() { exec "$orlop" serve --data "${data:-$dir/orlop}" --listen "$1"; }

launch_docker-registry() {
    docker_registry_config "${data:-$dir/docker-registry}" "$1" >"$work/docker-registry.yml"
    exec docker-registry serve "$work/docker-registry.yml"
}

launch_nginx() {
    mkdir -p "$dir/nginx"
    local user='' temp kind
    # Its workers would otherwise be somebody who may not read here.
    [[ $(id -u) != 0 ]] || user='user root;'
    temp=$(for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $work/nginx-temp;"; done)
    cat >"$work/nginx.conf" <<END
daemon off; pid $work/nginx.pid; error_log $work/nginx.error; worker_processes auto; $user
events { worker_connections 1024; }
http {
    sendfile on; access_log off; default_type application/octet-stream; keepalive_requests 1000000000; $temp
    server { listen $1; root $dir/nginx; }
}
END
    exec nginx -c "$work/nginx.conf"
}

# answers HOST:PORT: whether something there answers a request; much quicker to ask than by a program.
answers() {
    local status
    { exec 3<>"/dev/tcp/${1%:*}/${1##*:}"; } 2>/dev/null || return 1
    printf 'GET /v2/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$1" >&3
    read -r -t 60 status <&3 || true
    exec 3>&-
    [[ $status == 'HTTP/1.1 '* ]]
}

# start SERVER [DATA]: on a directory of its own, or on that one. Sets `started_ms`, how long until it answered.
start() {
    local began deadline=$((SECONDS + 120)) data=${2:-}
    addresses[$1]=127.0.0.1:$(free_port)
    began=$(date +%s%N)
    NO_COLOR=1 "launch_$1" "${addresses[$1]}" >"$work/$1.log" 2>&1 &
    pids[$1]=$!
    until answers "${addresses[$1]}"; do
        kill -0 "${pids[$1]}" 2>/dev/null && ((SECONDS < deadline)) || die "$1 does not start: $(tail -n 3 "$work/$1.log")"
        sleep 0.002
    done
    started_ms=$((($(date +%s%N) - began) / 1000000))
}

memory_mib() { awk -v field="$1:" '$1 == field { print int($2 / 1024) }' "/proc/${pids[$2]}/status"; }

# end SERVER [SIGNAL]: told to end, or killed.
end() {
    kill "-${2:-TERM}" "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
}

# load SERVER ARGUMENT…: the load generator against a server; prints JSON.
load() {
    local server=$1 pid more=()
    shift
    for pid in "${pids[$server]}" $(pgrep -P "${pids[$server]}" || true); do more+=(--server-pid "$pid"); done
    [[ $server != nginx ]] || more+=(--files "$dir/nginx")
    "$load" measure "$@" --address "${addresses[$server]}" --json "${more[@]}" 2>"$work/load.err"
}

# take LINE UNIT SERVER ARGUMENT…: measures one line of work by one server. One that fails has no figure, and says why.
take() {
    local line=$1 unit=$2 server=$3 answer
    shift 3
    answer=$(load "$server" "$@") || [[ -n $answer ]] || die "$line: $server: $(tail -n 3 "$work/load.err")"
    result "$line" "$server" "$(jq --arg unit "$unit" '
        if .errors > 0 then null
        elif $unit == "mib" then .work[0].mib_per_second
        elif $unit == "ms" then .work[0].p50_us / 1000
        else .work[0].per_second end' <<<"$answer")" "$(jq -c --arg wrong "$(cat "$work/load.err")" '
        {p50_ms: (.work[0].p50_us / 1000), p99_ms: (.work[0].p99_us / 1000), client_cpu_us, server_cpu_us}
        + if .errors > 0 then {$wrong} else {} end' <<<"$answer")"
}

# What the figures depend on, as JSON.
machine() {
    local model system
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    system=$(df --output=fstype,source "$dir" | tail -n 1 | tr -s ' ')
    jq -n --arg cpu "${model:-unknown}, $(nproc) cores" --arg memory "$(free -g | awk '/^Mem/ { print $2 }') GiB" \
        --arg kernel "$(uname -sr), $(cat /proc/sys/net/ipv4/tcp_congestion_control 2>/dev/null || echo 'an unknown TCP')" --arg disk "$system, $(findmnt -no OPTIONS -T "$dir")" \
        --arg system "$(. /etc/os-release && echo "$PRETTY_NAME")" \
        --arg orlop "$("$orlop" --version | cut -d' ' -f2), $(revision), $(rustc --version 2>/dev/null || echo 'rustc unknown')" \
        --arg registry "$(docker-registry --version 2>/dev/null | cut -d' ' -f3)" --arg nginx "$(nginx -v 2>&1 | cut -d/ -f2)" \
        --arg date "$(date -u +%F)" --arg command "tools/bench${arguments:+ $arguments}" --argjson busy "$busy_before" \
        --argjson rounds "${done_rounds:-1}" --argjson wanted "${rounds:-1}" --argjson seconds "$SECONDS" '$ARGS.named'
}

revision() {
    local changed=''
    git -C "$root" diff --quiet HEAD -- . ':!BENCHMARKS.md' ':!benches/plots' 2>/dev/null || changed=' with changes'
    echo "commit $(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$changed"
}

# The line of BENCHMARKS.md from which on it is about size; each run keeps what the other one wrote.
scale_heading='# By size'

# write_report PART PROGRAM: makes the part `table` or `scale` of BENCHMARKS.md anew from lines and results.
write_report() {
    machine >"$work/machine"
    jq -rn --slurpfile machine "$work/machine" --slurpfile lines "$lines" \
        --slurpfile results "$results" "$(cat "$root/tools/benchmarks/"{figures,"$1"}.jq)" >"$work/$1.md"
    touch "$out"
    if [[ $1 == table ]]; then
        sed -n "/^$scale_heading\$/,\$p" "$out" >"$work/scale.md"
    else
        sed "/^$scale_heading\$/,\$d" "$out" >"$work/table.md"
    fi
    # A blank line between them.
    sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' "$work/table.md" >"$work/report"
    [[ ! -s $work/scale.md ]] || { [[ ! -s $work/report ]] || echo; cat "$work/scale.md"; } >>"$work/report"
    cp "$work/report" "$out"
}
