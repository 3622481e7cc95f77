# shellcheck shell=bash
# docker and containerd themselves: daemons unpacked below the test's directory, never installed, so that the machine's own
# network rules, services and images stay as they are. Sourced by clients.sh, never run.
# shellcheck disable=SC2154 # work and address are lib.sh's

# Debian packages, unpacked only.
unpack_docker() {
    mkdir "$work/docker-debs"
    cd "$work/docker-debs" || return 1
    apt-get -qq -o APT::Sandbox::User=root download docker.io containerd runc
    for deb in *.deb; do dpkg-deb -x "$deb" "$work/docker-root"; done
}

docker_alone() {
    DOCKER_CONFIG=$work/docker-config timeout 60 "$work/docker-root/usr/bin/docker" -H "unix://$work/docker.sock" "$@"
}
ctr_alone() { timeout 60 "$work/docker-root/usr/bin/ctr" --address "$work/containerd.sock" "$@"; }

# Both daemons as jobs of the script, which ends them with all others. No bridge and no iptables: nothing is run in containers.
start_docker() {
    cat >"$work/containerd.toml" <<END
version = 2
root = "$work/containerd"
state = "$work/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/containerd.sock"
END
    local PATH=$work/docker-root/usr/bin:$work/docker-root/usr/sbin:$PATH
    containerd -c "$work/containerd.toml" >"$work/containerd.log" 2>&1 &
    wait_for 100 test -S "$work/containerd.sock" || return 1
    dockerd -H "unix://$work/docker.sock" --data-root "$work/docker-data" --exec-root "$work/docker-exec" \
        -p "$work/docker.pid" --containerd "$work/containerd.sock" --storage-driver vfs \
        --iptables=false --ip6tables=false --bridge=none >"$work/dockerd.log" 2>&1 &
    wait_for 100 docker_alone version >/dev/null 2>&1
}

# wait_for TENTHS COMMAND…: until the command succeeds.
wait_for() {
    local tenths=$1
    shift
    until "$@"; do
        ((tenths-- > 0)) || return 1
        sleep 0.1
    done
}

# docker takes 127.0.0.0/8 as a registry without TLS by itself.
docker_pushes() {
    local pushed
    docker_alone import "$work/tree.tar" "$address/docker/app:one"
    docker_alone push -q "$address/docker/app:one"
    pushed=$(digest docker/app:one)
    # Under another name its layers are mounted from the first.
    docker_alone tag "$address/docker/app:one" "$address/docker/other:one"
    docker_alone push "$address/docker/other:one" | grep 'Mounted from docker/app'
    docker_alone rmi "$address/docker/app:one" "$address/docker/other:one"
    docker_alone pull "$address/docker/app:one" | grep -F "Digest: $pushed"
    docker_alone pull "$address/docker/other@$pushed"
    # What other clients pushed, one platform of a list included.
    docker_alone pull "$address/skopeo/app:one"
    docker_alone pull --platform linux/arm64 "$address/buildah/list:oci" | grep 'Status: Downloaded'
    docker_alone save -o "$work/docker.tar" "$address/docker/other@$pushed"
    skopeo copy -q "docker-archive:$work/docker.tar" "oci:$work/docker-layout:app"
    umoci unpack --rootless --image "$work/docker-layout:app" "$work/docker-bundle"
    diff -r --no-dereference "$work/tree" "$work/docker-bundle/rootfs"
}

# Of its own images only: this version writes manifests that others made anew, in another layout, and so under another digest.
docker_manifests() {
    tar -C "$work/tree" -c etc | docker_alone import - "$address/docker/app:two"
    docker_alone push -q "$address/docker/app:two"
    docker_alone manifest create --insecure "$address/docker/list:both" "$address/docker/app:one" "$address/docker/app:two"
    docker_alone manifest push --insecure "$address/docker/list:both"
    docker_alone manifest inspect --insecure "$address/docker/list:both" | jq -e '.manifests | length == 2'
}

containerd_pushes() {
    ctr_alone images pull --plain-http --snapshotter native "$address/docker/app:one"
    ctr_alone images pull --plain-http --all-platforms --snapshotter native "$address/buildah/list:v2s2"
    ctr_alone images tag "$address/buildah/list:v2s2" "$address/containerd/list:latest"
    ctr_alone images push --plain-http "$address/containerd/list:latest"
    [[ $(digest containerd/list:latest) == "$(digest buildah/list:v2s2)" ]]
    ctr_alone images rm "$address/docker/app:one" "$address/containerd/list:latest"
    ctr_alone content fetch --plain-http --all-platforms "$address/containerd/list:latest"
}

docker_checks() {
    if [[ $(id -u) != 0 ]]; then
        echo "not run: the daemons of docker and containerd need root"
        return
    fi
    check "docker and containerd are unpacked" unpack_docker
    if start_docker; then ok "docker and containerd start"; else
        fail "docker and containerd start" "$work/dockerd.log"
        return
    fi
    check "docker pushes, mounts, pulls by tag, digest and platform, and has the same files" docker_pushes
    check "docker makes a manifest list of what is in the registry" docker_manifests
    check "containerd pulls and pushes, one image and a list of all platforms" containerd_pushes
}
