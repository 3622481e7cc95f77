//! What deleting something would give, without deleting it.
//!
//! - `trial`: tags or manifests. The deletion itself is decided and applied to a copy of the state that holds only the rows
//!   which change and is thrown away: so the answer is what would happen, whatever indexes, shared children, referrers
//!   or other tags have to do with it, and it costs what the deletion would.
//! - `policy`: what a policy would take away now, on trial likewise.
//! - `whole`: a repository. All of it goes, so one pass over its counts tells the answer in little memory.
//!
//! Both are bounded, and refuse what is beyond.

use super::{Registry, RegistryError, refused, repository_id, row};
use crate::{
    digest::Digest,
    index::{
        View,
        schema::{RepositoryRow, Scope, UsageRow, key},
    },
    journal::operation::{OrganisationId, RepositoryId},
    name::{RepositoryName, Tag},
    store::StoreError,
};

mod policy;
mod trial;
mod whole;

pub(super) use policy::plan;
pub use policy::{Going, GoingBy, OverHalf, PolicyPlan};
pub(super) use trial::{Settled, TrialError};

/// Kept manifests that an answer names.
const STAYS_MAX: usize = 100;

/// What is to be deleted in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// Everything.
    All,
    /// These tags.
    Tags(Vec<Tag>),
    /// These manifests, with all of their tags.
    Digests(Vec<Digest>),
}

/// What a deletion would give.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WhatIf {
    /// Manifests that would cease to live, those that go with others included.
    pub leave: u64,
    /// Manifests that would be dropped when their windows have ended: those that leave, and held ones that are to be
    /// deleted, without those that a manifest which stays names as child.
    pub dropped: u64,
    /// What the repository would gain.
    pub repository: Gain,
    /// What its organisation would gain.
    pub organisation: Gain,
    /// What the registry would gain.
    pub registry: Gain,
    /// What was to go and stays, as far as one of these is true; the first `STAYS_MAX`.
    pub stays: Vec<Stay>,
}

/// By how much the totals of a scope would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gain {
    /// Growth of the reclaimable bytes, at once.
    pub reclaimable_bytes: u64,
    /// Used bytes that would go when the windows of what was deleted have ended and all else stays as it is.
    pub freed_bytes: u64,
    /// Bytes of manifests that would go then.
    pub manifest_bytes: u64,
}

/// A manifest that lives on, or stays in the registry, although it was to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// The manifest.
    pub digest: Digest,
    /// The tag that was to be deleted; `None` for one that was named by digest.
    pub tag: Option<Tag>,
    /// What keeps it, as it is called in answers: `tag`, `root`, `index` or `subject`.
    pub kept_by: &'static str,
}

/// The scopes that gain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scopes {
    pub(super) repository: RepositoryId,
    pub(super) organisation: OrganisationId,
}

impl Scopes {
    fn all(self) -> [Scope; 3] {
        [Scope::Repository(self.repository), Scope::Organisation(self.organisation), Scope::Registry]
    }

    fn usage(self, view: &dyn View) -> Result<[UsageRow; 3], StoreError> {
        let [a, b, c] = self.all().map(|scope| crate::index::schema::get::<UsageRow>(view, key::usage(scope)));
        Ok([a?.unwrap_or_default(), b?.unwrap_or_default(), c?.unwrap_or_default()])
    }
}

impl Registry {
    /// What deleting something would make reclaimable, and free. Nothing is changed.
    ///
    /// # Errors
    /// [`RegistryError::NameUnknown`], [`RegistryError::ManifestUnknown`], [`RegistryError::Dropped`] for what is not there;
    /// [`RegistryError::TooMuch`].
    pub fn what_if(&self, repository: &RepositoryName, deletion: &Deletion) -> Result<WhatIf, RegistryError> {
        let view = self.store.snapshot();
        let unknown = || RegistryError::NameUnknown(repository.clone());
        let id = repository_id(&*view, repository)?.ok_or_else(unknown)?;
        let RepositoryRow { organisation, .. } = row(&*view, key::repository(id))?.ok_or_else(unknown)?;
        let scopes = Scopes { repository: id, organisation };
        match deletion {
            Deletion::All => whole::gain(&*view, scopes),
            Deletion::Tags(_) | Deletion::Digests(_) => {
                let tried = Settled::new(&*view, self.window_ms())
                    .and_then(|settled| settled.gain(repository, scopes, deletion, usize::MAX));
                let gains = tried.map(|(gains, _)| gains);
                gains.map_err(|error| error.told(|store, reference| refused(store, repository, reference)))
            }
        }
    }
}
