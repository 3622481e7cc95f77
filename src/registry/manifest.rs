//! Manifests: what their JSON says, checked once, when they are pushed.
//!
//! OCI image manifests and indexes (image-spec 1.1, *manifest.md*, *image-index.md*) and Docker schema 2 manifests and lists.
//! The bytes are never changed. Refused is what two readers could understand differently: duplicate keys at any depth, a
//! `mediaType` that is not the Content-Type, a document that is both image and index (CVE-2021-41190).

use std::collections::HashMap;

use serde::Deserialize;

use crate::{
    digest::Digest,
    journal::operation::{ManifestContent, NamedReference, Role},
    registry::json,
};

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The types that a manifest can be stored under.
pub const MEDIA_TYPES: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

/// Longest media type in bytes (RFC 6838, section 4.2: 127 for each half).
const MEDIA_TYPE_LEN_MAX: usize = 255;

/// Why a manifest is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, too deep, or with duplicate keys.
    #[error(transparent)]
    Json(#[from] json::JsonError),
    /// JSON, but not a manifest's.
    #[error("{0}")]
    Shape(String),
    /// A Content-Type that names no kind of manifest.
    #[error("media type \"{0}\" is not supported; push an OCI image manifest or index, or a Docker schema 2 one")]
    MediaType(String),
    /// The document says another type than the request.
    #[error("the document's mediaType is \"{document}\", the request's Content-Type \"{request}\"; make them equal")]
    MediaTypesDiffer {
        /// In the document.
        document: String,
        /// In the request.
        request: String,
    },
    /// More descriptors than the setting allows.
    #[error("the manifest names {found} descriptors, the most that this registry accepts is {max}")]
    TooManyReferences {
        /// Descriptors in it.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A descriptor that is wrong.
    #[error("{place}: {problem}")]
    Descriptor {
        /// Where, such as `layers[3]`.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<serde_json::Number>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    size: serde_json::Number,
}

/// Bounds on what a manifest may hold.
#[derive(Debug, Clone, Copy)]
pub struct ManifestBounds {
    /// Most descriptors.
    pub references_max: usize,
    /// Deepest nesting of arrays and objects.
    pub depth_max: usize,
}

/// Parses a manifest. `content_type` is the request's, if it had one.
///
/// # Errors
/// Everything that makes it unacceptable by itself; whether what it names is there is decided by the state.
pub fn parse(
    bytes: &[u8],
    content_type: Option<&str>,
    bounds: ManifestBounds,
) -> Result<ManifestContent, ManifestError> {
    json::check(bytes, bounds.depth_max)?;
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| ManifestError::Shape(format!("not a manifest: {error}")))?;
    let media_type = media_type(&document, content_type)?;
    check_shape(&document, &media_type)?;
    let artifact_type = document
        .artifact_type
        .clone()
        .filter(|text| !text.is_empty())
        .or_else(|| document.config.as_ref().and_then(|config| config.media_type.clone()));
    if let Some(long) = artifact_type.as_ref().filter(|text| text.len() > MEDIA_TYPE_LEN_MAX) {
        let problem = format!("a media type has at most {MEDIA_TYPE_LEN_MAX} bytes, not {}", long.len());
        return Err(ManifestError::Descriptor { place: "artifactType".to_owned(), problem });
    }
    let references = references(&document, bounds.references_max)?;
    let subject = match &document.subject {
        Some(subject) => Some(checked(subject, || "subject".to_owned())?.0),
        None => None,
    };
    Ok(ManifestContent { size: bytes.len() as u64, media_type, artifact_type, subject, references })
}

/// The type that the manifest is stored and served under: the request's, else the document's, else by its shape.
/// Parameters such as `charset` are left out: they do not change what it is.
fn media_type(document: &Document, content_type: Option<&str>) -> Result<String, ManifestError> {
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_owned();
    let request = content_type.map(essence).filter(|text| !text.is_empty());
    let media_type = match (request, &document.media_type) {
        (Some(request), Some(document)) if request != *document => {
            return Err(ManifestError::MediaTypesDiffer { document: clip(document), request: clip(&request) });
        }
        (Some(request), _) => request,
        (None, Some(document)) => document.clone(),
        (None, None) if document.manifests.is_some() => OCI_INDEX.to_owned(),
        (None, None) => OCI_MANIFEST.to_owned(),
    };
    if is_manifest_type(&media_type) { Ok(media_type) } else { Err(ManifestError::MediaType(clip(&media_type))) }
}

/// Whether a type is that of an index or list.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

fn is_manifest_type(media_type: &str) -> bool {
    MEDIA_TYPES.contains(&media_type)
}

fn check_shape(document: &Document, media_type: &str) -> Result<(), ManifestError> {
    let shape = |problem: &str| Err(ManifestError::Shape(format!("a document of type {media_type} {problem}")));
    if document.schema_version.as_ref().and_then(serde_json::Number::as_u64) != Some(2) {
        return shape("needs \"schemaVersion\": 2");
    }
    if document.fs_layers.is_some() {
        return shape("has no \"fsLayers\": that is Docker schema 1, which is not supported; push again as schema 2");
    }
    if is_index(media_type) {
        if document.config.is_some() || document.layers.is_some() {
            return shape("has neither \"config\" nor \"layers\"");
        }
        if document.manifests.is_none() {
            return shape("needs \"manifests\"");
        }
    } else {
        if document.manifests.is_some() {
            return shape("has no \"manifests\"");
        }
        if document.config.is_none() || document.layers.is_none() {
            return shape("needs \"config\" and \"layers\"");
        }
    }
    Ok(())
}

fn references(document: &Document, max: usize) -> Result<Vec<NamedReference>, ManifestError> {
    let layers = document.layers.iter().flatten();
    let manifests = document.manifests.iter().flatten();
    let all = (document.config.iter().map(|descriptor| ("config", 0, descriptor)))
        .chain(layers.enumerate().map(|(index, descriptor)| ("layers", index, descriptor)))
        .chain(manifests.enumerate().map(|(index, descriptor)| ("manifests", index, descriptor)));
    let found = all.clone().count() + usize::from(document.subject.is_some());
    if found > max {
        return Err(ManifestError::TooManyReferences { found, max });
    }
    let mut sizes: HashMap<Digest, u64> = HashMap::with_capacity(found);
    let mut references: HashMap<(Role, Digest), ()> = HashMap::with_capacity(found);
    let mut listed = Vec::with_capacity(found);
    for (field, index, descriptor) in all {
        let place = || if field == "config" { field.to_owned() } else { format!("{field}[{index}]") };
        let (digest, size) = checked(descriptor, place)?;
        if *sizes.entry(digest).or_insert(size) != size {
            let problem = format!("{digest} stands elsewhere in the manifest with another size");
            return Err(ManifestError::Descriptor { place: place(), problem });
        }
        let role = role(field, descriptor.media_type.as_deref().unwrap_or_default());
        if references.insert((role, digest), ()).is_none() {
            listed.push(NamedReference { role, digest, size });
        }
    }
    Ok(listed)
}

fn role(field: &str, media_type: &str) -> Role {
    match field {
        "config" => Role::Config,
        "manifests" if is_manifest_type(media_type) => Role::Child,
        "manifests" => Role::IndexedBlob,
        // image-spec, layer.md, "Non-Distributable Layers", and Docker's foreign layers.
        _ if media_type.contains(".nondistributable.") || media_type.contains(".foreign.") => Role::ForeignLayer,
        _ => Role::Layer,
    }
}

fn checked(descriptor: &Descriptor, place: impl Fn() -> String) -> Result<(Digest, u64), ManifestError> {
    let wrong = |problem: String| ManifestError::Descriptor { place: place(), problem };
    let digest = descriptor.digest.parse().map_err(|error: crate::digest::DigestError| wrong(error.to_string()))?;
    // image-spec, descriptor.md: "size" is an int64.
    let size = descriptor.size.as_u64().filter(|&size| i64::try_from(size).is_ok());
    let size = size.ok_or_else(|| wrong(format!("size {} is not a number of bytes", descriptor.size)))?;
    match &descriptor.media_type {
        Some(text) if !text.is_empty() && text.len() <= MEDIA_TYPE_LEN_MAX => Ok((digest, size)),
        Some(_) => Err(wrong(format!("mediaType must have 1 to {MEDIA_TYPE_LEN_MAX} bytes"))),
        None => Err(wrong("mediaType is missing".to_owned())),
    }
}

fn clip(text: &str) -> String {
    text.chars().take(MEDIA_TYPE_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: ManifestBounds = ManifestBounds { references_max: 4, depth_max: 16 };
    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const E: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

    fn image(layers: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c/c","digest":"{D}","size":0}},"layers":[{layers}],"x":[{{}}]}}"#
        )
    }

    fn layer(media_type: &str, digest: &str, size: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    }

    #[test]
    fn an_image_names_its_config_and_layers() {
        let foreign = layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", E, "3");
        let text = image(&[layer("l/l", D, "0"), foreign, layer("l/l", D, "0")].join(","));
        let content = parse(text.as_bytes(), Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), BOUNDS);
        let content = content.unwrap();
        let roles: Vec<_> = content.references.iter().map(|r| (r.role, r.digest.to_string(), r.size)).collect();
        let expected =
            [(Role::Config, D.to_owned(), 0), (Role::Layer, D.to_owned(), 0), (Role::ForeignLayer, E.to_owned(), 3)];
        assert_eq!(roles, expected);
        assert_eq!((content.media_type.as_str(), content.artifact_type.as_deref()), (OCI_MANIFEST, Some("c/c")));
        assert_eq!(content.size, text.len() as u64);
    }

    #[test]
    fn an_index_names_children_and_blobs() {
        let children =
            [layer(OCI_MANIFEST, D, "5"), layer("application/vnd.buildkit.cacheconfig.v0", E, "3")].join(",");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{children}],"subject":{}}}"#,
            layer("m/m", E, "1")
        );
        let content = parse(text.as_bytes(), None, BOUNDS).unwrap();
        assert_eq!(content.media_type, OCI_INDEX);
        assert_eq!(content.subject.map(|d| d.to_string()).as_deref(), Some(E));
        let roles: Vec<_> = content.references.iter().map(|r| r.role).collect();
        assert_eq!(roles, [Role::Child, Role::IndexedBlob]);
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_its_reason() {
        let both = format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}}"#, layer("c/c", D, "0"));
        let cases: Vec<(String, Option<&str>, &str)> = vec![
            ("".into(), None, "JSON"),
            ("[]".into(), None, "not a manifest"),
            ("{}".into(), None, "schemaVersion"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None, "schemaVersion"),
            (r#"{"schemaVersion":2,"fsLayers":[]}"#.into(), None, "schema 1"),
            (r#"{"schemaVersion":2}"#.into(), None, "\"config\" and \"layers\""),
            (r#"{"schemaVersion":2,"mediaType":"text/plain"}"#.into(), None, "not supported"),
            (image(""), Some("text/plain"), "not supported"),
            (image(""), Some(OCI_INDEX), "neither"),
            (both.clone(), Some(OCI_INDEX), "neither"),
            (both, Some(OCI_MANIFEST), "has no \"manifests\""),
            (image(&layer("l/l", "sha256:00", "1")), None, "layers[0]: a sha256 digest has 64"),
            (image(&layer("l/l", "md5:00", "1")), None, "not supported"),
            (image(&layer("l/l", E, "-1")), None, "layers[0]: size -1"),
            (image(&layer("l/l", E, "1.5")), None, "size 1.5"),
            (image(&layer("l/l", E, "18446744073709551615")), None, "layers[0]: size"),
            (image(&layer("", E, "1")), None, "mediaType must have"),
            (image(&layer("l/l", D, "1")), None, "another size"),
            (
                image(
                    &[layer("l/l", E, "1"), layer("l/l", E, "1"), layer("l/l", E, "1"), layer("l/l", E, "1")].join(","),
                ),
                None,
                "names 5 descriptors",
            ),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}"}}"#),
                Some(OCI_MANIFEST),
                "make them equal",
            ),
            (r#"{"schemaVersion":2,"schemaVersion":2}"#.into(), None, "twice"),
        ];
        for (text, content_type, reason) in cases {
            let error = parse(text.as_bytes(), content_type, BOUNDS).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}\n{error}");
        }
    }
}
