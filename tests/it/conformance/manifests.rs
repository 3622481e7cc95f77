use orlop::digest::Algorithm;
use serde_json::{Value, json};

use super::{ALGORITHMS, digest};
use crate::harness::{OCI_INDEX, OCI_MANIFEST, Orlop, noise, sha256};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Content to push: blobs, then manifests in the order in which they can be.
struct Data {
    algorithm: Algorithm,
    blobs: Vec<Vec<u8>>,
    manifests: Vec<(&'static str, String)>,
}

impl Data {
    fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, blobs: Vec::new(), manifests: Vec::new() }
    }

    fn descriptor(&self, media_type: &str, bytes: impl AsRef<[u8]>) -> Value {
        let bytes = bytes.as_ref();
        json!({ "mediaType": media_type, "digest": digest(self.algorithm, bytes), "size": bytes.len() })
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.blobs.push(bytes.to_vec());
        self.descriptor(media_type, bytes)
    }

    /// An image that is like no other.
    fn image(&mut self, seed: u64, layers: u64) -> Value {
        let config = self.blob(CONFIG, &noise(seed, 100));
        let layers: Vec<Value> = (1..=layers).map(|n| self.blob(LAYER, &noise(100 * seed + n, 1_000))).collect();
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers })
    }

    fn artifact(&mut self, layer: Option<&[u8]>) -> Value {
        let config = self.blob(EMPTY, b"{}");
        let layers: Vec<Value> =
            layer.map(|bytes| self.blob("application/vnd.example+type", bytes)).into_iter().collect();
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/vnd.example", "config": config,
            "layers": layers,
        })
    }

    /// Adds a manifest; the descriptor that names it.
    fn push(&mut self, manifest: &Value) -> Value {
        let media_type = if manifest["manifests"].is_array() { OCI_INDEX } else { OCI_MANIFEST };
        let text = manifest.to_string();
        let descriptor = self.descriptor(media_type, &text);
        self.manifests.push((media_type, text));
        descriptor
    }

    fn index(&mut self, seeds: &[u64]) -> Value {
        let images: Vec<Value> = seeds.iter().map(|&seed| self.image(seed, 2)).collect();
        let children: Vec<Value> = images.iter().map(|image| self.push(image)).collect();
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children })
    }
}

type Kind = fn(&mut Data);

const KINDS: &[(&str, Kind)] = &[
    ("image", |data| {
        let image = data.image(1, 2);
        data.push(&image);
    }),
    ("image without layers", |data| {
        let image = data.image(1, 0);
        data.push(&image);
    }),
    ("image without mediaType", |data| {
        let mut image = data.image(1, 1);
        image.as_object_mut().unwrap().remove("mediaType");
        data.push(&image);
    }),
    ("image of 4 MB", |data| {
        let mut image = data.image(1, 1);
        image["annotations"] =
            (0..390).map(|n| (format!("large-annotation-{n}"), json!("A".repeat(10_000)))).collect::<Value>();
        data.push(&image);
    }),
    ("index", |data| {
        let index = data.index(&[1, 2]);
        data.push(&index);
    }),
    ("index of indexes", |data| {
        let inner = [data.index(&[1, 2]), data.index(&[3, 4])].map(|index| data.push(&index));
        data.push(&json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": inner }));
    }),
    ("empty index", |data| drop(data.push(&json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] })))),
    ("artifact", |data| {
        let artifact = data.artifact(Some(b"a signature"));
        data.push(&artifact);
    }),
    ("artifact without layers", |data| {
        let artifact = data.artifact(None);
        data.push(&artifact);
    }),
    ("artifact with the empty layer", |data| {
        let mut artifact = data.artifact(None);
        artifact["layers"] = json!([data.descriptor(EMPTY, "{}")]);
        data.push(&artifact);
    }),
    ("index with artifactType", |data| {
        let mut index = data.index(&[1]);
        index["artifactType"] = json!("application/vnd.example.list");
        data.push(&index);
    }),
    ("subject that is there", |data| {
        let image = data.image(1, 1);
        let subject = data.push(&image);
        let mut artifact = data.artifact(Some(b"about the image"));
        artifact["subject"] = subject;
        data.push(&artifact);
    }),
    ("subject that never comes", |data| {
        let mut artifact = data.artifact(Some(b"about nothing"));
        artifact["subject"] = data.descriptor(OCI_MANIFEST, "missing content");
        data.push(&artifact);
    }),
    ("index with a subject", |data| {
        let index = data.index(&[1]);
        let subject = data.push(&index);
        let mut about = data.index(&[2]);
        about["subject"] = subject;
        data.push(&about);
    }),
    ("descriptors with data", |data| {
        let mut image = data.image(1, 1);
        image["config"] = data.blob(CONFIG, b"{}");
        image["config"]["data"] = json!("e30=");
        data.push(&image);
    }),
    ("layers from elsewhere", |data| {
        let mut image = data.image(1, 1);
        for kind in ["tar", "tar+gzip", "tar+zstd"] {
            let media_type = format!("application/vnd.oci.image.layer.nondistributable.v1.{kind}");
            let mut layer = data.descriptor(&media_type, format!("elsewhere {kind}"));
            layer["size"] = json!(123_456 + kind.len());
            layer["urls"] = json!(["https://store.example.com/layer"]);
            image["layers"].as_array_mut().unwrap().push(layer);
        }
        data.push(&image);
    }),
    ("fields that nobody knows", |data| {
        let mut image = data.image(1, 1);
        image["org.example.extra"] = json!({ "nested": [1, null, "é", { "mediaType": 5 }] });
        image["config"]["org.example"] = json!(true);
        let child = data.push(&image);
        data.push(&json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child], "x": 1.5e300 }));
    }),
];

#[test]
fn every_kind_of_manifest_is_pushed_pulled_and_deleted() {
    let server = Orlop::start();
    for (kind, make) in KINDS {
        for algorithm in ALGORITHMS {
            println!("{kind}, {}", algorithm.name());
            let mut data = Data::new(algorithm);
            make(&mut data);
            round(&server, &data);
        }
    }
    assert_eq!(server.get("/v2/team/app/tags/list").is(200).json()["tags"], json!([]));
}

fn round(server: &Orlop, data: &Data) {
    let blob_path = |bytes: &[u8]| format!("/v2/team/app/blobs/{}", digest(data.algorithm, bytes));
    for bytes in &data.blobs {
        super::push_blob(server, data.algorithm, bytes);
    }
    for (number, (media_type, text)) in data.manifests.iter().enumerate() {
        let digest = digest(data.algorithm, text);
        let place = format!("/v2/team/app/manifests/{digest}");
        let subject = serde_json::from_str::<Value>(text).unwrap()["subject"]["digest"].as_str().map(str::to_owned);
        // By digest alone, with a tag beside it, and (as only SHA-256 can) by the tag itself.
        let by_digest = [digest.clone(), format!("{digest}?tag=t{number}&tag=u{number}")];
        let by_tag = (data.algorithm == Algorithm::Sha256).then(|| format!("t{number}"));
        for reference in by_digest.into_iter().chain(by_tag) {
            let answer = server.put_manifest("team/app", &reference, media_type, text).is(201);
            let answer = answer.has("Location", &place).has("Docker-Content-Digest", &digest);
            assert_eq!(answer.header("oci-subject"), subject.as_deref());
            let tags = format!("t{number}, u{number}");
            assert_eq!(answer.header("oci-tag"), reference.contains('?').then_some(tags.as_str()));
        }
        for reference in [&digest, &format!("t{number}"), &format!("u{number}")] {
            let path = format!("/v2/team/app/manifests/{reference}");
            let accept = [("Accept", OCI_INDEX), ("Accept", OCI_MANIFEST)];
            let whole = server.send("GET", &path, &accept, "").is(200);
            assert!(whole.body == text.as_bytes(), "{reference}");
            for answer in [whole, server.send("HEAD", &path, &accept, "").is(200)] {
                answer
                    .has("Content-Type", media_type)
                    .has("Content-Length", &text.len().to_string())
                    .has("Docker-Content-Digest", &digest)
                    .has("ETag", &format!("\"{digest}\""));
            }
            let known = [("If-None-Match", &*format!("\"{digest}\""))];
            server.send("GET", &path, &known, "").is(304).has("Docker-Content-Digest", &digest);
        }
    }
    for (number, (_, text)) in data.manifests.iter().enumerate().rev() {
        let by_digest = digest(data.algorithm, text);
        for reference in [format!("t{number}"), by_digest, format!("u{number}")] {
            let path = format!("/v2/team/app/manifests/{reference}");
            // The second tag goes with the manifest.
            server.delete(&path).is(if reference.starts_with('u') { 404 } else { 202 });
            server.get(&path).refused(404, "MANIFEST_UNKNOWN", &reference);
            server.head(&path).is(404);
        }
    }
    for bytes in &data.blobs {
        // Two manifests of one kind may share a blob.
        assert!(matches!(server.delete(&blob_path(bytes)).status, 202 | 404));
        server.head(&blob_path(bytes)).is(404);
    }
}

#[test]
fn manifests_that_are_not_there_or_not_what_their_digest_says() {
    let server = Orlop::start();
    let manifest = server.push_image("team/app", "latest", 1);
    for algorithm in ALGORITHMS {
        let missing = digest(algorithm, "missing");
        for reference in [missing.as_str(), "missing-tag"] {
            let path = format!("/v2/team/app/manifests/{reference}");
            server.get(&path).refused(404, "MANIFEST_UNKNOWN", reference);
            server.head(&path).is(404);
            server.delete(&path).refused(404, "MANIFEST_UNKNOWN", reference);
        }
        let own = digest(algorithm, &manifest);
        let spaced = format!("{manifest}  ");
        server.put_manifest("team/app", &own, OCI_MANIFEST, &spaced).refused(400, "DIGEST_INVALID", &own);
        server.get(&format!("/v2/team/app/manifests/{}", digest(algorithm, &spaced))).is(404);
    }
    let path = "/v2/team/app/manifests/sha256:baddigeststring";
    server.put_manifest("team/app", "sha256:baddigeststring", OCI_MANIFEST, &manifest).refused(
        400,
        "DIGEST_INVALID",
        "baddigeststring",
    );
    server.get(path).refused(400, "DIGEST_INVALID", "baddigeststring");
    server.get("/v2/team/app/manifests/latest").is(200).has("Docker-Content-Digest", &sha256(&manifest));
}
