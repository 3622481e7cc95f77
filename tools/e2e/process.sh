#!/usr/bin/env bash
# The server as a process: it ends cleanly when asked, keeps others off its data, and syncs before it acknowledges.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_binaries

head -c 3000000 /dev/urandom >"$work/large"
head -c 3000 /dev/urandom >"$work/small"

ORLOP_HTTP_SHUTDOWN_GRACE=2s start_server "$work/data"
check "blobs are accepted" eval '[[ $(put_blob a/b "$work/large") == 201 && $(put_blob a/b "$work/small") == 201 ]]'

# second: its exit code goes to a file, as it ends in a subshell.
second() {
    local status=0
    timeout 30 "$orlop" serve --data "$work/data" --listen "127.0.0.1:$(free_port)" >"$work/second.log" 2>&1 || status=$?
    cat "$work/second.log"
    [[ $status == 2 ]] || { echo "exit code $status, not 2"; return 1; }
    grep -q "$work/data" "$work/second.log" || { echo "the message does not name the data directory"; return 1; }
}
[[ ${E2E_SERVER:-orlop} != orlop ]] || check "a second process on the same data is refused by name, exit code 2" second
check "the first process goes on" blob_is a/b "$work/large"

# A client that is in the middle of an upload must not keep the server from ending.
mkfifo "$work/slow"
(printf 'POST /v2/a/b/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nx'; sleep 45) >"$work/slow" &
bash -c 'exec 3<>"/dev/tcp/$1/$2"; cat "$3" >&3' _ "${address%:*}" "${address##*:}" "$work/slow" &
sleep 0.3
code=0
stop_server || code=$?
check "SIGTERM ends it with exit code 0" test "$code" = 0

start_server "$work/data"
check "what was pushed is there after the restart" eval 'blob_is a/b "$work/large" && blob_is a/b "$work/small"'
stop_server || true

# synced FILE: in a trace of the server, between the answer to the POST (202) and that to the PUT (201) lie a sync of a
# segment and after it one of a journal.
synced() {
    awk '
        / 202 Accepted/ { segment = journal = 0 }
        /(fdatasync|fsync)\([0-9]+<[^>]*\.segment>/ { segment = NR }
        /(fdatasync|fsync)\([0-9]+<[^>]*\.journal>/ { if (segment) journal = NR }
        / 201 Created/ { if (segment && journal > segment) good = 1; else bad = 1 }
        END { exit !(good && !bad) }' "$1" || { grep -E 'sync|HTTP/1.1 20' "$1" | cut -c1-160; return 1; }
}

traced_push() {
    [[ $(put_blob a/c "$work/$1") == 201 ]]
    # strace writes on its own time.
    sleep 0.5
    synced "$work/trace"
}

if [[ ${E2E_SERVER:-orlop} == orlop ]]; then
    for size in small large; do
        server_under=(strace -f -y -s 40 -o "$work/trace" -e 'trace=fsync,fdatasync,write,writev,sendto,sendmsg')
        start_server "$work/data-$size"
        check "a $size blob is acknowledged after its segment and then the journal are synced" traced_push "$size"
        # strace passes no signal on: the server is its child.
        pkill -KILL -P "$server_pid" || true
        kill_server
    done
fi
finish
