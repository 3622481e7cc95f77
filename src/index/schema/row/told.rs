//! Rows of what operators set and are told: drops, reports, pauses, quotas, pulls, samples.

use super::*;

row! {
    /// scope, day since 1970 → the totals at the end of that day, or now; a day on which nothing changed has none
    SampleRow in Samples {
        /// As in [`UsageRow`].
        used_bytes: u64 u64,
        /// As in [`UsageRow`].
        blobs: u64 u64,
        /// As in [`UsageRow`].
        manifest_bytes: u64 u64,
        /// As in [`UsageRow`].
        manifests: u64 u64,
        /// As in [`UsageRow`].
        tags: u64 u64,
        /// As in [`UsageRow`].
        repositories: u64 u64,
        /// As in [`UsageRow`].
        reclaimable_bytes: u64 u64,
    }
}

row! {
    /// time, LSN → nothing: when the record of a drop may be forgotten
    DueDropRow in DueDrops {}
}

row! {
    /// LSN → what an operation dropped
    DropRow in Drops {
        /// What it was.
        what: drop_kind DropKind,
        /// The repository that had it.
        repository: text RepositoryName,
        /// Its digest.
        digest: digest Digest,
        /// Its length in bytes.
        size: u64 u64,
        /// When, in Unix milliseconds.
        time_ms: u64 u64,
        /// Whether no repository had it any more, so that its bytes are to be erased.
        last: bool bool,
        /// When the record may be forgotten, in Unix milliseconds.
        until_ms: u64 u64,
    }
}

row! {
    /// digest, LSN → nothing: the drops of a digest
    DroppedRow in Dropped {}
}

row! {
    /// number → what a collection came to
    ReportRow in Reports {
        /// What it came to, as JSON.
        summary: string String,
        /// What it dropped one by one, as JSON; empty where that was forgotten.
        items: string String,
    }
}

row! {
    /// what → until when it is paused
    PauseRow in Pauses {
        /// In Unix milliseconds; [`u64::MAX`] until somebody lets it go on.
        until_ms: u64 u64,
    }
}

row! {
    /// (repository, manifest) → when it was pulled last; no row for one that never was
    PullRow in Pulls {
        /// In Unix milliseconds: the beginning of the hour.
        pulled_ms: u64 u64,
    }
}

row! {
    /// owner → what it may store
    QuotaRow in Quotas {
        /// In bytes.
        limit_bytes: u64 u64,
        /// When it was set, in Unix milliseconds.
        set_ms: u64 u64,
    }
}
