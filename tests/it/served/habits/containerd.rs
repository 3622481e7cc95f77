use super::{Sent, Step, play, step};
use crate::harness::Orlop;

/// What its resolver accepts, in one header (core/remotes/docker/resolver.go).
const ACCEPT: &[&str] = &["Accept: application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, */*"];

/// `ctr images push`, `nerdctl push`, BuildKit's image exporter: core/remotes/docker/pusher.go. A blob goes whole into one PUT at
/// the Location with `digest` added to whatever query that has; what is pushed is known by `Docker-Content-Digest`, without
/// which the push fails. The media type that it is looking for stands first in Accept, for blobs too.
const PUSH: &[Step] = &[
    step("HEAD /v2/team/app/blobs/{layer}", 404).with(&["Accept: application/vnd.oci.image.layer.v1.tar+gzip, */*"]),
    step("POST /v2/team/app/blobs/uploads/", 202).told(&["Location: *"]),
    step("PUT {location&}digest={layer%}", 201)
        .with(&["Content-Type: application/octet-stream"])
        .sends(Sent::Whole("layer"))
        .told(&["Docker-Content-Digest: {layer}"]),
    step("HEAD /v2/team/app/blobs/{config}", 404).with(&["Accept: application/vnd.oci.image.config.v1+json, */*"]),
    step("POST /v2/team/app/blobs/uploads/?mount={config}&from=team/nothing", 202).told(&["Location: *"]),
    step("PUT {location&}digest={config%}", 201)
        .with(&["Content-Type: application/octet-stream"])
        .sends(Sent::Whole("config"))
        .told(&["Docker-Content-Digest: {config}"]),
    step("HEAD /v2/team/app/manifests/v1", 404).with(&["Accept: application/vnd.oci.image.manifest.v1+json, */*"]),
    step("PUT /v2/team/app/manifests/v1", 201)
        .with(&["Content-Type: application/vnd.oci.image.manifest.v1+json"])
        .sends(Sent::Whole("oci-manifest"))
        .told(&["Docker-Content-Digest: {oci-manifest}"]),
    // Again: the same digest behind the tag says that nothing has to be pushed.
    step("HEAD /v2/team/app/manifests/v1", 200)
        .with(&["Accept: application/vnd.oci.image.manifest.v1+json, */*"])
        .told(&["Docker-Content-Digest: {oci-manifest}"]),
    // From a repository that it remembers in the content's labels, a name as it is.
    step("POST /v2/team/other/blobs/uploads/?mount={layer}&from=team/app", 201)
        .told(&["Docker-Content-Digest: {layer}"]),
];

/// A pull through this registry as a mirror (docs/hosts.md, "ns" query): resolver.go asks HEAD and takes digest, length and type from
/// it; fetcher.go takes the content by digest, and goes on after a break with an open range whose Content-Range it compares.
const PULL: &[Step] = &[
    step("HEAD /v2/team/app/manifests/v1?ns=docker.io", 200).with(ACCEPT).told(&[
        "Docker-Content-Digest: {oci-manifest}",
        "Content-Length: *",
        "Content-Type: application/vnd.oci.image.manifest.v1+json",
    ]),
    step("GET /v2/team/app/manifests/{oci-manifest}?ns=docker.io", 200)
        .with(&["Accept: application/vnd.oci.image.manifest.v1+json, */*", "Accept-Encoding: zstd;q=1.0, gzip;q=0.8"])
        .gets("oci-manifest"),
    step("GET /v2/team/app/blobs/{config}?ns=docker.io", 200)
        .with(&["Accept: application/vnd.oci.image.config.v1+json, */*"])
        .gets("config"),
    step("GET /v2/team/app/blobs/{layer}?ns=docker.io", 206)
        .with(&["Accept: application/vnd.oci.image.layer.v1.tar+gzip, */*", "Range: bytes=65536-"])
        .told(&["Content-Range: bytes 65536-299999/300000"])
        .gets_from("layer", 65_536),
];

/// A reference by digest may be a manifest or a blob: resolver.go asks for manifests, then blobs; `FetchByDigest`, blobs first.
const BY_DIGEST: &[Step] = &[
    step("HEAD /v2/team/app/manifests/{layer}", 404).with(ACCEPT),
    step("HEAD /v2/team/app/blobs/{layer}", 200)
        .with(ACCEPT)
        .told(&["Docker-Content-Digest: {layer}", "Content-Length: 300000"]),
    step("HEAD /v2/team/app/blobs/{oci-manifest}", 404).with(&["Accept: */*"]),
    step("HEAD /v2/team/app/manifests/{oci-manifest}", 200)
        .with(&["Accept: */*"])
        .told(&["Docker-Content-Digest: {oci-manifest}", "Content-Length: *"]),
    step("GET /v2/team/app/manifests/{oci-manifest}", 200).with(&["Accept: */*"]).gets("oci-manifest"),
    // With a media type that the content does not have: `*/*` after it says that any will do.
    step("GET /v2/team/app/manifests/{oci-manifest}", 200)
        .with(&["Accept: application/vnd.docker.distribution.manifest.list.v2+json, */*"])
        .gets("oci-manifest"),
];

#[test]
fn containerd_pushes_pulls_and_resumes() {
    let server = Orlop::start();
    for steps in [PUSH, PULL, BY_DIGEST] {
        play(&server, steps);
    }
}
