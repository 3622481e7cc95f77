# shellcheck shell=bash
# Artifacts that are no images: files by the `oras` client, charts as helm makes them, signatures as cosign attaches them, and
# referrers as clients keep them in a tag. Sourced by clients.sh, never run.
# shellcheck disable=SC2154 # work and address are lib.sh's

# The client of PyPI, pinned: what another version does is no news about this registry.
oras_version=0.2.2
chart_config=application/vnd.cncf.helm.config.v1+json
chart_layer=application/vnd.cncf.helm.chart.content.v1.tar+gzip
oci_manifest=application/vnd.oci.image.manifest.v1+json
oci_index=application/vnd.oci.image.index.v1+json

install_oras() {
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install -q --disable-pip-version-check --timeout 30 "oras==$oras_version" ||
        { echo "pip could not install oras $oras_version: PyPI must be reachable for this part"; return 1; }
}

# oras CODE [ARGUMENT…]: Python with a client of the server; its arguments are argv[1:].
oras() {
    local code=$1
    shift
    (cd "$work/files" && HOME=$work "$work/venv/bin/python" -c "
import sys, hashlib
from oras.client import OrasClient
client = OrasClient(hostname='$address', insecure=True)
argv = ['$address/' + sys.argv[1]] + sys.argv[2:]
$code" "$@")
}

oras_files() {
    mkdir -p "$work/files/directory"
    head -c 5000000 /dev/urandom >"$work/files/large.bin"
    echo '{"a": 1}' >"$work/files/small.json"
    echo inside >"$work/files/directory/file"
    local files="['large.bin:application/octet-stream', 'small.json:application/json', 'directory']"
    oras "client.push(target=argv[0], files=$files, manifest_annotations={'by': 'oras'})" oras/files:v1
    # In chunks, each with its Content-Range, as it does for large files.
    oras "client.push(target=argv[0], files=$files, do_chunked=True, chunk_size=1 << 20)" oras/files:v2
    for tag in v1 v2; do
        oras "client.pull(target=argv[0], outdir=argv[1])" "oras/files:$tag" "$work/oras-$tag"
        diff -r "$work/files" "$work/oras-$tag"
    done
    oras "assert client.get_tags(argv[0]) == ['v1', 'v2'], client.get_tags(argv[0])" oras/files
    oras "assert client.get_manifest(argv[0])['annotations'] == {'by': 'oras'}" oras/files:v1
    oras "assert client.delete_tags(argv[0], ['v1']) == ['v1']" oras/files
    oras "assert client.get_tags(argv[0]) == ['v2']" oras/files
}

# A chart as `helm push` leaves it: its Chart.yaml as the config, the archive as the only layer, its version as the tag.
helm_chart() {
    mkdir -p "$work/chart/demo/templates"
    printf 'apiVersion: v2\nname: demo\nversion: 0.1.0+build.7\n' >"$work/chart/demo/Chart.yaml"
    echo 'kind: ConfigMap' >"$work/chart/demo/templates/map.yaml"
    tar -C "$work/chart" -czf "$work/files/demo-0.1.0.tgz" demo
    echo '{"name":"demo","version":"0.1.0+build.7","apiVersion":"v2"}' >"$work/files/chart.json"
    # Helm writes the + of a version, which no tag can have, as _.
    oras "client.push(target=argv[0], files=[argv[1]], manifest_config=argv[2])" charts/demo:0.1.0_build.7 \
        "demo-0.1.0.tgz:$chart_layer" "chart.json:$chart_config"
    [[ $(status GET /v2/charts/demo/manifests/0.1.0_build.7 -H "Accept: $oci_manifest") == 200 ]]
    jq -e --arg config "$chart_config" --arg layer "$chart_layer" \
        '.config.mediaType == $config and [.layers[].mediaType] == [$layer]' "$work/body"
    blob_is charts/demo "$work/files/demo-0.1.0.tgz"
    blob_is charts/demo "$work/files/chart.json"
    # skopeo carries what is no image as well.
    skopeo copy -q --src-tls-verify=false --dest-tls-verify=false --preserve-digests \
        "docker://$address/charts/demo:0.1.0_build.7" "docker://$address/mirror/demo:0.1.0_build.7"
    blob_is mirror/demo "$work/files/demo-0.1.0.tgz"
}

# descriptor TYPE FILE
descriptor() {
    jq -cn --arg type "$1" --arg digest "$(digest_of "$2")" --argjson size "$(stat -c %s "$2")" \
        '{mediaType: $type, digest: $digest, size: $size}'
}

# artifact FILE TYPE [SUBJECT]: a manifest of the blobs `{}` and FILE, as the newer clients make them, in $work/artifact.
artifact() {
    printf '{}' >"$work/empty"
    jq -cn --arg type "$2" --argjson config "$(descriptor application/vnd.oci.empty.v1+json "$work/empty")" \
        --argjson layer "$(descriptor application/octet-stream "$1")" --argjson subject "${3:-null}" --arg type_of "$oci_manifest" \
        '{schemaVersion: 2, mediaType: $type_of, artifactType: $type, config: $config, layers: [$layer]}
            + if $subject then {subject: $subject} else {} end' >"$work/artifact"
}

# push_artifact REPOSITORY REFERENCE FILE: its two blobs and the manifest.
push_artifact() {
    [[ $(put_blob "$1" "$work/empty") == 201 ]]
    [[ $(put_blob "$1" "$3") == 201 ]]
    [[ $(status PUT "/v2/$1/manifests/$2" -D "$work/headers" -H "Content-Type: $oci_manifest" --data-binary "@$work/artifact") == 201 ]]
}

# subject: the descriptor of the image that the signatures are for, pushed before.
subject() {
    skopeo inspect --tls-verify=false --raw "docker://$address/signed/app:v1" >"$work/subject"
    descriptor "$oci_manifest" "$work/subject"
}

# As cosign attaches by default: the signature is an image of its own under the tag `sha256-<hex>.sig`.
cosign_by_tag() {
    local digest tag
    push "oci:$work/layout:app" "docker://$address/signed/app:v1"
    digest=$(subject | jq -r .digest)
    tag=sha256-${digest#*:}.sig
    [[ $(status HEAD "/v2/signed/app/manifests/$tag") == 404 ]]
    jq -cn --arg digest "$digest" '{critical: {image: {"docker-manifest-digest": $digest}}}' >"$work/payload"
    artifact "$work/payload" application/vnd.dev.cosign.simplesigning.v1+json
    push_artifact signed/app "$tag" "$work/payload"
    [[ $(status GET "/v2/signed/app/manifests/$tag" -H "Accept: $oci_manifest, $oci_index") == 200 ]]
    cmp "$work/body" "$work/artifact"
    blob_is signed/app "$work/payload"
    # skopeo copies an image with such a tag beside it, and the tag by itself.
    pull "docker://$address/signed/app:$tag" "dir:$work/signature"
    cmp "$work/signature/manifest.json" "$work/artifact"
}

# referrers [QUERY]: sets $work/body to the list of what refers to the signed image.
referrers() {
    [[ $(status GET "/v2/signed/app/referrers/$(subject | jq -r .digest)${1:+?$1}" -D "$work/headers") == 200 ]]
    tr -d '\r' <"$work/headers" | grep -ix "content-type: $oci_index"
}

# As cosign attaches where it is asked for OCI 1.1: a manifest that names the image as its subject, pushed by digest, and found
# by the list of referrers.
cosign_by_subject() {
    local type=application/vnd.dev.sigstore.bundle.v0.3+json
    referrers
    jq -e '.manifests == []' "$work/body"
    echo '{"bundle": 1}' >"$work/bundle.json"
    artifact "$work/bundle.json" "$type" "$(subject)"
    push_artifact signed/app "$(digest_of "$work/artifact")" "$work/bundle.json"
    tr -d '\r' <"$work/headers" | grep -ix "oci-subject: $(subject | jq -r .digest)"
    referrers "artifactType=${type/+/%2B}"
    tr -d '\r' <"$work/headers" | grep -ix "oci-filters-applied: artifactType"
    jq -e --arg type "$type" --argjson own "$(descriptor "$oci_manifest" "$work/artifact")" \
        '.manifests == [$own + {artifactType: $type}]' "$work/body"
    [[ $(status GET "/v2/signed/app/manifests/$(digest_of "$work/artifact")" -H "Accept: $oci_manifest") == 200 ]]
    cmp "$work/body" "$work/artifact"
    # What the oras client attaches is found as well, with its annotations; the filter tells both apart.
    oras "
from oras.oci import Subject
subject = Subject(mediaType='$oci_manifest', digest=argv[2], size=int(argv[3]))
client.push(target=argv[0], files=[argv[1]], subject=subject, manifest_annotations={'by': 'oras'})" \
        signed/app:attached small.json:application/json "$(subject | jq -r .digest)" "$(subject | jq .size)"
    referrers
    jq -e '(.manifests | length) == 2 and ([.manifests[].annotations.by] | contains(["oras"]))' "$work/body"
    referrers "artifactType=${type/+/%2B}"
    jq -e '(.manifests | length) == 1' "$work/body"
    [[ $(status DELETE "/v2/signed/app/manifests/$(digest_of "$work/artifact")") == 202 ]]
    [[ $(status DELETE "/v2/signed/app/manifests/attached") == 202 ]]
    referrers "artifactType=${type/+/%2B}"
    jq -e '.manifests == []' "$work/body"
}

# As clients keep referrers where a registry cannot list them (distribution-spec, "Referrers Tag Schema"): an index tagged with
# the subject's digest, read, changed and written by the client.
referrers_by_tag() {
    local digest tag index=$work/referrers
    digest=$(subject | jq -r .digest)
    tag=${digest/:/-}
    [[ $(status GET "/v2/signed/app/manifests/$tag") == 404 ]]
    jq -cn --arg type "$oci_index" '{schemaVersion: 2, mediaType: $type, manifests: []}' >"$index"
    for number in 1 2; do
        echo "$number" >"$work/statement"
        artifact "$work/statement" "application/vnd.example.$number" "$(subject)"
        push_artifact signed/app "$(digest_of "$work/artifact")" "$work/statement"
        tr -d '\r' <"$work/headers" | grep -ix "oci-subject: $digest"
        jq -c --argjson new "$(descriptor "$oci_manifest" "$work/artifact")" \
            '.manifests += [$new + {artifactType: $new.mediaType}]' "$index" >"$index.new"
        mv "$index.new" "$index"
        [[ $(status PUT "/v2/signed/app/manifests/$tag" -H "Content-Type: $oci_index" --data-binary "@$index") == 201 ]]
    done
    [[ $(status GET "/v2/signed/app/manifests/$tag" -H "Accept: $oci_manifest, $oci_index") == 200 ]]
    cmp "$work/body" "$index"
    [[ $(status DELETE "/v2/signed/app/manifests/$tag") == 202 ]]
}

artifact_checks() {
    check "PyPI's client oras $oras_version is installed" install_oras
    check "oras pushes files and a directory, whole and in chunks, and pulls, lists, deletes" oras_files
    check "a helm chart comes back bit for bit" helm_chart
    check "a signature is attached by tag, as cosign does" cosign_by_tag
    check "a signature is attached by its subject, listed, filtered, deleted" cosign_by_subject
    check "referrers are kept in a tag, as clients do without the API" referrers_by_tag
}
