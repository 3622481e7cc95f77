# shellcheck shell=bash
# What the scripts with real clients share: clients that use and change nothing of the machine's own container
# configuration and storage, and the comparison of what they brought back. Sourced after lib.sh, never run.

# shellcheck disable=SC2154 # work is lib.sh's
echo '{ "default": [{ "type": "insecureAcceptAnything" }] }' >"$work/policy.json"
: >"$work/registries.conf"
export CONTAINERS_REGISTRIES_CONF=$work/registries.conf

# plain skopeo is shadowed by this, with the settings that every call needs.
skopeo() { command skopeo --policy "$work/policy.json" "$@"; }

# storage NAME COMMAND…: buildah with a storage of that name.
storage() {
    local name=$1 command=$2
    shift 2
    local policy=()
    case $command in push | pull | commit | bud) policy=(--signature-policy "$work/policy.json") ;; esac
    buildah --root "$work/$name" --runroot "$work/$name-run" --storage-driver vfs "$command" "${policy[@]}" "$@"
}

push() { skopeo copy -q --dest-tls-verify=false "$@"; }
pull() { skopeo copy -q --src-tls-verify=false "$@"; }

# same_layout A B: two OCI layouts have the same blobs, and these the digests that they are named by.
same_layout() {
    diff -r "$1/blobs" "$2/blobs"
    (cd "$2/blobs/sha256" && for blob in *; do echo "$blob  $blob"; done | sha256sum --quiet -c)
}
