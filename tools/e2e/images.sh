#!/usr/bin/env bash
# Real images, made of Debian packages, pushed by one client, pulled by another, and compared bit for bit.
set -euo pipefail
# shellcheck source=tools/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_binaries
# shellcheck source=tools/e2e/containers.sh
. "$(dirname "${BASH_SOURCE[0]}")/containers.sh"

# Files of three Debian packages, so that there are links, modes, owners, small files and a large one.
packages() {
    mkdir "$work/debs"
    cd "$work/debs"
    apt-get -qq -o APT::Sandbox::User=root download busybox-static base-files tzdata
    for deb in *.deb; do dpkg-deb -x "$deb" "$work/tree-${deb%%_*}"; done
}

# An OCI layout with an image `app` of three layers; the last one removes a file of the first.
umoci_image() {
    umoci init --layout "$work/umoci"
    umoci new --image "$work/umoci:app"
    umoci unpack --rootless --image "$work/umoci:app" "$work/bundle"
    for layer in base-files busybox-static tzdata; do
        cp -a "$work/tree-$layer/." "$work/bundle/rootfs/"
        [[ $layer != tzdata ]] || rm "$work/bundle/rootfs/etc/debian_version"
        umoci repack --refresh-bundle --image "$work/umoci:app" "$work/bundle"
    done
    umoci config --image "$work/umoci:app" --config.cmd /bin/busybox
    [[ $(skopeo inspect --raw "oci:$work/umoci:app" | jq '.layers | length') == 3 ]]
}

# In buildah's storage: images of two architectures, and an index of both.
buildah_images() {
    local arch container
    storage made manifest create multi
    for arch in amd64 arm64; do
        container=$(storage made from scratch)
        storage made add "$container" "$work/tree-base-files" /
        storage made add "$container" "$work/tree-busybox-static" /
        storage made config --arch "$arch" --cmd /bin/busybox "$container"
        storage made commit --format oci "$container" "one-$arch"
        storage made manifest add multi "containers-storage:[vfs@$work/made+$work/made-run]localhost/one-$arch"
    done
}

umoci_round_trip() {
    push --preserve-digests "oci:$work/umoci:app" "docker://$address/images/umoci:app"
    pull "docker://$address/images/umoci:app" "oci:$work/umoci-back:app"
    # umoci leaves the blobs of its steps behind: only what `app` reaches is compared.
    skopeo copy -q "oci:$work/umoci:app" "oci:$work/umoci-app:app"
    same_layout "$work/umoci-app" "$work/umoci-back"
}

# Pulled by the other client: buildah checks the digests itself; what it unpacks must be the tree that was packed.
umoci_to_buildah() {
    local container
    storage pulled pull --tls-verify=false "docker://$address/images/umoci:app"
    container=$(storage pulled from --pull-never "$address/images/umoci:app")
    diff -r --no-dereference "$work/bundle/rootfs" "$(storage pulled mount "$container")"
}

buildah_to_skopeo() {
    storage made push --tls-verify=false --digestfile "$work/digest" one-amd64 "docker://$address/images/buildah:one"
    pull "docker://$address/images/buildah:one" "oci:$work/buildah-back:one"
    same_layout "$work/buildah-back" "$work/buildah-back"
    [[ -e $work/buildah-back/blobs/sha256/$(sed s/sha256:// "$work/digest") ]]
    umoci unpack --rootless --image "$work/buildah-back:one" "$work/bundle-back"
    mkdir "$work/expected"
    cp -a "$work/tree-base-files/." "$work/tree-busybox-static/." "$work/expected/"
    diff -r --no-dereference "$work/expected" "$work/bundle-back/rootfs"
}

multi_arch() {
    storage made manifest push --all --tls-verify=false --digestfile "$work/index-digest" multi \
        "docker://$address/images/multi:latest"
    skopeo inspect --tls-verify=false --raw "docker://$address/images/multi:latest" >"$work/index.json"
    [[ $(digest_of "$work/index.json") == "$(cat "$work/index-digest")" ]]
    [[ $(jq '.manifests | length' "$work/index.json") == 2 ]]
    pull --all "docker://$address/images/multi:latest" "oci:$work/multi:latest"
    same_layout "$work/multi" "$work/multi"
    # And once more under another name, from the layout: nothing may change on the way.
    push --all "oci:$work/multi:latest" "docker://$address/images/multi-again:latest"
    pull --all "docker://$address/images/multi-again:latest" "oci:$work/multi-again:latest"
    same_layout "$work/multi" "$work/multi-again"
    storage pulled pull --tls-verify=false --arch arm64 "docker://$address/images/multi:latest"
}

# tag_is REPOSITORY:TAG TYPE: the tag's manifest has this media type, and a GET says so.
tag_is() {
    curl -sf -D "$work/headers" -o "$work/manifest.json" -H "Accept: $2" \
        "http://$address/v2/${1%:*}/manifests/${1##*:}"
    tr -d '\r' <"$work/headers" | grep -ix "content-type: $2"
    tr -d '\r' <"$work/headers" | grep -ix "docker-content-digest: $(digest_of "$work/manifest.json")"
}

zstd_layers() {
    # Compressed before the push and pushed as it is: else skopeo puts in gzip layers that it knows the registry to have.
    skopeo copy -q --dest-decompress "oci:$work/umoci:app" "dir:$work/plain"
    skopeo copy -q --dest-compress --dest-compress-format zstd "dir:$work/plain" "dir:$work/zstd"
    push --preserve-digests "dir:$work/zstd" "docker://$address/images/zstd:app"
    cmp "$work/zstd/manifest.json" <(skopeo inspect --tls-verify=false --raw "docker://$address/images/zstd:app")
    tag_is images/zstd:app application/vnd.oci.image.manifest.v1+json
    jq -e '[.layers[].mediaType] | all(endswith("+zstd"))' "$work/manifest.json"
    pull "docker://$address/images/zstd:app" "oci:$work/zstd-back:app"
    same_layout "$work/zstd-back" "$work/zstd-back"
    jq -r '.layers[].digest' "$work/manifest.json" | while IFS=: read -r _ hex; do
        zstd -t "$work/zstd-back/blobs/sha256/$hex"
    done
}

docker_schema2() {
    push --format v2s2 "oci:$work/umoci:app" "docker://$address/images/docker:app"
    tag_is images/docker:app application/vnd.docker.distribution.manifest.v2+json
    pull "docker://$address/images/docker:app" "dir:$work/docker-back"
    cmp "$work/manifest.json" "$work/docker-back/manifest.json"
    push "dir:$work/docker-back" "docker://$address/images/docker-again:app"
    pull "docker://$address/images/docker-again:app" "dir:$work/docker-again"
    diff -r "$work/docker-back" "$work/docker-again"
}

lists() {
    [[ $(curl -sf "http://$address/v2/images/umoci/tags/list" | jq -c .) == '{"name":"images/umoci","tags":["app"]}' ]]
    curl -sf "http://$address/v2/_catalog" | jq -e '.repositories | index("images/docker") and index("images/multi")'
}

again_after_restart() {
    pull "docker://$address/images/umoci:app" "oci:$work/umoci-later:app"
    same_layout "$work/umoci-app" "$work/umoci-later"
    pull --all "docker://$address/images/multi:latest" "oci:$work/multi-later:latest"
    same_layout "$work/multi" "$work/multi-later"
}

check "root file systems are made of Debian packages" packages
check "umoci makes an image of three layers" umoci_image
check "buildah makes images of two architectures" buildah_images
start_server "$work/data"
check "umoci's image comes back from skopeo to skopeo bit for bit" umoci_round_trip
check "umoci's image, pushed by skopeo, comes back by buildah" umoci_to_buildah
check "buildah's image comes back by skopeo" buildah_to_skopeo
check "a multi-arch index comes back whole" multi_arch
check "zstd layers come back" zstd_layers
check "a Docker schema 2 image comes back as such" docker_schema2
check "tags and repositories are listed" lists
stop_server || fail "the server ends cleanly" "$server_log"
start_server "$work/data"
check "images are the same after a restart" again_after_restart
finish
