#!/usr/bin/env bash
# Every kind of work that the load generator measures, a little of each: all of it is done, and what comes back is what was
# pushed. It looks at no times.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_binaries

# measure WORK COUNT ARGUMENT…: so many pieces are done, and none fails.
measure() {
    local work=$1 count=$2 answer
    shift 2
    answer=$("$load" measure "$work" --address "$address" --count "$count" --clients 3 --server-pid "$server_pid" --json "$@")
    jq -e --argjson count "$count" '.errors == 0 and .work[0].count == $count' <<<"$answer"
}

refuses_a_used_seed() {
    local status=0
    "$load" measure push-small --address "$address" --count 1 --seed 3 2>"$work/refusal" || status=$?
    ((status == 2)) && grep -q 'name another' "$work/refusal"
}

tells_what_failed() {
    local status=0
    "$load" measure pull-small --address 127.0.0.1:1 --items 1 2>"$work/refusal" || status=$?
    ((status == 2)) && grep -q 'connecting' "$work/refusal"
}

start_server "$work/data"
check "push-large" measure push-large 4 --size 3000000 --seed 1
check "push-large-put" measure push-large-put 4 --size 3000000 --seed 2
check "push-small" measure push-small 50 --seed 3
check "pull-large" measure pull-large 6 --size 3000000
check "pull-small" measure pull-small 50 --items 20
check "pull-range" measure pull-range 50 --size 3000000
check "head-manifest" measure head-manifest 50 --items 20
check "get-manifest" measure get-manifest 50 --items 20
check "put-tag" measure put-tag 50
check "retag" measure retag 50
check "delete-manifest" measure delete-manifest 5 --items 20
if [[ ${E2E_SERVER:-orlop} == orlop ]]; then
    # Debian's registry lists all tags at once.
    check "list-tags" measure list-tags 50 --items 150 --repository load/tags
    check "mixed" measure mixed 200 --items 150 --repository load/mixed
fi
check "a seed that was used is refused" refuses_a_used_seed
check "a registry that is not there is told" tells_what_failed
stop_server || fail "the server ends cleanly" "$server_log"
finish
