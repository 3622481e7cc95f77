//! What a snapshot says: primary facts, and their bytes.
//!
//! A *fact* is a part of the state that follows from nothing else. What follows (names, counts, usage, due times, live bytes)
//! is no fact: `state::facts` derives it again. So facts know no table and no version of the index. Each begins with its
//! kind and its version, as operations do; an unknown one is refused by name. The bytes are told in FORMAT.md, *Facts*.

use crate::{
    codec::{DecodeError, Decoder, Encoder},
    digest::Digest,
    location::{Location, RecordKind, SegmentNumber},
    name::{Owner, RepositoryName, Tag},
    policy::Policy,
};

use super::operation::{
    DropKind, ManifestId, NamedReference, OrganisationId, Pausable, RepositoryId, SessionId, decode_reference,
    encode_reference,
};

/// Version of every fact but [`Fact::Tag`], which has 2: the first did not say when its manifest was pulled.
pub const VERSION: u8 = 1;

/// Declares the facts: kind, name, version where that is not 1, and the fields in the order of their bytes. A field that
/// earlier versions do not have tells its value in those.
macro_rules! facts {
    (@version) => { VERSION };
    (@version $version:literal) => { $version };
    (@get $d:ident, $version:ident, $field:expr) => { Field::get(&mut $d, $field)? };
    (@get $d:ident, $version:ident, $field:expr, $absent:literal, $since:literal) => {
        if $version < $since { $absent } else { Field::get(&mut $d, $field)? }
    };
    ($($(#[$doc:meta])* $kind:literal $name:ident $(version $version:literal)? {
        $($(#[$field_doc:meta])* $field:ident: $type:ty $(= $absent:literal before $since:literal)?,)*
    })*) => {
        /// A part of the state at some point of the history.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Fact {
            $($(#[$doc])* $name { $($(#[$field_doc])* $field: $type,)* },)*
        }

        impl Fact {
            /// Its bytes.
            pub fn encode(&self) -> Vec<u8> {
                let mut e = Encoder::new();
                match self {
                    $(Self::$name { $($field,)* } => {
                        e.u8($kind).u8(facts!(@version $($version)?));
                        $($field.put(&mut e);)*
                    })*
                }
                e.finish()
            }

            /// Reads what [`Self::encode`] wrote.
            ///
            /// # Errors
            /// On anything else, an unknown kind or version included.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let mut d = Decoder::new(bytes);
                let (kind, version) = (d.u8("fact kind")?, d.u8("fact version")?);
                let unknown = |field| DecodeError { field, problem: "unknown; a newer orlop wrote it" };
                let newest = match kind {
                    $($kind => facts!(@version $($version)?),)*
                    _ => version,
                };
                if !(1..=newest).contains(&version) {
                    return Err(unknown("fact version"));
                }
                let fact = match kind {
                    $($kind => Self::$name {
                        $($field: facts!(@get d, version, stringify!($field) $(, $absent, $since)?),)*
                    },)*
                    _ => return Err(unknown("fact kind")),
                };
                d.finish("fact")?;
                Ok(fact)
            }
        }
    };
}

facts! {
    /// An organisation has its id.
    1 Organisation {
        /// Its id.
        organisation: OrganisationId,
        /// Its name.
        name: String,
    }
    /// A repository has its id.
    2 Repository {
        /// Its id.
        repository: RepositoryId,
        /// Its organisation's id.
        organisation: OrganisationId,
        /// Its name.
        name: RepositoryName,
        /// When it was first named, in Unix milliseconds.
        created_ms: u64,
    }
    /// The journal has named a segment.
    3 Segment {
        /// Its number.
        segment: SegmentNumber,
        /// Whether it holds one record only.
        single: bool,
        /// Whether it takes no more records.
        sealed: bool,
        /// The highest place that the journal has in it, in bytes.
        committed_end: u64,
        /// Bytes of dead records in it that were erased.
        erased_bytes: u64,
    }
    /// Content lies in a segment.
    4 Blob {
        /// The content.
        digest: Digest,
        /// Blob or manifest.
        kind: RecordKind,
        /// Its length in bytes.
        size: u64,
        /// Its record.
        location: Location,
        /// The record's length in bytes, with checksums and padding.
        record_len: u64,
    }
    /// A repository may serve a blob.
    5 Link {
        /// The repository.
        repository: RepositoryId,
        /// The blob.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// When it was last uploaded or mounted, in Unix milliseconds.
        linked_ms: u64,
        /// When its grace ends, in Unix milliseconds.
        due_ms: u64,
        /// The repository that it was mounted from, plus one; 0 for an upload.
        mounted_from: u64,
    }
    /// A repository has a manifest, present or deleted.
    6 Manifest {
        /// The repository.
        repository: RepositoryId,
        /// Its id there.
        manifest: ManifestId,
        /// Digest of its bytes.
        digest: Digest,
        /// Length in bytes.
        size: u64,
        /// Whether it was deleted by digest.
        deleted: bool,
        /// Whether it lives by itself. No tag points to such a manifest, and nothing that lives has it as child.
        root: bool,
        /// Whether it stays so although its subject attaches it.
        stays_root: bool,
        /// When it was last pushed, in Unix milliseconds.
        pushed_ms: u64,
        /// When it was deleted or lost its last reach; 0 when neither happened since the last push.
        left_ms: u64,
        /// Until when it can be restored; 0 likewise, and when its window was ended.
        held_until_ms: u64,
        /// The Content-Type that it was pushed with.
        media_type: String,
        /// Its `artifactType`, or its config's media type.
        artifact_type: Option<String>,
        /// The manifest that it refers to.
        subject: Option<Digest>,
        /// What it names, as the operation that pushed it has it.
        references: Vec<NamedReference>,
    }
    /// A tag points to a manifest.
    7 Tag version 2 {
        /// The repository.
        repository: RepositoryId,
        /// The tag.
        tag: Tag,
        /// The manifest's id.
        manifest: ManifestId,
        /// The manifest's digest.
        digest: Digest,
        /// When it was set, in Unix milliseconds.
        set_ms: u64,
        /// When the manifest was known to be pulled when the tag was last due to go, in Unix milliseconds; 0 before that.
        pulled_ms: u64 = 0 before 2,
    }
    /// What a tag pointed to from some operation on.
    8 History {
        /// The repository.
        repository: RepositoryId,
        /// The tag.
        tag: Tag,
        /// The operation.
        lsn: u64,
        /// The manifest's digest; `None` when the tag was removed.
        digest: Option<Digest>,
        /// When, in Unix milliseconds.
        time_ms: u64,
        /// Until when it is kept, in Unix milliseconds; 0 while it is what the tag is.
        until_ms: u64,
    }
    /// An unfinished upload survives a restart.
    9 Upload {
        /// The session.
        session: SessionId,
        /// Where it was started.
        repository: RepositoryName,
        /// The single segment that it writes.
        segment: SegmentNumber,
        /// Bytes of content that are durable.
        bytes: u64,
        /// When they became so, in Unix milliseconds.
        time_ms: u64,
    }
    /// A dead record is not erased yet.
    10 Dead {
        /// Its place.
        location: Location,
        /// Its length in bytes.
        record_len: u64,
    }
    /// An operation dropped something.
    11 Dropped {
        /// The operation.
        lsn: u64,
        /// What it dropped.
        what: DropKind,
        /// The repository that had it.
        repository: RepositoryName,
        /// Its digest.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// When, in Unix milliseconds.
        time_ms: u64,
        /// Whether no repository had it any more.
        last: bool,
        /// When this may be forgotten, in Unix milliseconds.
        until_ms: u64,
    }
    /// A collection has ended.
    12 Reported {
        /// Its number.
        number: u64,
        /// What it came to, as JSON.
        summary: String,
        /// What it dropped one by one, as JSON; empty where that was forgotten.
        items: String,
    }
    /// Some work is paused.
    13 Paused {
        /// What.
        what: Pausable,
        /// Until when, in Unix milliseconds; [`u64::MAX`] until somebody lets it go on.
        until_ms: u64,
    }
    /// What an organisation, or the registry, used on some day, as at its last change.
    14 Sample {
        /// The organisation's id; `None` for the registry.
        organisation: Option<OrganisationId>,
        /// Days since 1970-01-01 (UTC).
        day: u32,
        /// Bytes of the blobs that were named and linked, each counted once.
        used_bytes: u64,
        /// Number of those blobs.
        blobs: u64,
        /// Bytes of the manifests, each counted once.
        manifest_bytes: u64,
        /// Manifests, each counted once.
        manifests: u64,
        /// Tags.
        tags: u64,
        /// Repositories.
        repositories: u64,
        /// Bytes of blobs that only held manifests kept.
        reclaimable_bytes: u64,
    }
    /// What an organisation or a repository may store.
    15 Quota {
        /// Whose.
        owner: Owner,
        /// In bytes.
        limit_bytes: u64,
        /// When it was set, in Unix milliseconds.
        set_ms: u64,
    }
    /// When a manifest was pulled last.
    16 Pulled {
        /// The repository.
        repository: RepositoryId,
        /// The manifest.
        digest: Digest,
        /// In Unix milliseconds: the beginning of the hour.
        pulled_ms: u64,
    }
    /// There is a policy. It comes before all other facts: repositories are governed by it.
    17 Policy {
        /// What it says.
        policy: Box<Policy>,
        /// Whether it stands in the settings.
        from_settings: bool,
        /// Whether it may take more than half of a repository's tags at once.
        confirmed: bool,
        /// When it was set, in Unix milliseconds.
        set_ms: u64,
    }
}

/// A field of a fact.
trait Field: Sized {
    fn put(&self, e: &mut Encoder);
    fn get(d: &mut Decoder<'_>, field: &'static str) -> Result<Self, DecodeError>;
}

macro_rules! field {
    ($type:ty, |$value:ident, $e:ident| $put:expr, |$d:ident, $field:ident| $get:expr) => {
        impl Field for $type {
            fn put(&self, $e: &mut Encoder) {
                let $value = self;
                $put;
            }
            fn get($d: &mut Decoder<'_>, $field: &'static str) -> Result<Self, DecodeError> {
                $get
            }
        }
    };
}

field!(bool, |value, e| e.bool(*value), |d, field| d.bool(field));
field!(u32, |value, e| e.u32(*value), |d, field| d.u32(field));
field!(u64, |value, e| e.u64(*value), |d, field| d.u64(field));
field!(Digest, |value, e| e.digest(value), |d, field| d.digest(field));
field!(String, |value, e| e.str(value), |d, field| d.str(field).map(str::to_owned));
field!(RepositoryName, |value, e| e.str(value.as_str()), |d, field| d.parsed(field));
field!(Owner, |value, e| e.str(&value.code()), |d, field| d.parsed(field));
field!(Tag, |value, e| e.str(value.as_str()), |d, field| d.parsed(field));
field!(Box<Policy>, |value, e| value.encode(e), |d, _field| Policy::decode(d).map(Box::new));
field!(SegmentNumber, |value, e| e.u64(value.0), |d, field| d.u64(field).map(SegmentNumber));
field!(Location, |value, e| e.u64(value.segment.0).u64(value.offset), |d, field| {
    Ok(Location { segment: SegmentNumber(d.u64(field)?), offset: d.u64(field)? })
});
field!(RecordKind, |value, e| e.u8(*value as u8), |d, field| {
    RecordKind::from_code(d.u8(field)?).ok_or(DecodeError { field, problem: "unknown" })
});
field!(DropKind, |value, e| e.u8(*value as u8), |d, field| {
    DropKind::from_code(d.u8(field)?).ok_or(DecodeError { field, problem: "unknown" })
});
field!(Pausable, |value, e| e.u8(*value as u8), |d, field| {
    Pausable::from_code(d.u8(field)?).ok_or(DecodeError { field, problem: "unknown" })
});
field!(SessionId, |value, e| e.raw(value), |d, field| {
    let mut session = [0; 16];
    session.copy_from_slice(d.raw(16, field)?);
    Ok(session)
});
field!(Vec<NamedReference>, |value, e| e.list(value, encode_reference), |d, field| d.list(field, decode_reference));

impl<T: Field> Field for Option<T> {
    fn put(&self, e: &mut Encoder) {
        e.option(self.as_ref(), |e, value| value.put(e));
    }

    fn get(d: &mut Decoder<'_>, field: &'static str) -> Result<Self, DecodeError> {
        d.option(field, |d| T::get(d, field))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{digest::Algorithm, journal::operation::Role};

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    /// One of each kind.
    pub(crate) fn examples() -> Vec<Fact> {
        let location = Location { segment: SegmentNumber(4), offset: 64 };
        let (name, tag): (RepositoryName, Tag) = ("team/app".parse().unwrap(), "latest".parse().unwrap());
        vec![
            Fact::Organisation { organisation: 1, name: "team".to_owned() },
            Fact::Repository { repository: 2, organisation: 1, name: name.clone(), created_ms: 5 },
            Fact::Segment {
                segment: SegmentNumber(4),
                single: false,
                sealed: true,
                committed_end: 4096,
                erased_bytes: 512,
            },
            Fact::Blob { digest: digest("layer"), kind: RecordKind::Blob, size: 5, location, record_len: 128 },
            Fact::Link { repository: 2, digest: digest("layer"), size: 5, linked_ms: 6, due_ms: 77, mounted_from: 2 },
            Fact::Manifest {
                repository: 2,
                manifest: 3,
                digest: digest("manifest"),
                size: 700,
                deleted: true,
                root: false,
                stays_root: false,
                pushed_ms: 7,
                left_ms: 8,
                held_until_ms: 99,
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                artifact_type: Some("application/example".to_owned()),
                subject: Some(digest("subject")),
                references: vec![
                    NamedReference { role: Role::Config, digest: digest("config"), size: 2 },
                    NamedReference { role: Role::Layer, digest: digest("layer"), size: 1 << 40 },
                ],
            },
            Fact::Tag {
                repository: 2,
                tag: tag.clone(),
                manifest: 3,
                digest: digest("manifest"),
                set_ms: 9,
                pulled_ms: 10,
            },
            Fact::History { repository: 2, tag, lsn: 10, digest: None, time_ms: 11, until_ms: 99 },
            Fact::Upload {
                session: [7; 16],
                repository: name.clone(),
                segment: SegmentNumber(5),
                bytes: 1 << 20,
                time_ms: 12,
            },
            Fact::Dead { location, record_len: 128 },
            Fact::Dropped {
                lsn: 13,
                what: DropKind::Manifest,
                repository: name,
                digest: digest("manifest"),
                size: 700,
                time_ms: 14,
                last: true,
                until_ms: 15,
            },
            Fact::Reported { number: 16, summary: "{}".to_owned(), items: "[]".to_owned() },
            Fact::Paused { what: Pausable::Compact, until_ms: u64::MAX },
            Fact::Sample {
                organisation: Some(1),
                day: 16,
                used_bytes: 17,
                blobs: 18,
                manifest_bytes: 19,
                manifests: 20,
                tags: 21,
                repositories: 22,
                reclaimable_bytes: 23,
            },
            Fact::Quota { owner: Owner::Organisation("team".to_owned()), limit_bytes: 24, set_ms: 25 },
            Fact::Pulled { repository: 2, digest: digest("manifest"), pulled_ms: 26 },
            Fact::Policy {
                policy: Box::new(Policy {
                    keep_newest: Some(3),
                    held_for_ms: Some(7_000),
                    ..Policy::new("ci".parse().unwrap(), "ci/**".parse().unwrap())
                }),
                from_settings: true,
                confirmed: false,
                set_ms: 27,
            },
        ]
    }

    #[test]
    fn every_kind_round_trips_and_every_cut_is_refused() {
        for fact in examples() {
            let bytes = fact.encode();
            assert_eq!(Fact::decode(&bytes), Ok(fact));
            (0..bytes.len()).for_each(|len| assert!(Fact::decode(&bytes[..len]).is_err()));
            assert!(Fact::decode(&[bytes, vec![0]].concat()).is_err());
        }
    }

    #[test]
    fn unknown_kinds_and_versions_are_refused_by_name() {
        assert_eq!(Fact::decode(&[200, 1]).unwrap_err().field, "fact kind");
        assert_eq!(Fact::decode(&[1, 9]).unwrap_err().field, "fact version");
    }

    /// Snapshots of the first version say of a tag when it was set last.
    #[test]
    fn a_tag_of_the_first_version_was_not_looked_at() {
        let newest = examples().into_iter().find(|fact| matches!(fact, Fact::Tag { .. })).unwrap().encode();
        let (first, pulled) = newest.split_at(newest.len() - 8);
        assert_eq!((first[..2].to_vec(), pulled), (vec![7, 2], &[10, 0, 0, 0, 0, 0, 0, 0][..]));
        let first = [&[7, 1], &first[2..]].concat();
        assert!(matches!(Fact::decode(&first), Ok(Fact::Tag { set_ms: 9, pulled_ms: 0, .. })));
        assert!(Fact::decode(&[&[7, 3], &newest[2..]].concat()).is_err());
    }

    /// The digest over all kinds' bytes pins the format; a change here is a change of FORMAT.md and CHANGELOG.md.
    #[test]
    fn bytes_of_the_newest_versions_are_pinned() {
        let bytes: Vec<u8> = examples().iter().flat_map(Fact::encode).collect();
        assert_eq!(examples()[0].encode(), b"\x01\x01\x01\0\0\0\x04\0\0\0team");
        assert_eq!(
            (bytes.len(), Digest::of(Algorithm::Sha256, &bytes).to_string().as_str()),
            (990, "sha256:cee28c113f8377c4d3df0078b77afa00fcc680f3390d9c75337fca829ef38393")
        );
    }
}
