//! What clients do that cannot be run in a test: their requests in their order, one connection each, as their sources and
//! documents tell. A sequence is data; `play` sends it and holds each answer to what that client needs of it.

use std::collections::HashMap;

use serde_json::json;

use crate::harness::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Orlop, descriptor, image, noise, sha256};

/// Builders and builders' caches.
mod builders;
/// containerd and what is made of it.
mod containerd;
/// docker.
mod docker;

/// What a request brings with it.
#[derive(Clone, Copy)]
enum Sent {
    /// No body; `Content-Length: 0` where a method has one.
    Nothing,
    /// A content by name, its length told.
    Whole(&'static str),
    /// A content by name in the chunked transfer coding.
    Chunked(&'static str),
}

/// A request and what its answer must be.
///
/// In all texts `{name}` stands for the digest of a content, `{name%}` for the same in a query, `{location}` for the
/// Location that was told last, verbatim, and `{location&}` for that with a `?` or `&` after it.
#[derive(Clone, Copy)]
struct Step {
    request: &'static str,
    headers: &'static [&'static str],
    sent: Sent,
    status: u16,
    /// Headers that the client reads: `Name: value`, or `Name: *` for any value.
    told: &'static [&'static str],
    /// The content that the body must be, from a byte on.
    gets: Option<(&'static str, usize)>,
}

const fn step(request: &'static str, status: u16) -> Step {
    Step { request, headers: &[], sent: Sent::Nothing, status, told: &[], gets: None }
}

impl Step {
    const fn with(self, headers: &'static [&'static str]) -> Self {
        Self { headers, ..self }
    }

    const fn sends(self, sent: Sent) -> Self {
        Self { sent, ..self }
    }

    const fn told(self, told: &'static [&'static str]) -> Self {
        Self { told, ..self }
    }

    const fn gets(self, content: &'static str) -> Self {
        self.gets_from(content, 0)
    }

    const fn gets_from(self, content: &'static str, begin: usize) -> Self {
        Self { gets: Some((content, begin)), ..self }
    }
}

/// The contents that sequences name.
fn contents() -> HashMap<&'static str, Vec<u8>> {
    // The layer is long enough for a segment of its own, the config is not.
    let (config, layer) = (noise(1, 900), noise(2, 300_000));
    let typed = |media_type: &str| {
        let mut manifest = image(&config, &[&layer]);
        manifest["mediaType"] = json!(media_type);
        manifest.to_string()
    };
    // buildkit's cache: layers and a config as the entries of an index, none of them a manifest.
    let cache = |media_type: &str, layer_type: &str| {
        let entries = [descriptor(layer_type, &layer), descriptor("application/vnd.buildkit.cacheconfig.v0", &config)];
        json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries }).to_string()
    };
    let mut cache_image = image(&config, &[&layer]);
    cache_image["mediaType"] = json!(OCI_MANIFEST);
    cache_image["config"]["mediaType"] = json!("application/vnd.buildkit.cacheconfig.v0");
    let (manifest, oci_manifest) = (typed(DOCKER_MANIFEST), typed(OCI_MANIFEST));
    let list = json!({
        "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [descriptor(DOCKER_MANIFEST, &manifest)],
    });
    HashMap::from([
        ("oci-manifest", oci_manifest.into_bytes()),
        ("list", list.to_string().into_bytes()),
        ("manifest", manifest.into_bytes()),
        ("cache-list", cache(DOCKER_LIST, "application/vnd.docker.image.rootfs.diff.tar.gzip").into_bytes()),
        ("cache-index", cache(OCI_INDEX, "application/vnd.oci.image.layer.v1.tar+gzip").into_bytes()),
        ("cache-image", cache_image.to_string().into_bytes()),
        ("config", config),
        ("layer", layer),
    ])
}

/// Sends the steps on one connection, as clients keep theirs.
fn play(server: &Orlop, steps: &[Step]) {
    let contents = contents();
    let mut connection = server.connect();
    let mut location = String::new();
    for step in steps {
        let filled = |text: &str| fill(text, &contents, &location);
        let (method, target) = step.request.split_once(' ').unwrap();
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: registry:5000\r\nUser-Agent: habits\r\n", filled(target));
        for header in step.headers {
            head.push_str(&format!("{}\r\n", filled(header)));
        }
        match step.sent {
            Sent::Nothing if matches!(method, "POST" | "PUT" | "PATCH") => head.push_str("Content-Length: 0\r\n"),
            Sent::Nothing => {}
            Sent::Whole(name) => head.push_str(&format!("Content-Length: {}\r\n", contents[name].len())),
            Sent::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        connection.say(head + "\r\n");
        match step.sent {
            Sent::Nothing => {}
            Sent::Whole(name) => drop(connection.say(&contents[name])),
            Sent::Chunked(name) => {
                for chunk in contents[name].chunks(32 << 10) {
                    connection.say_chunk(chunk);
                }
                connection.say_chunk(b"");
            }
        }
        let what = format!("{} {}", step.request, step.headers.join(", "));
        let answer = connection.try_answer(method == "HEAD").unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer.status, step.status, "{what}: {answer:?}");
        for told in step.told {
            let (name, value) = told.split_once(": ").unwrap();
            match (answer.header(name), filled(value)) {
                (Some(_), any) if any == "*" => {}
                (found, value) => assert_eq!(found, Some(value.as_str()), "{name} of the answer to {what}"),
            }
        }
        if let Some((name, begin)) = step.gets {
            assert!(answer.body == contents[name][begin..], "{what}: other bytes than {name}");
        }
        if let Some(next) = answer.header("location") {
            location = next.to_owned();
        }
    }
}

/// Puts digests and the location into a text.
fn fill(text: &str, contents: &HashMap<&str, Vec<u8>>, location: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    let mut text = text.replace("{location&}", &format!("{location}{separator}")).replace("{location}", location);
    for (name, bytes) in contents {
        let digest = sha256(bytes);
        text =
            text.replace(&format!("{{{name}%}}"), &digest.replace(':', "%3A")).replace(&format!("{{{name}}}"), &digest);
    }
    assert!(!text.contains('{'), "{text} names a content that there is not");
    text
}
