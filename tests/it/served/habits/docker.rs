use super::{Sent, Step, play, step};
use crate::harness::Orlop;

/// The Accept headers of a pull, each type in one of its own: moby, distribution/pull_v2.go, by the media types that
/// distribution's manifests register.
const ACCEPT: &[&str] = &[
    "Accept: application/vnd.docker.distribution.manifest.v1+prettyjws",
    "Accept: application/json",
    "Accept: application/vnd.docker.distribution.manifest.v2+json",
    "Accept: application/vnd.docker.distribution.manifest.list.v2+json",
    "Accept: application/vnd.oci.image.index.v1+json",
    "Accept: application/vnd.oci.image.manifest.v1+json",
    "Accept-Encoding: gzip",
];

/// `docker push`: moby, distribution/push_v2.go, over distribution's client (internal/client/blob_writer.go). The body is a
/// stream of unknown length, without Content-Range; the client reads `Range` as two numbers, and after the end it asks
/// whether the blob is there and reads its length.
const PUSH: &[Step] = &[
    step("GET /v2/", 200).told(&["Docker-Distribution-Api-Version: registry/2.0"]),
    step("HEAD /v2/team/app/blobs/{layer}", 404),
    step("POST /v2/team/app/blobs/uploads/", 202).told(&["Location: *", "Docker-Upload-UUID: *"]),
    step("PATCH {location}", 202)
        .with(&["Content-Type: application/octet-stream"])
        .sends(Sent::Chunked("layer"))
        .told(&["Location: *", "Docker-Upload-UUID: *", "Range: 0-299999"]),
    step("PUT {location&}digest={layer%}", 201).told(&["Docker-Content-Digest: {layer}"]),
    step("HEAD /v2/team/app/blobs/{layer}", 200).told(&[
        "Content-Length: 300000",
        "Docker-Content-Digest: {layer}",
        "Content-Type: application/octet-stream",
    ]),
    step("HEAD /v2/team/app/blobs/{config}", 404),
    step("POST /v2/team/app/blobs/uploads/", 202),
    step("PATCH {location}", 202).sends(Sent::Chunked("config")).told(&["Range: 0-899"]),
    step("PUT {location&}digest={config%}", 201),
    step("HEAD /v2/team/app/blobs/{config}", 200).told(&["Content-Length: 900"]),
    step("PUT /v2/team/app/manifests/latest", 201)
        .with(&["Content-Type: application/vnd.docker.distribution.manifest.v2+json"])
        .sends(Sent::Whole("manifest"))
        .told(&["Docker-Content-Digest: {manifest}", "Location: /v2/team/app/manifests/{manifest}"]),
];

/// A push to another repository: each layer is mounted from where docker last saw it (push_v2.go, "Mounted from"), and is
/// uploaded on the session of the same answer when that has no such blob.
const PUSH_BY_MOUNT: &[Step] = &[
    step("GET /v2/", 200),
    step("HEAD /v2/team/other/blobs/{layer}", 404),
    step("POST /v2/team/other/blobs/uploads/?from=team%2Fapp&mount={layer%}", 201)
        .told(&["Location: /v2/team/other/blobs/{layer}", "Docker-Content-Digest: {layer}"]),
    step("HEAD /v2/team/other/blobs/{layer}", 200).told(&["Content-Length: 300000"]),
    step("HEAD /v2/team/other/blobs/{config}", 404),
    step("POST /v2/team/other/blobs/uploads/?from=team%2Fgone&mount={config%}", 202).told(&["Location: *"]),
    step("PATCH {location}", 202).sends(Sent::Chunked("config")),
    step("PUT {location&}digest={config%}", 201),
    step("PUT /v2/team/other/manifests/latest", 201)
        .with(&["Content-Type: application/vnd.docker.distribution.manifest.v2+json"])
        .sends(Sent::Whole("manifest")),
];

/// `docker pull`: the tag by HEAD or GET, the manifest by digest, then blobs; a broken download goes on with an open range
/// (distribution, internal/client/transport/http_reader.go), and the answer must be 206 with a whole Content-Range.
const PULL: &[Step] = &[
    step("GET /v2/", 200),
    step("HEAD /v2/team/app/manifests/latest", 200).with(ACCEPT).told(&[
        "Docker-Content-Digest: {manifest}",
        "Content-Type: application/vnd.docker.distribution.manifest.v2+json",
        "Content-Length: *",
    ]),
    step("GET /v2/team/app/manifests/latest", 200)
        .with(ACCEPT)
        .told(&[
            "Docker-Content-Digest: {manifest}",
            "Content-Type: application/vnd.docker.distribution.manifest.v2+json",
        ])
        .gets("manifest"),
    step("GET /v2/team/app/manifests/{manifest}", 200).with(ACCEPT).gets("manifest"),
    step("GET /v2/team/app/blobs/{config}", 200).with(&["Accept-Encoding: identity"]).gets("config"),
    step("GET /v2/team/app/blobs/{layer}", 200)
        .with(&["Accept-Encoding: identity"])
        .told(&["Content-Length: 300000", "Accept-Ranges: bytes"])
        .gets("layer"),
    step("GET /v2/team/app/blobs/{layer}", 206)
        .with(&["Range: bytes=123456-", "Accept-Encoding: identity"])
        .told(&["Content-Range: bytes 123456-299999/300000", "Content-Length: 176544"])
        .gets_from("layer", 123_456),
];

/// A list pulled by one platform: the list by tag, its child by digest with the same headers.
const PULL_OF_A_LIST: &[Step] = &[
    step("PUT /v2/team/app/manifests/multi", 201)
        .with(&["Content-Type: application/vnd.docker.distribution.manifest.list.v2+json"])
        .sends(Sent::Whole("list"))
        .told(&["Docker-Content-Digest: {list}"]),
    step("GET /v2/team/app/manifests/multi", 200)
        .with(ACCEPT)
        .told(&["Content-Type: application/vnd.docker.distribution.manifest.list.v2+json"])
        .gets("list"),
    step("GET /v2/team/app/manifests/{manifest}", 200).with(ACCEPT).gets("manifest"),
];

#[test]
fn docker_pushes_mounts_pulls_and_resumes() {
    let server = Orlop::start();
    for steps in [PUSH, PUSH_BY_MOUNT, PULL, PULL_OF_A_LIST] {
        play(&server, steps);
    }
}
