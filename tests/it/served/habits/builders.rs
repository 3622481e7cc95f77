use super::{Sent, Step, play, step};
use crate::harness::Orlop;

/// `docker buildx build --cache-to type=registry`: BuildKit, cache/remotecache/export.go, pushed like containerd's content. The
/// entries of the list are layers and a config, no manifests (moby/buildkit issue 1143 shows one); registries that take entries
/// for manifests refuse it.
const CACHE_EXPORT: &[Step] = &[
    step("POST /v2/team/cache/blobs/uploads/", 202),
    step("PUT {location&}digest={layer%}", 201).sends(Sent::Whole("layer")),
    step("POST /v2/team/cache/blobs/uploads/", 202),
    step("PUT {location&}digest={config%}", 201).sends(Sent::Whole("config")),
    step("HEAD /v2/team/cache/manifests/main", 404)
        .with(&["Accept: application/vnd.docker.distribution.manifest.list.v2+json, */*"]),
    step("PUT /v2/team/cache/manifests/main", 201)
        .with(&["Content-Type: application/vnd.docker.distribution.manifest.list.v2+json"])
        .sends(Sent::Whole("cache-list"))
        .told(&["Docker-Content-Digest: {cache-list}"]),
    // The same with `oci-mediatypes=true`, and with `image-manifest=true`.
    step("PUT /v2/team/cache/manifests/main", 201)
        .with(&["Content-Type: application/vnd.oci.image.index.v1+json"])
        .sends(Sent::Whole("cache-index"))
        .told(&["Docker-Content-Digest: {cache-index}"]),
    step("PUT /v2/team/cache/manifests/image", 201)
        .with(&["Content-Type: application/vnd.oci.image.manifest.v1+json"])
        .sends(Sent::Whole("cache-image")),
];

/// `--cache-from type=registry`: cache/remotecache/import.go.
const CACHE_IMPORT: &[Step] = &[
    step("HEAD /v2/team/cache/manifests/main", 200)
        .with(&["Accept: application/vnd.oci.image.index.v1+json, */*"])
        .told(&["Docker-Content-Digest: {cache-index}", "Content-Type: application/vnd.oci.image.index.v1+json"]),
    step("GET /v2/team/cache/manifests/{cache-index}", 200).gets("cache-index"),
    step("GET /v2/team/cache/blobs/{config}", 200)
        .with(&["Accept: application/vnd.buildkit.cacheconfig.v0, */*"])
        .gets("config"),
    step("GET /v2/team/cache/blobs/{layer}", 200).gets("layer"),
    // A blob that such a list names is in use.
    step("DELETE /v2/team/cache/blobs/{layer}", 405),
];

/// `crane push`, ko, Tekton, cosign: go-containerregistry, pkg/v1/remote/write.go. POST says that it is JSON and is empty; the
/// blob goes into one PATCH with its length, the PUT at the Location told by it has no body. A mount has an `origin` too.
const CRANE: &[Step] = &[
    step("GET /v2/", 200),
    step("HEAD /v2/team/app/blobs/{layer}", 404),
    step("POST /v2/team/app/blobs/uploads/?from=team%2Fbase&mount={layer%}&origin=registry%3A5000", 202)
        .with(&["Content-Type: application/json"])
        .told(&["Location: *"]),
    step("PATCH {location}", 202)
        .with(&["Content-Type: application/octet-stream"])
        .sends(Sent::Whole("layer"))
        .told(&["Location: *"]),
    step("PUT {location&}digest={layer%}", 201).with(&["Content-Type: application/octet-stream"]),
    step("POST /v2/team/app/blobs/uploads/", 202).with(&["Content-Type: application/json"]),
    step("PATCH {location}", 202).sends(Sent::Whole("config")),
    step("PUT {location&}digest={config%}", 201),
    step("HEAD /v2/team/app/manifests/v1", 404).with(&["Accept: application/vnd.oci.image.manifest.v1+json"]),
    step("PUT /v2/team/app/manifests/v1", 201)
        .with(&["Content-Type: application/vnd.oci.image.manifest.v1+json"])
        .sends(Sent::Whole("oci-manifest")),
    // `crane tag`: the same bytes under another name; `crane digest`, `crane ls`, `crane delete`.
    step("GET /v2/team/app/manifests/v1", 200).gets("oci-manifest"),
    step("PUT /v2/team/app/manifests/v2", 201)
        .with(&["Content-Type: application/vnd.oci.image.manifest.v1+json"])
        .sends(Sent::Whole("oci-manifest")),
    step("HEAD /v2/team/app/manifests/v2", 200).told(&["Docker-Content-Digest: {oci-manifest}", "Content-Length: *"]),
    step("GET /v2/team/app/tags/list?n=1000", 200).told(&["Content-Type: application/json"]),
    step("DELETE /v2/team/app/manifests/{oci-manifest}", 202),
    step("HEAD /v2/team/app/manifests/v2", 404),
];

/// kaniko: before a build it opens an upload and cancels it, to know that it may push (go-containerregistry,
/// pkg/v1/remote/check.go); its layers are streams of which neither length nor digest is known before they end.
const KANIKO: &[Step] = &[
    step("GET /v2/", 200),
    step("POST /v2/team/kaniko/blobs/uploads/", 202).with(&["Content-Type: application/json"]).told(&["Location: *"]),
    step("DELETE {location}", 204),
    step("POST /v2/team/kaniko/blobs/uploads/", 202).with(&["Content-Type: application/json"]),
    step("PATCH {location}", 202)
        .with(&["Content-Type: application/octet-stream"])
        .sends(Sent::Chunked("layer"))
        .told(&["Location: *"]),
    step("PUT {location&}digest={layer%}", 201).with(&["Content-Type: application/octet-stream"]),
    step("HEAD /v2/team/kaniko/blobs/{layer}", 200).told(&["Content-Length: 300000"]),
];

/// Jib: a blob is offered as a mount of itself from nowhere, and uploaded on the session of the answer (jib-core,
/// registry/BlobPusher.java).
const JIB: &[Step] = &[
    step("HEAD /v2/team/jib/blobs/{config}", 404),
    step("POST /v2/team/jib/blobs/uploads/?mount={config}&from=library/base", 202).told(&["Location: *"]),
    step("PATCH {location}", 202)
        .with(&["Content-Type: application/octet-stream", "Accept-Encoding: gzip"])
        .sends(Sent::Chunked("config"))
        .told(&["Location: *"]),
    step("PUT {location&}digest={config}", 201),
];

#[test]
fn a_build_cache_whose_entries_are_blobs_is_exported_and_imported() {
    let server = Orlop::start();
    for steps in [CACHE_EXPORT, CACHE_IMPORT] {
        play(&server, steps);
    }
}

#[test]
fn builders_push_by_patch_and_an_empty_put() {
    for steps in [CRANE, KANIKO, JIB] {
        play(&Orlop::start(), steps);
    }
}
