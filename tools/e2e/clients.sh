#!/usr/bin/env bash
# Every client that can be installed, each in its own words: what it pushes comes back, what it lists and deletes is so.
# Big images and their bytes are images.sh's; here is the breadth.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_binaries
# shellcheck source=tools/e2e/containers.sh
. "$(dirname "${BASH_SOURCE[0]}")/containers.sh"
# shellcheck source=tools/e2e/docker.sh
. "$(dirname "${BASH_SOURCE[0]}")/docker.sh"
# shellcheck source=tools/e2e/artifacts.sh
. "$(dirname "${BASH_SOURCE[0]}")/artifacts.sh"

# podman with a storage of its own, and none of the machine's configuration.
podman_alone() {
    CONTAINERS_CONF=/dev/null command podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs \
        --cgroup-manager cgroupfs --events-backend none "$@"
}

# What skopeo says of a repository's tags, and of the digest behind one of them.
tags() { skopeo list-tags --tls-verify=false "docker://$address/$1" | jq -c .Tags; }
digest() { skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$address/$1"; }

# An OCI layout with a small image `app`, and the tree of its file system.
make_image() {
    mkdir -p "$work/tree/bin" "$work/tree/etc"
    head -c 300000 /dev/urandom >"$work/tree/bin/tool"
    chmod 4755 "$work/tree/bin/tool"
    ln -s tool "$work/tree/bin/link"
    echo one >"$work/tree/etc/name"
    umoci init --layout "$work/layout"
    umoci new --image "$work/layout:app"
    umoci unpack --rootless --image "$work/layout:app" "$work/bundle"
    cp -a "$work/tree/." "$work/bundle/rootfs/"
    umoci repack --refresh-bundle --image "$work/layout:app" "$work/bundle"
    umoci config --image "$work/layout:app" --config.label made=by-umoci
}

skopeo_copies() {
    local digest
    push --digestfile "$work/digest" "oci:$work/layout:app" "docker://$address/skopeo/app:one"
    digest=$(cat "$work/digest")
    push "oci:$work/layout:app" "docker://$address/skopeo/app:two"
    # Within the registry: the blobs are mounted, and the manifest keeps its digest.
    skopeo copy -q --src-tls-verify=false --dest-tls-verify=false \
        "docker://$address/skopeo/app@$digest" "docker://$address/other/app:copied"
    [[ $(digest other/app:copied) == "$digest" ]]
    # By digest instead of by tag, and into an archive and back.
    pull "docker://$address/skopeo/app@$digest" "dir:$work/by-digest"
    [[ $(digest_of "$work/by-digest/manifest.json") == "$digest" ]]
    pull "docker://$address/skopeo/app:two" "docker-archive:$work/archive.tar:app:two"
    push "docker-archive:$work/archive.tar" "docker://$address/skopeo/archive:two"
}

skopeo_inspects() {
    local reference=docker://$address/skopeo/app:one
    skopeo inspect --tls-verify=false "$reference" >"$work/inspected"
    jq -e --arg digest "$(cat "$work/digest")" \
        '.Digest == $digest and .RepoTags == ["one", "two"] and (.Layers | length) == 1' "$work/inspected"
    skopeo inspect --tls-verify=false --config "$reference" | jq -e '.config.Labels.made == "by-umoci"'
    [[ $(tags skopeo/app) == '["one","two"]' ]]
}

# A registry to a directory, that directory to a registry, and one registry to another name in it.
skopeo_syncs() {
    local repository
    skopeo sync -a --scoped --src docker --dest dir --src-tls-verify=false "$address/skopeo/app" "$work/synced"
    skopeo sync -a --src dir --dest docker --dest-tls-verify=false "$work/synced/$address/skopeo" "$address/from-dir"
    skopeo sync -a --src docker --dest docker --src-tls-verify=false --dest-tls-verify=false \
        "$address/skopeo/app" "$address/from-docker"
    for repository in from-dir/app from-docker/app; do
        [[ $(tags "$repository") == '["one","two"]' ]]
        [[ $(digest "$repository:two") == "$(cat "$work/digest")" ]]
    done
    # Nothing is new the second time.
    skopeo sync -a --src dir --dest docker --dest-tls-verify=false "$work/synced/$address/skopeo" "$address/from-dir"
}

# skopeo deletes the manifest behind a tag: its other tags go with it, other repositories keep theirs.
skopeo_deletes() {
    skopeo delete --tls-verify=false "docker://$address/from-dir/app:one"
    [[ $(tags from-dir/app) == '[]' ]]
    if skopeo delete --tls-verify=false "docker://$address/from-dir/app:one"; then return 1; fi
    if pull "docker://$address/from-dir/app:two" "dir:$work/deleted"; then return 1; fi
    pull "docker://$address/from-docker/app:two" "dir:$work/kept"
}

umoci_reads() {
    pull "docker://$address/skopeo/app:one" "oci:$work/umoci-back:app"
    umoci stat --image "$work/umoci-back:app" --json | jq -e '.history | length > 0'
    umoci unpack --rootless --image "$work/umoci-back:app" "$work/umoci-bundle"
    diff -r --no-dereference "$work/bundle/rootfs" "$work/umoci-bundle/rootfs"
    umoci tag --image "$work/umoci-back:app" again
    umoci gc --layout "$work/umoci-back"
    push --all "oci:$work/umoci-back:again" "docker://$address/umoci/app:again"
}

# Builds on an image that the registry has, in both formats; the layer that both share is pushed once.
buildah_builds() {
    local format
    mkdir "$work/context"
    echo two >"$work/context/name"
    printf 'FROM %s/skopeo/app:one\nCOPY name /etc/name\nLABEL made=by-buildah\n' "$address" >"$work/context/Containerfile"
    for format in oci docker; do
        storage built bud --tls-verify=false --isolation chroot --format "$format" -t "built-$format" "$work/context"
        storage built push --tls-verify=false --digestfile "$work/built-digest" "built-$format" "docker://$address/buildah/app:$format"
        skopeo inspect --tls-verify=false --raw "docker://$address/buildah/app:$format" >"$work/raw"
        [[ $(digest_of "$work/raw") == "$(cat "$work/built-digest")" ]]
        jq -e --arg format "$format" '.mediaType | contains($format)' "$work/raw"
        storage pulled pull --tls-verify=false "docker://$address/buildah/app@$(cat "$work/built-digest")"
    done
}

# A list of two platforms goes there whole, and one platform's image comes back from it.
buildah_lists() {
    local arch format
    storage built manifest create list
    for arch in amd64 arm64; do
        echo "$arch" >"$work/context/name"
        printf 'FROM scratch\nCOPY name /name\n' >"$work/context/Containerfile"
        storage built bud --isolation chroot --arch "$arch" -t "only-$arch" "$work/context"
        storage built manifest add list "containers-storage:[vfs@$work/built+$work/built-run]localhost/only-$arch"
    done
    for format in oci v2s2; do
        storage built manifest push --all --tls-verify=false --format "$format" list "docker://$address/buildah/list:$format"
        skopeo inspect --tls-verify=false --raw "docker://$address/buildah/list:$format" |
            jq -e '[.manifests[].platform.architecture] == ["amd64", "arm64"]'
        storage pulled pull --tls-verify=false --arch arm64 "docker://$address/buildah/list:$format"
    done
}

podman_pushes() {
    tar -C "$work/tree" -cf "$work/tree.tar" .
    podman_alone import "$work/tree.tar" made
    podman_alone push --tls-verify=false --digestfile "$work/podman-digest" made "docker://$address/podman/app:one"
    podman_alone push --tls-verify=false --compression-format zstd made "docker://$address/podman/app:zstd"
    podman_alone rmi made
    podman_alone pull --tls-verify=false "docker://$address/podman/app:one"
    podman_alone pull --tls-verify=false "docker://$address/podman/app@$(cat "$work/podman-digest")"
    podman_alone save --format oci-archive -o "$work/podman.tar" "$address/podman/app:one"
    pull "oci-archive:$work/podman.tar" "oci:$work/podman-layout:app"
    umoci unpack --rootless --image "$work/podman-layout:app" "$work/podman-bundle"
    diff -r --no-dereference "$work/tree" "$work/podman-bundle/rootfs"
}

podman_lists() {
    podman_alone manifest create list
    podman_alone manifest add --tls-verify=false --arch arm64 list "docker://$address/podman/app:one"
    podman_alone manifest add --tls-verify=false --arch amd64 list "docker://$address/skopeo/app:one"
    podman_alone manifest push --all --tls-verify=false list "docker://$address/podman/list:latest"
    skopeo inspect --tls-verify=false --raw "docker://$address/podman/list:latest" |
        jq -e '[.manifests[].platform.architecture] == ["arm64", "amd64"]'
    podman_alone pull --tls-verify=false --arch arm64 "docker://$address/podman/list:latest"
    # The names of a repository's tags, and of the registry's repositories.
    podman_alone search --tls-verify=false --list-tags "$address/podman/app" | grep -wF "$address/podman/app  zstd"
    podman_alone search --tls-verify=false "$address/" | grep -F "$address/podman/list"
}

check "umoci makes an image" make_image
start_server "$work/data"
check "skopeo copies in, within and out" skopeo_copies
check "skopeo inspects an image and lists tags" skopeo_inspects
check "skopeo syncs out, in and across" skopeo_syncs
check "skopeo deletes" skopeo_deletes
check "umoci unpacks what came back and it goes in again" umoci_reads
check "buildah builds on an image of the registry, pushes and pulls OCI and Docker" buildah_builds
check "buildah pushes manifest lists and pulls one platform" buildah_lists
check "podman pushes, pulls by tag and digest, and has the same files" podman_pushes
check "podman pushes a manifest list, and finds tags and repositories" podman_lists
docker_checks
artifact_checks
stop_server || fail "the server ends cleanly" "$server_log"
finish
