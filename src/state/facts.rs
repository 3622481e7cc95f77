//! The state as the facts of a snapshot, and facts as rows again.
//!
//! Facts are what follows from nothing else; [`Loader`] derives the other rows by the functions that `apply` uses, so that
//! the rows of a loaded state are those that the whole history gives, byte for byte. It reads no clock and refuses nothing.
//!
//! Invariants:
//! - [`each`] gives facts in an order in which every fact comes after those that it builds on: policies, organisations,
//!   repositories, segments, blobs, links, manifests, tags, history, uploads.
//! - Nothing is settling in a view that facts are taken of, so lives are the one solution that `life` tells, in whatever
//!   order manifests come; and nothing reaches a root, so no root is taken away.

use std::ops::ControlFlow;

use crate::{
    codec::{DecodeError, Decoder},
    index::{
        Index, Overlay, View,
        schema::{
            self, Applied, BlobRow, DeadRow, DropRow, DueHistoryRow, EmptyRepositoryRow, HistoryRow, INDEX_VERSION,
            Key, LinkRow, ManifestRow, NamedDigest, OrganisationRow, PauseRow, PolicyRow, PullRow, QuotaRow,
            ReferencesRow, ReportRow, RepositoryRow, RowValue, SampleRow, SchemaError, Scope, SegmentRow, Table,
            TagRow, UploadRow, key,
        },
    },
    journal::{
        Chain, Mark, Position,
        fact::Fact,
        operation::{NamedReference, Pausable},
        snapshot::SnapshotHeader,
    },
    location::{Location, SegmentNumber},
    policy::{self, Policy, PolicyName},
    state::{
        apply::{self, drops, manifests, places},
        counts::{self, Change},
        govern::{order, uses},
        hash, samples,
        settle::Lives,
    },
};

/// What a snapshot of the view says about itself; `None` for a state to which nothing was applied.
///
/// # Errors
/// When the index fails or is damaged.
pub fn header(view: &dyn View) -> Result<Option<SnapshotHeader>, SchemaError> {
    let applied: Option<Applied> = schema::get(view, key::applied())?;
    Ok(applied.map(|applied| SnapshotHeader {
        mark: mark(&applied),
        time_ms: applied.time_ms,
        organisations: applied.organisations,
        repositories: applied.repositories,
        manifests: applied.manifests,
        next_segment: applied.next_segment,
    }))
}

/// Whether changes of lives are still to be told in the view.
///
/// # Errors
/// When the index fails or is damaged.
pub fn is_settling(view: &dyn View) -> Result<bool, SchemaError> {
    let applied: Option<Applied> = schema::get(view, key::applied())?;
    Ok(applied.is_some_and(|applied| applied.is_settling()))
}

/// The journal's point that an applied row names.
pub fn mark(applied: &Applied) -> Mark {
    Mark { position: Position { lsn: applied.lsn, local: applied.local }, chain: Chain(applied.chain) }
}

/// The applied row of the state that a snapshot holds.
pub fn applied(store: [u8; 16], header: &SnapshotHeader) -> Applied {
    let Mark { position, chain } = header.mark;
    Applied {
        version: INDEX_VERSION,
        store,
        lsn: position.lsn,
        local: position.local,
        chain: chain.0,
        time_ms: header.time_ms,
        organisations: header.organisations,
        repositories: header.repositories,
        manifests: header.manifests,
        settling: 0,
        reviewing: false,
        next_segment: header.next_segment,
    }
}

/// Gives every fact of the view to `visit`. Rows are read in pages; memory is bounded by one, or by the references of one
/// manifest.
///
/// # Errors
/// When the index fails or a row does not decode, and whatever `visit` returns.
pub fn each<E: From<SchemaError>>(view: &dyn View, visit: &mut dyn FnMut(Fact) -> Result<(), E>) -> Result<(), E> {
    const TABLES: [Table; 17] = [
        Table::Policies,
        Table::Organisations,
        Table::Repositories,
        Table::Segments,
        Table::Blobs,
        Table::Links,
        Table::Manifests,
        Table::Tags,
        Table::History,
        Table::Uploads,
        Table::Dead,
        Table::Drops,
        Table::Reports,
        Table::Pauses,
        Table::Samples,
        Table::Quotas,
        Table::Pulls,
    ];
    for table in TABLES {
        let mut failed = Ok(());
        schema::each_row_of(view, table, |key, value| {
            failed = visit(fact(view, table, key, value)?);
            Ok(if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        failed?;
    }
    Ok(())
}

/// The fact of a row.
fn fact(view: &dyn View, table: Table, key: &[u8], value: &[u8]) -> Result<Fact, SchemaError> {
    let mut d = Decoder::new(&key[1..]);
    let fact = fact_of_key(&mut d, view, table, value)?;
    d.finish("key").map_err(|source| SchemaError::Row { table: table.name(), source })?;
    Ok(fact)
}

fn fact_of_key(d: &mut Decoder<'_>, view: &dyn View, table: Table, value: &[u8]) -> Result<Fact, SchemaError> {
    let bad = |source| SchemaError::Row { table: table.name(), source };
    Ok(match table {
        Table::Organisations => {
            let OrganisationRow { name } = OrganisationRow::from_bytes(value)?;
            Fact::Organisation { organisation: d.key_u32("id").map_err(bad)?, name }
        }
        Table::Repositories => {
            let RepositoryRow { name, organisation, created_ms, .. } = RepositoryRow::from_bytes(value)?;
            Fact::Repository { repository: d.key_u32("id").map_err(bad)?, organisation, name, created_ms }
        }
        Table::Segments => {
            let SegmentRow { single, sealed, committed_end, erased_bytes, .. } = SegmentRow::from_bytes(value)?;
            Fact::Segment {
                segment: SegmentNumber(d.key_u64("number").map_err(bad)?),
                single,
                sealed,
                committed_end,
                erased_bytes,
            }
        }
        Table::Blobs => {
            let BlobRow { kind, size, location, record_len } = BlobRow::from_bytes(value)?;
            Fact::Blob { digest: key::read_by_digest(d).map_err(bad)?, kind, size, location, record_len }
        }
        Table::Links => {
            let LinkRow { size, linked_ms, due_ms, mounted_from } = LinkRow::from_bytes(value)?;
            let digest = key::read_by_digest(d).map_err(bad)?;
            Fact::Link { repository: d.key_u32("id").map_err(bad)?, digest, size, linked_ms, due_ms, mounted_from }
        }
        Table::Manifests => manifest(d, view, value)?,
        Table::Tags => {
            let TagRow { manifest, digest, set_ms, pulled_ms, .. } = TagRow::from_bytes(value)?;
            let repository = d.key_u32("id").map_err(bad)?;
            Fact::Tag { repository, tag: key::read_tag(d).map_err(bad)?, manifest, digest, set_ms, pulled_ms }
        }
        Table::History => {
            let HistoryRow { digest, time_ms, until_ms } = HistoryRow::from_bytes(value)?;
            let repository = d.key_u32("id").map_err(bad)?;
            let (tag, lsn) = key::read_history(d).map_err(bad)?;
            Fact::History { repository, tag, lsn, digest, time_ms, until_ms }
        }
        Table::Uploads => {
            let UploadRow { repository, segment, bytes, time_ms } = UploadRow::from_bytes(value)?;
            let mut session = [0; 16];
            session.copy_from_slice(d.raw(16, "session").map_err(bad)?);
            Fact::Upload { session, repository, segment, bytes, time_ms }
        }
        Table::Dead => {
            let DeadRow { record_len } = DeadRow::from_bytes(value)?;
            let segment = SegmentNumber(d.key_u64("number").map_err(bad)?);
            Fact::Dead { location: Location { segment, offset: d.key_u64("number").map_err(bad)? }, record_len }
        }
        Table::Drops => {
            let DropRow { what, repository, digest, size, time_ms, last, until_ms } = DropRow::from_bytes(value)?;
            Fact::Dropped {
                lsn: d.key_u64("number").map_err(bad)?,
                what,
                repository,
                digest,
                size,
                time_ms,
                last,
                until_ms,
            }
        }
        Table::Reports => {
            let ReportRow { summary, items } = ReportRow::from_bytes(value)?;
            Fact::Reported { number: d.key_u64("number").map_err(bad)?, summary, items }
        }
        Table::Pauses => {
            let PauseRow { until_ms } = PauseRow::from_bytes(value)?;
            let what = u8::try_from(d.key_u32("id").map_err(bad)?).ok().and_then(Pausable::from_code);
            let what = what.ok_or(bad(DecodeError { field: "what is paused", problem: "unknown" }))?;
            Fact::Paused { what, until_ms }
        }
        Table::Samples => {
            let SampleRow { used_bytes, blobs, manifest_bytes, manifests, tags, repositories, reclaimable_bytes } =
                SampleRow::from_bytes(value)?;
            Fact::Sample {
                organisation: samples::organisation(d).map_err(bad)?,
                day: d.key_u32("id").map_err(bad)?,
                used_bytes,
                blobs,
                manifest_bytes,
                manifests,
                tags,
                repositories,
                reclaimable_bytes,
            }
        }
        Table::Quotas => {
            let QuotaRow { limit_bytes, set_ms } = QuotaRow::from_bytes(value)?;
            Fact::Quota { owner: key::read_rest(d, "owner").map_err(bad)?, limit_bytes, set_ms }
        }
        Table::Policies => {
            let PolicyRow { policy, from_settings, confirmed, set_ms } = PolicyRow::from_bytes(value)?;
            if key::read_rest::<PolicyName>(d, "policy").map_err(bad)? != policy.name {
                return Err(bad(DecodeError { field: "policy", problem: "has another name" }));
            }
            Fact::Policy { policy: Box::new(policy), from_settings, confirmed, set_ms }
        }
        Table::Pulls => {
            let PullRow { pulled_ms } = PullRow::from_bytes(value)?;
            let repository = d.key_u32("id").map_err(bad)?;
            Fact::Pulled { repository, digest: d.digest("digest").map_err(bad)?, pulled_ms }
        }
        _ => return Err(bad(DecodeError { field: "table", problem: "holds no facts" })),
    })
}

fn manifest(d: &mut Decoder<'_>, view: &dyn View, value: &[u8]) -> Result<Fact, SchemaError> {
    let bad = |source| SchemaError::Row { table: Table::Manifests.name(), source };
    let row = ManifestRow::from_bytes(value)?;
    let (repository, digest) = (d.key_u32("id").map_err(bad)?, d.digest("digest").map_err(bad)?);
    let mut references: Vec<NamedReference> = Vec::new();
    schema::each_row(view, &Key::of(Table::References).u64(row.manifest).bytes(), |_, value| {
        let named = ReferencesRow::from_bytes(value)?.references;
        references.extend(named.iter().flat_map(NamedDigest::each_role));
        Ok(ControlFlow::Continue(()))
    })?;
    // A row of references that is lost would go unnoticed from the snapshot on.
    if references.len() != row.references as usize {
        return Err(SchemaError::Missing { table: Table::References.name() });
    }
    Ok(Fact::Manifest {
        repository,
        manifest: row.manifest,
        digest,
        size: row.size,
        deleted: row.deleted,
        root: row.root,
        stays_root: row.stays_root,
        pushed_ms: row.pushed_ms,
        left_ms: row.left_ms,
        held_until_ms: row.held_until_ms,
        media_type: row.media_type,
        artifact_type: row.artifact_type,
        subject: row.subject,
        references,
    })
}

/// Facts on their way into an index without rows.
///
/// What was written before [`finish`](Self::finish) has no mark of its place: an index that is left in between is no
/// state, and is recognised as such.
pub struct Loader<'a> {
    index: &'a dyn Index,
    overlay: Overlay<'a>,
    applied: Applied,
    policies: Vec<Policy>,
}

impl<'a> Loader<'a> {
    /// Begins the state of a snapshot.
    pub fn new(index: &'a dyn Index, store: [u8; 16], header: &SnapshotHeader) -> Self {
        Self { index, overlay: Overlay::new(index), applied: applied(store, header), policies: Vec::new() }
    }

    /// Adds a fact, which comes in the order of [`each`].
    ///
    /// # Errors
    /// When the index fails, or a fact builds on one that did not come.
    pub fn load(&mut self, fact: Fact) -> Result<(), SchemaError> {
        let (overlay, applied) = (&mut self.overlay, &mut self.applied);
        match fact {
            Fact::Organisation { organisation, name } => {
                apply::put_organisation(overlay, organisation, OrganisationRow { name });
            }
            Fact::Repository { repository, organisation, name, created_ms } => {
                let policy = policy::governing(&self.policies, &name);
                apply::put_repository(overlay, repository, (&name, organisation, created_ms), policy)?;
                // Until something of it comes.
                schema::put(overlay, key::empty_repository(repository), &EmptyRepositoryRow {});
            }
            Fact::Segment { segment, single, sealed, committed_end, erased_bytes } => {
                let row = SegmentRow { single, sealed, committed_end, erased_bytes, ..SegmentRow::default() };
                places::with_segment(overlay, applied, segment, |segment| *segment = row)?;
            }
            Fact::Blob { digest, kind, size, location, record_len } => {
                schema::put(overlay, key::blob(&digest), &BlobRow { kind, size, location, record_len });
                places::with_segment(overlay, applied, location.segment, |segment| segment.add_live(record_len))?;
            }
            Fact::Link { repository, digest, size, linked_ms, due_ms, mounted_from } => {
                apply::link(overlay, repository, &digest, &LinkRow { size, linked_ms, due_ms, mounted_from })?;
            }
            fact @ Fact::Manifest { .. } => load_manifest(overlay, applied, fact)?,
            Fact::Tag { repository, tag, manifest, digest, set_ms, pulled_ms } => {
                // Its place in the history comes with that.
                let row = TagRow { manifest, digest, set_ms, lsn: 0, pulled_ms };
                schema::put(overlay, key::tag(repository, &tag), &row);
                let mut lives = Lives::loading(overlay, applied);
                manifests::reached_by_tag(&mut lives, repository, &tag, manifest, &digest)?;
                lives.settle()?;
                order::tag_changed(overlay, repository, &tag, None, Some(&row))?;
                counts::total_changed(overlay, repository, |usage| Change::Enters.step(&mut usage.tags, 1))?;
            }
            Fact::History { repository, tag, lsn, digest, time_ms, until_ms } => {
                schema::put(overlay, key::history(repository, &tag, lsn), &HistoryRow { digest, time_ms, until_ms });
                counts::total_changed(overlay, repository, |usage| Change::Enters.step(&mut usage.history, 1))?;
                if until_ms > 0 {
                    schema::put(overlay, key::due_history(until_ms, repository, &tag, lsn), &DueHistoryRow {});
                } else if let Some(row) = schema::get::<TagRow>(overlay, key::tag(repository, &tag))? {
                    schema::put(overlay, key::tag(repository, &tag), &TagRow { lsn, ..row });
                }
            }
            Fact::Upload { session, repository, segment, bytes, time_ms } => {
                schema::put(overlay, key::upload(&session), &UploadRow { repository, segment, bytes, time_ms });
            }
            Fact::Dead { location, record_len } => schema::put(overlay, key::dead(location), &DeadRow { record_len }),
            Fact::Dropped { lsn, what, repository, digest, size, time_ms, last, until_ms } => {
                let row = DropRow { what, repository, digest, size, time_ms, last, until_ms };
                drops::put_record(overlay, lsn, &row);
            }
            Fact::Reported { number, summary, items } => {
                schema::put(overlay, key::report(number), &ReportRow { summary, items });
            }
            Fact::Quota { owner, limit_bytes, set_ms } => {
                schema::put(overlay, key::quota(&owner), &QuotaRow { limit_bytes, set_ms });
            }
            Fact::Pulled { repository, digest, pulled_ms } => {
                schema::put(overlay, key::pull(repository, &digest), &PullRow { pulled_ms });
                uses::changed(overlay, repository, &digest)?;
            }
            Fact::Policy { policy, from_settings, confirmed, set_ms } => {
                self.policies.push((*policy).clone());
                let row = PolicyRow { policy: *policy, from_settings, confirmed, set_ms };
                schema::put(overlay, key::policy(&row.policy.name), &row);
            }
            Fact::Paused { what, until_ms } => schema::put(overlay, key::pause(what), &PauseRow { until_ms }),
            Fact::Sample {
                organisation,
                day,
                used_bytes,
                blobs,
                manifest_bytes,
                manifests,
                tags,
                repositories,
                reclaimable_bytes,
            } => {
                let scope = organisation.map_or(Scope::Registry, Scope::Organisation);
                let row =
                    SampleRow { used_bytes, blobs, manifest_bytes, manifests, tags, repositories, reclaimable_bytes };
                schema::put(overlay, key::sample(scope, day), &row);
            }
        }
        Ok(())
    }

    /// Writes what was derived so far; called after each page, so that memory is bounded by one.
    ///
    /// # Errors
    /// When the index fails.
    pub fn write(&mut self) -> Result<(), SchemaError> {
        Ok(self.index.write(&apply::finish_part(&mut self.overlay)?)?)
    }

    /// Writes the rest with the mark: the index stands there now.
    ///
    /// # Errors
    /// When the index fails.
    pub fn finish(mut self) -> Result<Applied, SchemaError> {
        self.index.write(&apply::finish(&mut self.overlay, &self.applied)?)?;
        Ok(self.applied)
    }
}

fn load_manifest(overlay: &mut Overlay<'_>, applied: &mut Applied, fact: Fact) -> Result<(), SchemaError> {
    let Fact::Manifest {
        repository,
        manifest,
        digest,
        size,
        deleted,
        root,
        stays_root,
        pushed_ms,
        left_ms,
        held_until_ms,
        media_type,
        artifact_type,
        subject,
        references,
    } = fact
    else {
        return Ok(());
    };
    let row = ManifestRow {
        manifest,
        size,
        deleted,
        root,
        stays_root,
        attached: false,
        told: 0,
        tags: 0,
        references: 0,
        references_hash: hash::references(&[]),
        pushed_ms,
        left_ms,
        held_until_ms,
        media_type,
        artifact_type,
        subject,
    };
    let mut lives = Lives::loading(overlay, applied);
    manifests::put_manifest(&mut lives, repository, &digest, row, &references)?;
    lives.settle()
}
