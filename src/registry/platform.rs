//! The one image of an index that a client gets which knows no indexes.
//!
//! It is that for linux/amd64, which Docker's registry has always taken for such clients. Nothing else is chosen for anybody:
//! clients that know indexes choose by themselves.

use serde::Deserialize;

use super::{Manifest, Reads, Reference, RegistryError};
use crate::{digest::Digest, name::RepositoryName};

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: Option<String>,
    os: Option<String>,
}

impl Reads<'_> {
    /// What an index names first for linux/amd64, without its bytes. `None` when it names nothing for that platform, or what it
    /// names is not there; also for what is no index.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn default_image(
        &self,
        repository: &RepositoryName,
        index: &Digest,
    ) -> Result<Option<Manifest>, RegistryError> {
        let index = self.manifest(repository, &Reference::Digest(*index))?;
        let Some(digest) = default_entry(&index.bytes) else { return Ok(None) };
        match self.manifest_head(repository, &Reference::Digest(digest)) {
            Ok(image) => Ok(Some(image)),
            Err(RegistryError::ManifestUnknown { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn default_entry(index: &[u8]) -> Option<Digest> {
    let index: Index = serde_json::from_slice(index).ok()?;
    let is_default = |platform: &Platform| {
        platform.os.as_deref() == Some("linux") && platform.architecture.as_deref() == Some("amd64")
    };
    let entry = index.manifests.into_iter().find(|entry| entry.platform.as_ref().is_some_and(is_default));
    entry?.digest.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn the_first_entry_for_linux_amd64_is_taken() {
        let digest = |n: u8| Digest::of(Algorithm::Sha256, &[n]);
        let entry = |n, platform: &str| format!(r#"{{"digest":"{}"{platform}}}"#, digest(n));
        let (arm, amd) = (
            r#","platform":{"os":"linux","architecture":"arm64"}"#,
            r#","platform":{"architecture":"amd64","os":"linux","variant":"v3"}"#,
        );
        let windows = r#","platform":{"architecture":"amd64","os":"windows"}"#;
        let cases: [(&[String], Option<Digest>); 5] = [
            (&[], None),
            (&[entry(1, ""), entry(2, windows), entry(3, arm)], None),
            (&[entry(1, r#","platform":null"#), entry(2, r#","platform":{}"#)], None),
            (&[entry(1, ""), entry(2, windows), entry(3, amd), entry(4, amd)], Some(digest(3))),
            (&[format!(r#"{{"digest":"md5:00"{amd}}}"#), entry(4, amd)], None),
        ];
        for (entries, expected) in cases {
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            assert_eq!(default_entry(index.as_bytes()), expected, "{index}");
        }
        assert_eq!(default_entry(b"{}"), None);
        assert_eq!(default_entry(b"no json"), None);
    }
}
