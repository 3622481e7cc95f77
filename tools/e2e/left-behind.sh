#!/usr/bin/env bash
# An experiment that is killed leaves nothing behind: no process, no mount, no loop device. Neither when the program that
# cuts is killed below its script, nor when the script is, and who started that sweeps up.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ $(id -u) != 0 || ! -e /dev/fuse ]] || ! losetup -f >/dev/null 2>&1; then
    echo "not run: it needs root, /dev/fuse and loop devices"
    exit 0
fi
need_binaries
mkdir "$work/below"

# on_it: the processes that name the directory of the experiment; of the program that cuts those that have it as its work.
on_it() {
    local path words
    for path in /proc/[0-9]*; do
        { mapfile -d '' -t words <"$path/cmdline"; } 2>/dev/null || continue
        [[ " ${words[*]}" != *" $work/below/"* ]] || echo "${path#/proc/} ${words[*]}"
    done
}
mounts() { grep -F " $work/below/" /proc/mounts || true; }
devices() { losetup -l -n -O NAME,BACK-FILE | grep -F " $work/below/" || true; }

# begin: an experiment that goes on for ever; waits until its server runs. Sets script and cutter.
begin() {
    local deadline=$(($(now_ms) + 60000))
    TMPDIR=$work/below "$root/tools/power-cut" ext4 100000 1 >"$work/cuts.log" 2>&1 &
    script=$!
    until [[ $(on_it) == *" serve "* ]]; do
        (($(now_ms) < deadline)) || { cat "$work/cuts.log"; return 1; }
        sleep 0.1
    done
    # A child that it has just begun looks like it, for a moment.
    cutter=$(on_it | awk '/ blocks --fs / { print $1 }' | sort -n | sed -n 1p)
    [[ -n $(mounts) && -n $(devices) ]]
}

nothing_left() {
    local deadline=$(($(now_ms) + 10000))
    while [[ -n $(on_it)$(mounts)$(devices) ]]; do
        (($(now_ms) < deadline)) || { on_it; mounts; devices; return 1; }
        sleep 0.1
    done
}

killed_below_its_script() {
    local status=0
    begin
    kill -KILL "$cutter"
    wait "$script" || status=$?
    cat "$work/cuts.log"
    [[ $status == 1 ]]
    nothing_left
}

killed_with_its_script() {
    begin
    kill -KILL "$script" "$cutter"
    wait "$script" || true
    [[ -n $(mounts) ]]
    sweep "$work/below"
    nothing_left
}

check "a killed orlop-cut leaves nothing behind when its script ends" killed_below_its_script
check "what a killed script leaves is swept up" killed_with_its_script
finish
