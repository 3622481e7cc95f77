//! Rows of policies: what they say, which repositories they govern, and the order in which things go by them.

use super::*;

row! {
    /// policy's name → what it says
    PolicyRow in Policies {
        /// The policy.
        policy: policy Policy,
        /// Whether it stands in the settings.
        from_settings: bool bool,
        /// Whether it may take more than half of a repository's tags at once.
        confirmed: bool bool,
        /// When it was set, in Unix milliseconds.
        set_ms: u64 u64,
    }
}

row! {
    /// policy's name → what its repositories have together
    #[derive(Default)]
    PolicyUsageRow in PolicyUsage {
        /// How many they are.
        repositories: u64 u64,
        /// The sum of their used bytes.
        used_bytes: u64 u64,
        /// The sum of what is settling in them.
        settling: u64 u64,
        /// The use of the first row that it has in [`ByUseRow`]'s table.
        first_used_ms: optional_u64 Option<u64>,
    }
}

row! {
    /// repository → the policy that governs it, and its tags in order
    GovernedRow in Governed {
        /// The policy as it was when the repository was last reviewed; `None` while rows of an earlier one are taken away,
        /// after which this row goes.
        policy: optional_policy Option<Policy>,
        /// Where the review of the repository is, as [`ReviewPhase`].
        phase: u8 u8,
        /// By which policy the rows were made that are taken away.
        was: string String,
        /// How many of its tags are among the newest.
        newest: u32 u32,
        /// The oldest of these: when it was set, and the tag. Looks at either order begin here, so that they step over no
        /// removed rows.
        boundary: optional_age Option<(u64, Tag)>,
        /// When the first of the others is due.
        due_ms: optional_u64 Option<u64>,
    }
}

/// Where the review of a repository is. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ReviewPhase {
    /// Its rows are what its policy says.
    Done = 0,
    /// Rows of an earlier policy are taken away; nothing is put in order.
    Clearing = 1,
    /// Its tags and manifests are put in order; those that change are at once.
    Filling = 2,
}

impl GovernedRow {
    /// A repository in which nothing is in order yet.
    pub fn new(policy: Option<Policy>, phase: ReviewPhase) -> Self {
        Self { policy, phase: phase as u8, was: String::new(), newest: 0, boundary: None, due_ms: None }
    }

    /// The policy that is in force: things go by it, and are put in order for it.
    pub fn in_force(&self) -> Option<&Policy> {
        self.policy.as_ref().filter(|_| self.phase != ReviewPhase::Clearing as u8)
    }
}

row! {
    /// repository, time it was set, tag → nothing: one of the newest tags, which stays
    NewestTagRow in NewestTags {}
}

row! {
    /// repository, time it was set (latest first), tag (last first) → a tag that is none of the newest
    SpareTagRow in SpareTags {
        /// When it is due to go; `None` where no tag goes by itself.
        due_ms: optional_u64 Option<u64>,
    }
}

row! {
    /// repository, time, tag → nothing: a tag that goes then
    DueTagRow in DueTags {}
}

row! {
    /// time, repository → nothing: when the first of its tags is due
    DueRepositoryRow in DueRepositories {}
}

row! {
    /// repository, manifest → how a policy sees it
    #[derive(Default)]
    UseRow in Uses {
        /// Of its tags those that may go; counted under a cap only.
        spare: u32 u32,
        /// Under which time it stands in the order of use; `None` where it may not be evicted.
        used_ms: optional_u64 Option<u64>,
        /// Under which time it stands among the roots that are due.
        due_ms: optional_u64 Option<u64>,
    }
}

row! {
    /// policy, time it was last pushed or pulled, repository, manifest → nothing: one that a cap may evict; time 0 for one that
    /// is only held
    ByUseRow in ByUse {}
}

row! {
    /// time, repository, manifest → nothing: a root that goes then, unless it gets a tag
    DueRootRow in DueRoots {}
}

row! {
    /// nothing → how far the review of repositories is, after a change of policies
    #[derive(Default)]
    ReviewRow in Reviewing {
        /// With what the names of the repositories begin that are looked at.
        prefix: string String,
        /// The last one that was; empty before the first.
        after: string String,
        /// The one that is reviewed now; 0 for none.
        repository: u32 RepositoryId,
        /// The last row of it that was; empty before the first.
        cursor: bytes Vec<u8>,
    }
}
