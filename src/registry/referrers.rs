//! Referrers: the manifests of a repository that name a subject, told as an image index (distribution-spec, *Listing
//! Referrers*).
//!
//! A page is bounded in rows, in bytes of manifests that are read for it, and in its own length, whatever a client has
//! pushed, deleted or filters for: so it may be short, or empty, and yet not the last. Annotations are not in the
//! index: they are read from the stored bytes, checked as for a pull, so damage is an error and never a shorter list.
//! It is not asked whether the subject is there: it may come later, and may have been deleted.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{Registry, RegistryError, manifest::OCI_INDEX, missing, repository_id};
use crate::{
    digest::Digest,
    index::{
        Row, View, prefix_end,
        schema::{self, ManifestRow, SchemaError, key},
    },
    journal::operation::RepositoryId,
    name::RepositoryName,
    store::StoreError,
};

/// Bytes of manifests that are read for one page: enough for a thousand signatures, and for a few manifests of the
/// largest size.
const READ_BYTES_MAX: u64 = 16 << 20;

/// Which referrers are asked for.
#[derive(Debug, Clone, Default)]
pub struct ReferrersWanted {
    /// Only those of one of these artifact types; of any when there is none.
    pub artifact_types: Vec<String>,
    /// Only those behind this one; see [`ReferrersPage::next`].
    pub after: Option<Digest>,
    /// Most of them; at most [`ReferrersWanted::LIMIT_MAX`].
    pub limit: usize,
}

impl ReferrersWanted {
    /// Most referrers of one page, and most that are looked at for one.
    pub const LIMIT_MAX: usize = 1_000;

    fn matches(&self, row: &ManifestRow) -> bool {
        let types = &self.artifact_types;
        !row.deleted && (types.is_empty() || row.artifact_type.as_ref().is_some_and(|found| types.contains(found)))
    }
}

/// A part of the list, in the order of digests.
#[derive(Debug, Clone)]
pub struct ReferrersPage {
    /// An OCI image index as JSON. No longer than the largest manifest, if it has more than one descriptor.
    pub index: Bytes,
    /// Whom the next page follows; `None` at the end.
    pub next: Option<Digest>,
}

impl Registry {
    /// A page of the present manifests that name `subject`; an empty one when there are none, or no such repository.
    ///
    /// # Errors
    /// When a manifest's stored bytes are damaged, or the store fails.
    pub fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        wanted: &ReferrersWanted,
    ) -> Result<ReferrersPage, RegistryError> {
        let mut page = PageWriter::new(self.options.manifest_bytes_max, READ_BYTES_MAX);
        let limit = wanted.limit.min(ReferrersWanted::LIMIT_MAX);
        let view = self.store.snapshot();
        let id = repository_id(&*view, repository)?;
        let Some(id) = id.filter(|_| limit > 0) else { return Ok(page.finish(None)) };
        // A filter passes over rows; without one a page of few referrers needs few.
        let rows_max = if wanted.artifact_types.is_empty() { limit } else { ReferrersWanted::LIMIT_MAX };
        let rows = rows(&*view, id, subject, wanted.after.as_ref(), rows_max.saturating_add(1))?;
        let mut last = None;
        for (at, digest) in rows.into_iter().enumerate() {
            if at == rows_max || page.count == limit {
                return Ok(page.finish(last));
            }
            let row = schema::expect(&*view, key::manifest(id, &digest)).map_err(StoreError::from)?;
            if wanted.matches(&row) {
                if !page.may_read(row.size) {
                    return Ok(page.finish(last));
                }
                let Some(content) = self.store.content(&digest)? else {
                    let present: Option<ManifestRow> = super::row(&*self.store.snapshot(), key::manifest(id, &digest))?;
                    if present.is_some() {
                        return Err(missing(&digest));
                    }
                    // Dropped since the view was taken.
                    continue;
                };
                let bytes = content.read_all()?;
                if !page.add(&descriptor(&digest, &row, &bytes)?) {
                    return Ok(page.finish(last));
                }
            }
            last = Some(digest);
        }
        Ok(page.finish(None))
    }
}

/// Digests of manifests that name the subject, deleted ones included.
fn rows(
    view: &dyn View,
    repository: RepositoryId,
    subject: &Digest,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<Digest>, StoreError> {
    let prefix = key::referrers(repository, subject).bytes();
    let from = match after {
        Some(after) => [key::referrer(repository, subject, after).bytes(), vec![0]].concat(),
        None => prefix.clone(),
    };
    let rows = view.scan(&from, &prefix_end(&prefix), limit)?;
    let referrer = |(key, _): &Row| match Digest::decode(&key[prefix.len()..]) {
        Some((digest, [])) => Ok(digest),
        _ => Err(SchemaError::Missing { table: "referrers" }.into()),
    };
    rows.iter().map(referrer).collect()
}

/// The index being written.
struct PageWriter {
    json: String,
    count: usize,
    len_max: usize,
    read_bytes: u64,
    read_bytes_max: u64,
}

impl PageWriter {
    const END: &str = "]}";

    fn new(len_max: usize, read_bytes_max: u64) -> Self {
        let json = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":["#);
        Self { json, count: 0, len_max, read_bytes: 0, read_bytes_max }
    }

    /// Whether a manifest of that size may be read for this page; the first always may.
    fn may_read(&mut self, size: u64) -> bool {
        self.read_bytes = self.read_bytes.saturating_add(size);
        self.count == 0 || self.read_bytes <= self.read_bytes_max
    }

    /// Adds a descriptor if it fits; the first always does, as the list would not go on otherwise.
    fn add(&mut self, descriptor: &str) -> bool {
        let len = self.json.len() + 1 + descriptor.len() + Self::END.len();
        if self.count > 0 && len > self.len_max {
            return false;
        }
        if self.count > 0 {
            self.json.push(',');
        }
        self.json.push_str(descriptor);
        self.count += 1;
        true
    }

    fn finish(mut self, next: Option<Digest>) -> ReferrersPage {
        self.json.push_str(Self::END);
        ReferrersPage { index: self.json.into(), next }
    }
}

/// A referrer's descriptor as JSON. About as long as the manifest at most.
fn descriptor(digest: &Digest, row: &ManifestRow, bytes: &[u8]) -> Result<String, RegistryError> {
    let mut json = format!(r#"{{"mediaType":{},"digest":"{digest}","size":{}"#, text(&row.media_type), row.size);
    if let Some(artifact_type) = row.artifact_type.as_ref().filter(|text| !text.is_empty()) {
        json += &format!(r#","artifactType":{}"#, text(artifact_type));
    }
    let annotations = match serde_json::from_slice::<Annotated>(bytes) {
        Ok(document) => document.annotations,
        // Annotations that are not texts by names. A client would refuse the whole list for them.
        Err(error) if error.is_data() => None,
        Err(error) => return Err(RegistryError::Corrupt(format!("manifest {digest} is no JSON any more: {error}"))),
    };
    if let Some(Annotations(annotations)) = annotations {
        json += &format!(r#","annotations":{annotations}"#);
    }
    json.push('}');
    Ok(json)
}

fn text(text: &str) -> String {
    Value::from(text).to_string()
}

#[derive(Deserialize)]
struct Annotated {
    annotations: Option<Annotations>,
}

/// A map from text to text, as JSON. Written while it is read: a map of millions of short texts would take many times
/// their length.
struct Annotations(String);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AnnotationsVisitor)
    }
}

struct AnnotationsVisitor;

impl<'de> de::Visitor<'de> for AnnotationsVisitor {
    type Value = Annotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("texts by names")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Annotations, A::Error> {
        let mut json = String::from("{");
        while let Some((name, value)) = entries.next_entry::<String, String>()? {
            if json.len() > 1 {
                json.push(',');
            }
            json += &text(&name);
            json.push(':');
            json += &text(&value);
        }
        json.push('}');
        Ok(Annotations(json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    fn row(artifact_type: Option<&str>) -> ManifestRow {
        ManifestRow {
            manifest: 1,
            size: 7,
            deleted: false,
            root: false,
            stays_root: false,
            tags: 0,
            attached: false,
            told: 0,
            references: 0,
            references_hash: Digest::of(Algorithm::Sha256, b""),
            pushed_ms: 0,
            left_ms: 0,
            held_until_ms: 0,
            media_type: OCI_INDEX.to_owned(),
            artifact_type: artifact_type.map(str::to_owned),
            subject: None,
        }
    }

    #[test]
    fn a_descriptor_tells_type_artifact_type_and_annotations() {
        let digest = Digest::of(Algorithm::Sha512, b"");
        let base = format!(r#"{{"mediaType":"{OCI_INDEX}","digest":"{digest}","size":7"#);
        let cases = [
            (None, r#"{"x":[{"annotations":{"a":"b"}}]}"#, ""),
            (Some(""), "{}", ""),
            (Some("a/b"), r#"{"annotations":{}}"#, r#","artifactType":"a/b","annotations":{}"#),
            (Some("\"\\"), r#"{"annotations":null}"#, r#","artifactType":"\"\\""#),
            (None, r#"{"annotations":{"b":"\u0041\"\n","a":"é"}}"#, r#","annotations":{"b":"A\"\n","a":"é"}"#),
            (None, r#"{"annotations":{"a":"b","c":1}}"#, ""),
            (None, r#"{"annotations":["a"]}"#, ""),
        ];
        for (artifact_type, document, rest) in cases {
            let found = descriptor(&digest, &row(artifact_type), document.as_bytes()).unwrap();
            assert_eq!(found, format!("{base}{rest}}}"), "{document}");
            assert!(serde_json::from_str::<Value>(&found).is_ok());
        }
        let error = descriptor(&digest, &row(None), b"{").unwrap_err();
        assert!(matches!(error, RegistryError::Corrupt(_)), "{error}");
    }

    #[test]
    fn a_page_ends_before_a_descriptor_that_does_not_fit_and_never_before_its_first() {
        let empty = PageWriter::new(0, 0).finish(None).index;
        let mut page = PageWriter::new(empty.len() + 9, 10);
        assert!(page.may_read(11) && page.add("1234567"), "the first comes always");
        assert!(!page.may_read(0), "it has read too much");
        assert!(page.add("8") && !page.add(""));
        assert_eq!(page.finish(None).index.len(), empty.len() + 9);
        let mut page = PageWriter::new(0, 10);
        assert!(page.add("longer") && !page.add(""));
    }

    #[test]
    fn annotations_of_any_number_come_out_as_they_were() {
        let entries: Vec<String> = (0..100_000).map(|n| format!(r#""{n}":"""#)).collect();
        let document = format!(r#"{{"annotations":{{{}}}}}"#, entries.join(","));
        let found: Annotated = serde_json::from_str(&document).unwrap();
        assert_eq!(found.annotations.unwrap().0.len(), document.len() - r#"{"annotations":}"#.len());
    }
}
