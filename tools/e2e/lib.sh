# shellcheck shell=bash
# What the end-to-end scripts share: a server of their own to start, kill and look at, and checks that are counted.
# Sourced, never run. Each check prints one line `ok: …` or `FAILED: …`; tools/test adds them up.
#
# E2E_SERVER=docker-registry puts Debian's registry in orlop's place: a script that fails against it too is itself wrong.

# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/orlop-e2e.XXXXXX")
failures=0 starts=0
# What start_server sets for the scripts.
# shellcheck disable=SC2034
server_pid='' server_data='' server_log='' address='' start_ms='' launched_ms=''

# Ends what this script left running, and removes what it made.
cleanup() {
    local pid
    trap - EXIT
    # Bash tells of every job that is killed, and when it does is not known.
    exec 2>/dev/null
    for pid in $(jobs -p); do kill -KILL "$pid" || true; done
    wait || true
    sweep "$work"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 143' TERM INT HUP

# need_binaries [PURPOSE]: builds what the scripts run, unless tools/test has done it and says where it is.
need_binaries() {
    if [[ -z ${E2E_ORLOP:-} || -z ${E2E_LOAD:-} ]]; then
        prepare "${1:-test}"
        build --workspace --bins >&2
    fi
    # shellcheck disable=SC2034 # for the scripts
    orlop=${E2E_ORLOP:-$CARGO_TARGET_DIR/release/orlop} load=${E2E_LOAD:-$CARGO_TARGET_DIR/release/orlop-load}
}

now_ms() { date +%s%3N; }

free_port() {
    local port
    while true; do
        # Below the range from which the system gives ports to clients.
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

ok() { echo "ok: $*"; }

# fail NAME [FILE]: with the end of a file that explains it.
fail() {
    failures=$((failures + 1))
    echo "FAILED: $1"
    [[ -z ${2:-} ]] || tail -n 30 "$2" | sed 's/^/    /'
}

# check NAME COMMAND…: runs the command in a subshell that stops at the first error. It cannot set variables of this shell.
check() {
    local name=$1 status
    shift
    set +e
    # Not in a condition: bash would switch `set -e` off inside. Traced, so that the log ends with what failed.
    (set -ex; "$@") >"$work/check.log" 2>&1
    status=$?
    set -e
    if ((status == 0)); then ok "$name"; else fail "$name (status $status)" "$work/check.log"; fi
}

# Ends the script with its verdict.
finish() { exit $((failures > 0)); }

# start_server DATA [ARGUMENT…]: starts a server on a data directory and waits until it answers. Sets address, server_pid,
# server_log and start_ms, the time from the start of the process to its first answer.
start_server() {
    launch_server "$@"
    if ! await_server; then
        fail "a server starts on $server_data" "$server_log"
        exit 1
    fi
}

launch_server() {
    server_data=$1
    shift
    starts=$((starts + 1))
    server_log=$work/server-$starts.log address=127.0.0.1:$(free_port)
    launched_ms=$(now_ms)
    if [[ ${E2E_SERVER:-orlop} == docker-registry ]]; then
        docker_registry_config "$server_data" "$address" >"$work/docker-registry.yml"
        docker-registry serve "$work/docker-registry.yml" >"$server_log" 2>&1 &
    else
        NO_COLOR=1 "${server_under[@]}" "$orlop" serve --data "$server_data" --listen "$address" "$@" >"$server_log" 2>&1 &
    fi
    server_pid=$!
}
# What the server runs under, for instance strace.
server_under=()

await_server() {
    local deadline=$(($(now_ms) + 60000))
    until curl -sf -o /dev/null --max-time 5 "http://$address/v2/"; do
        kill -0 "$server_pid" 2>/dev/null && (($(now_ms) < deadline)) || return 1
        sleep 0.01
    done
    # shellcheck disable=SC2034 # for the scripts
    start_ms=$(($(now_ms) - launched_ms))
}

# What the server's log says about its start: what was replayed, cut, and how long that took.
replayed() { sed -n 's/.*\(replayed_records=.*\)/\1/p' "$server_log" | head -n 1; }

docker_registry_config() {
    cat <<EOF
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $1 }, delete: { enabled: true } }
http: { addr: "$2" }
EOF
}

# stop_server: SIGTERM, and waits at most 60 s; returns the server's exit code.
stop_server() {
    local status=0 deadline=$(($(now_ms) + 60000))
    kill -TERM "$server_pid"
    while kill -0 "$server_pid" 2>/dev/null && (($(now_ms) < deadline)); do sleep 0.01; done
    kill -KILL "$server_pid" 2>/dev/null || true
    wait "$server_pid" || status=$?
    # Docker's registry knows no clean end.
    [[ ${E2E_SERVER:-orlop} == orlop ]] || status=0
    return "$status"
}

# kill_server: as a power cut would end the process; bash is kept from reporting the death of a job.
kill_server() {
    # It may be gone already, with a tracer that was its parent.
    kill -KILL "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
}

# dump DATA FILE: the logical state of a store that nobody serves.
dump() {
    if [[ ${E2E_SERVER:-orlop} == orlop ]]; then
        NO_COLOR=1 "$orlop" dump --data "$1" >"$2"
    else
        (cd "$1" && find . -name link | sort) >"$2"
    fi
}

# status METHOD PATH [CURL ARGUMENT…]: the status code of one request; the body goes to $work/body.
status() {
    local method=$1 path=$2
    shift 2
    [[ $method != HEAD ]] || set -- --head "$@"
    curl -s --max-time 60 -o "$work/body" -w '%{http_code}' -X "$method" "http://$address$path" "$@"
}

digest_of() { echo "sha256:$(sha256sum <"$1" | cut -d' ' -f1)"; }

# put_blob REPOSITORY FILE: pushes a file as a blob with POST and PUT; prints the last status code.
put_blob() {
    local location separator='?'
    location=$(curl -s --max-time 60 -o "$work/body" -D - -X POST "http://$address/v2/$1/blobs/uploads/" |
        tr -d '\r' | sed -n 's/^[Ll]ocation: *//p')
    if [[ -z $location ]]; then
        # Refused already; the same request again tells how.
        status POST "/v2/$1/blobs/uploads/"
        return
    fi
    location=/${location#*://*/}
    [[ $location != //* ]] || location=${location#/}
    [[ $location != *\?* ]] || separator='&'
    status PUT "$location${separator}digest=$(digest_of "$2")" -H 'Content-Type: application/octet-stream' -T "$2"
}

# blob_is REPOSITORY FILE: whether the registry serves the blob, byte for byte.
blob_is() {
    [[ $(status GET "/v2/$1/blobs/$(digest_of "$2")") == 200 ]] && cmp "$work/body" "$2"
}
