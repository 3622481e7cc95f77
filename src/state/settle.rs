//! Lives as they change: what a change of a manifest's rows means for it, and telling that to what it names.
//!
//! A manifest's own life follows from its rows in the same operation, so whether it can be dropped is always known. What it
//! names (blobs' live counts, children, referrers) is *told* in steps: an operation tells up to [`STEP_DIGESTS`] digests at
//! once, and what is left stands in the settling table until *Settle* operations have done it. A pass tells one change from
//! its first digest to its last; if the life has changed meanwhile, another pass follows. So any order of deleting and
//! restoring ends in the same rows.
//!
//! Invariants: nothing is settling ⇔ all lives are what `life` says of them, every manifest was told, and there are no later
//! roots (`later_roots`).

pub(super) mod later_roots;

use std::collections::{BTreeSet, VecDeque};

use crate::{
    codec::Decoder,
    digest::Digest,
    index::{
        Overlay, View, prefix_end,
        schema::{
            self, Applied, DueManifestRow, Key, LinkRow, ManifestRow, NamedDigest, ParentsRow, REFERENCES_PER_ROW,
            ReferencesRow, SchemaError, SettlingRow, Table, key,
        },
    },
    journal::operation::{ManifestId, RepositoryId},
    state::{
        counts::{self, Change},
        govern::{self, uses},
        life::{Life, is_named},
        samples,
    },
};

/// Digests that one operation tells at most: each changes some five rows. Part of the meaning of every operation. Tests have
/// smaller manifests.
pub(super) const STEP_DIGESTS: u32 = if cfg!(test) { 12 } else { 200 };

/// The first manifest that is settling, from one on; else the first of all.
pub(super) fn first_noted(view: &dyn View, from: ManifestId) -> Result<Option<ManifestId>, SchemaError> {
    let (first, begin) = (Key::of(Table::Settling).bytes(), key::settling(from).bytes());
    let found = match view.scan(&begin, &prefix_end(&first), 1)?.pop() {
        None => view.scan(&first, &begin, 1)?.pop(),
        found => found,
    };
    let id = |key: Vec<u8>| key[1..].try_into().map(u64::from_be_bytes);
    found.map(|(key, _)| id(key)).transpose().map_err(|_| SchemaError::Missing { table: "settling" })
}

/// Lives that change by one operation.
pub(super) struct Lives<'a, 'b> {
    pub(super) overlay: &'a mut Overlay<'b>,
    pub(super) applied: &'a mut Applied,
    /// Until when what ceases to live by this operation can be restored, unless a policy says how long things are held.
    held_until_ms: u64,
    /// Whether policies have no say in that.
    is_exact: bool,
    /// Digests that may still be told.
    left: u32,
    /// Whether they come back from a snapshot, one by one.
    is_loading: bool,
    /// Manifests whose life is not what they have told.
    changed: VecDeque<(RepositoryId, Digest)>,
}

impl<'a, 'b> Lives<'a, 'b> {
    pub(super) fn new(overlay: &'a mut Overlay<'b>, applied: &'a mut Applied, held_until_ms: u64) -> Self {
        Self {
            overlay,
            applied,
            held_until_ms,
            is_exact: false,
            left: STEP_DIGESTS,
            is_loading: false,
            changed: VecDeque::new(),
        }
    }

    /// What ceases to live is held until that time and no other.
    pub(super) fn exact(overlay: &'a mut Overlay<'b>, applied: &'a mut Applied, held_until_ms: u64) -> Self {
        Self { is_exact: true, ..Self::new(overlay, applied, held_until_ms) }
    }

    /// Until when what ceases to live in a repository by this operation can be restored.
    pub(super) fn held_until_ms(&self, repository: RepositoryId) -> Result<u64, SchemaError> {
        if self.is_exact {
            return Ok(self.held_until_ms);
        }
        let window_ms = govern::window_ms(self.overlay, repository)?;
        Ok(window_ms.map_or(self.held_until_ms, |window_ms| self.applied.time_ms.saturating_add(window_ms)))
    }

    /// Lives as they come back from a snapshot. Facts only ever add to what reaches a manifest, so what they say of roots
    /// and windows stays; and nothing is left to later operations.
    pub(super) fn loading(overlay: &'a mut Overlay<'b>, applied: &'a mut Applied) -> Self {
        Self { left: u32::MAX, is_loading: true, ..Self::exact(overlay, applied, 0) }
    }

    /// Adds a manifest that the repository does not have. Its subject and what names it are known; a root that either
    /// reaches is none.
    pub(super) fn insert(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
        mut row: ManifestRow,
    ) -> Result<(), SchemaError> {
        let parents = self.parents(repository, digest)?;
        if let Some(subject) = &row.subject {
            row.attached = self.attaches(repository, subject, digest)?;
        }
        row.stays_root |= self.stays_root(repository, &row)?;
        self.weigh(repository, digest, None, row, (&parents, &parents))
    }

    /// Changes a manifest's row; the closure also sees what names it as child.
    pub(super) fn change(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
        change: impl FnOnce(&mut ManifestRow, &ParentsRow),
    ) -> Result<(), SchemaError> {
        let before: ManifestRow = schema::expect(self.overlay, key::manifest(repository, digest))?;
        let parents = self.parents(repository, digest)?;
        let mut after = before.clone();
        change(&mut after, &parents);
        self.weigh(repository, digest, Some(&before), after, (&parents, &parents))
    }

    /// Changes what names a child, whether that is there or not.
    pub(super) fn change_parents(
        &mut self,
        repository: RepositoryId,
        child: &Digest,
        change: impl FnOnce(&mut ParentsRow),
    ) -> Result<(), SchemaError> {
        let before = self.parents(repository, child)?;
        let mut after = before.clone();
        change(&mut after);
        if after == ParentsRow::default() {
            self.overlay.delete(key::parents(repository, child).bytes());
        } else {
            schema::put(self.overlay, key::parents(repository, child), &after);
        }
        match schema::get::<ManifestRow>(self.overlay, key::manifest(repository, child))? {
            Some(row) => self.weigh(repository, child, Some(&row), row.clone(), (&before, &after)),
            None => Ok(()),
        }
    }

    fn parents(&self, repository: RepositoryId, child: &Digest) -> Result<ParentsRow, SchemaError> {
        Ok(schema::get(self.overlay, key::parents(repository, child))?.unwrap_or_default())
    }

    /// Writes a manifest's row with what follows from it: what reaches it for the first time ends its living by itself, what
    /// leaves it last begins its window, and a window that nothing else holds open has a due row.
    fn weigh(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
        before: Option<&ManifestRow>,
        mut after: ManifestRow,
        (parents_before, parents): (&ParentsRow, &ParentsRow),
    ) -> Result<(), SchemaError> {
        // What its subject's attaching takes away may come back by it: then the subject lives by this manifest alone.
        after.root &= !is_named(&after, parents) && (after.stays_root || !after.attached);
        after.stays_root &= after.root;
        let was = before.map_or(Life::NONE, |row| Life::of(row, parents_before));
        let life = Life::of(&after, parents);
        // Whoever deletes it gets a window for that, also where it was just about to be told that it lives again.
        let is_deleted = after.deleted && before.is_some_and(|before| !before.deleted);
        match Change::between(was.is_live() || is_deleted, life.is_live()) {
            Some(Change::Enters) => (after.left_ms, after.held_until_ms) = (0, 0),
            Some(Change::Leaves) => {
                (after.left_ms, after.held_until_ms) = (self.applied.time_ms, self.held_until_ms(repository)?);
            }
            None => {}
        }
        let due_before = before.and_then(|row| due_ms(row, was, parents_before));
        let due = due_ms(&after, life, parents);
        if let Some(due_ms) = due_before.filter(|_| due_before != due) {
            self.overlay.delete(key::due_manifest(due_ms, repository, digest).bytes());
        }
        if let Some(due_ms) = due.filter(|_| due_before != due) {
            schema::put(self.overlay, key::due_manifest(due_ms, repository, digest), &DueManifestRow {});
        }
        if before != Some(&after) {
            schema::put(self.overlay, key::manifest(repository, digest), &after);
        }
        if life != Life::told(&after) {
            self.changed.push_back((repository, *digest));
        }
        uses::changed(self.overlay, repository, digest)
    }

    /// Whether a root is one for its subject's sake: that lives, and is carried only.
    pub(super) fn stays_root(&self, repository: RepositoryId, row: &ManifestRow) -> Result<bool, SchemaError> {
        let Some(subject) = row.subject.filter(|_| row.root && !self.is_loading) else { return Ok(false) };
        let row: Option<ManifestRow> = schema::get(self.overlay, key::manifest(repository, &subject))?;
        let life = row.map(|row| Ok::<_, SchemaError>(Life::of(&row, &self.parents(repository, &subject)?)));
        Ok(life.transpose()?.is_some_and(is_merely_carried))
    }

    /// Weighs anew whether a manifest that is there again is a root for its subject's sake.
    pub(super) fn weigh_sake(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
        by_digest: bool,
    ) -> Result<(), SchemaError> {
        let row: ManifestRow = schema::expect(self.overlay, key::manifest(repository, digest))?;
        // Whoever asks for it while its subject is gone, or held, wants it for itself.
        let stays_root = self.stays_root(repository, &row)? || (row.stays_root && (row.attached || !by_digest));
        match stays_root == row.stays_root {
            true => Ok(()),
            false => self.change(repository, digest, |row, _| row.stays_root = stays_root),
        }
    }

    /// Whether a subject has told a referrer that it attaches it. A pass under way has told the referrers up to one.
    fn attaches(&self, repository: RepositoryId, subject: &Digest, referrer: &Digest) -> Result<bool, SchemaError> {
        let Some(row) = schema::get::<ManifestRow>(self.overlay, key::manifest(repository, subject))? else {
            return Ok(false);
        };
        let pass: Option<SettlingRow> = schema::get(self.overlay, key::settling(row.manifest))?;
        let passed = pass.filter(|pass| pass.referrer.is_some_and(|last| last >= *referrer));
        Ok(passed.map_or(Life::told(&row), |pass| Life::from_code(pass.target)).attaches())
    }

    /// Takes a manifest's row away, and begins to take its names back.
    pub(super) fn drop_manifest(
        &mut self,
        repository: RepositoryId,
        digest: &Digest,
        row: &ManifestRow,
    ) -> Result<(), SchemaError> {
        self.overlay.delete(key::manifest(repository, digest).bytes());
        self.overlay.delete(key::due_manifest(row.held_until_ms, repository, digest).bytes());
        self.overlay.delete(key::pull(repository, digest).bytes());
        uses::changed(self.overlay, repository, digest)?;
        if let Some(subject) = &row.subject {
            self.overlay.delete(key::referrer(repository, subject, digest).bytes());
        }
        let mut pass = Pass::begin(row.manifest, repository, *digest, Life::NONE, Life::NONE);
        pass.row.dropped = true;
        pass.row.purged_ms = if row.held_until_ms == 0 { row.pushed_ms } else { 0 };
        self.tell(pass)
    }

    /// Tells what has changed, as far as one operation may, and notes the rest.
    pub(super) fn settle(&mut self) -> Result<(), SchemaError> {
        while let Some((repository, digest)) = self.changed.pop_front() {
            let Some(row) = schema::get::<ManifestRow>(self.overlay, key::manifest(repository, &digest))? else {
                continue;
            };
            let life = Life::of(&row, &self.parents(repository, &digest)?);
            let is_under_way = || schema::get::<SettlingRow>(self.overlay, key::settling(row.manifest));
            if life == Life::told(&row) || is_under_way()?.is_some() {
                continue;
            }
            self.tell(Pass::begin(row.manifest, repository, digest, Life::told(&row), life))?;
        }
        Ok(())
    }

    /// Goes on with what earlier operations have left: from a manifest on, and then with those before it.
    pub(super) fn settle_noted(&mut self, from: ManifestId) -> Result<(), SchemaError> {
        let mut repositories = BTreeSet::new();
        let (first, begin) = (Key::of(Table::Settling).bytes(), key::settling(from).bytes());
        self.settle_between(&begin, &prefix_end(&first), &mut repositories)?;
        self.settle_between(&first, &begin, &mut repositories)?;
        self.settle()?;
        self.make_later_roots(&mut repositories)?;
        let time_ms = self.applied.time_ms;
        repositories.into_iter().try_for_each(|repository| samples::take(self.overlay, time_ms, repository))
    }

    fn settle_between(
        &mut self,
        from: &[u8],
        until: &[u8],
        repositories: &mut BTreeSet<RepositoryId>,
    ) -> Result<(), SchemaError> {
        // Behind the last one each time: the index steps over removed rows one by one, so that looking from the start for
        // each of them would cost the square of their number. None comes before while any may still be told.
        let mut from = from.to_vec();
        while self.left > 0 {
            let Some((settling, row)) = self.overlay.scan(&from, until, 1)?.pop() else { break };
            from = [settling.as_slice(), &[0]].concat();
            let id = settling[1..].try_into().map_err(|_| SchemaError::Missing { table: "settling" })?;
            let row = <SettlingRow as schema::RowValue>::from_bytes(&row)?;
            let told = match schema::get::<ManifestRow>(self.overlay, key::manifest(row.repository, &row.digest))? {
                Some(manifest) if !row.dropped => Life::told(&manifest),
                _ => Life::NONE,
            };
            repositories.insert(row.repository);
            self.tell(Pass { manifest: u64::from_be_bytes(id), told, row, is_noted: true })?;
            self.settle()?;
        }
        Ok(())
    }

    /// Goes on with a pass, to its end or as far as this operation may.
    fn tell(&mut self, mut pass: Pass) -> Result<(), SchemaError> {
        // A pass with nothing to tell counts, too.
        let begun = self.left > 0;
        self.left = self.left.saturating_sub(1);
        if !(begun && self.tell_references(&mut pass)? && self.tell_referrers(&mut pass)?) {
            if !pass.is_noted {
                self.note(pass.row.repository, Change::Enters)?;
            }
            schema::put(self.overlay, key::settling(pass.manifest), &pass.row);
            return Ok(());
        }
        if pass.is_noted {
            self.overlay.delete(key::settling(pass.manifest).bytes());
            self.note(pass.row.repository, Change::Leaves)?;
        }
        if pass.row.dropped {
            self.forget(&pass);
            return Ok(());
        }
        let (repository, digest) = (pass.row.repository, pass.row.digest);
        self.change(repository, &digest, |row, _| row.told = pass.row.target)
    }

    fn note(&mut self, repository: RepositoryId, change: Change) -> Result<(), SchemaError> {
        change.step(&mut self.applied.settling, 1);
        counts::total_changed(self.overlay, repository, |usage| change.step(&mut usage.settling, 1))
    }

    /// Takes away what is left of a manifest that was dropped, when nothing is named by it any more.
    fn forget(&mut self, pass: &Pass) {
        for page in 0..=pass.row.references / REFERENCES_PER_ROW as u32 {
            self.overlay.delete(key::references(pass.manifest, page).bytes());
        }
        self.overlay.delete(key::manifest_id(pass.manifest).bytes());
    }

    /// Whether all was told.
    fn tell_references(&mut self, pass: &mut Pass) -> Result<bool, SchemaError> {
        if pass.row.target == pass.told.code() && !pass.row.dropped {
            return Ok(true);
        }
        let per_row = REFERENCES_PER_ROW as u32;
        loop {
            let page = key::references(pass.manifest, pass.row.references / per_row);
            let Some(row) = schema::get::<ReferencesRow>(self.overlay, page)? else { return Ok(true) };
            for named in row.references.iter().skip((pass.row.references % per_row) as usize) {
                if self.left == 0 {
                    return Ok(false);
                }
                self.left -= 1;
                self.tell_reference(pass, named)?;
                pass.row.references += 1;
            }
            if row.references.len() < REFERENCES_PER_ROW {
                return Ok(true);
            }
        }
    }

    fn tell_reference(&mut self, pass: &Pass, named: &NamedDigest) -> Result<(), SchemaError> {
        let (repository, dropped) = (pass.row.repository, pass.row.dropped);
        let (from, to) = (pass.told, Life::from_code(pass.row.target));
        if dropped {
            self.overlay.delete(key::name(&named.digest, repository, pass.manifest).bytes());
        }
        if named.is_blob() {
            if let Some(change) = Change::between(from.is_live(), to.is_live()) {
                counts::live_changed(self.overlay, repository, &named.digest, change)?;
            }
            if dropped {
                counts::name_changed(self.overlay, repository, &named.digest, Change::Leaves)?;
                self.release(repository, &named.digest, pass.row.purged_ms)?;
            }
        }
        let strong = Change::between(from.is_strong(), to.is_strong());
        let carried = Change::between(from.carries(), to.carries());
        if named.is_child() && (dropped || strong.is_some() || carried.is_some()) {
            self.change_parents(repository, &named.digest, |parents| {
                for (count, change) in [(&mut parents.strong, strong), (&mut parents.carried, carried)] {
                    change.into_iter().for_each(|change| step(count, change));
                }
                if dropped {
                    step(&mut parents.all, Change::Leaves);
                }
            })?;
        }
        Ok(())
    }

    /// Whether all were told.
    fn tell_referrers(&mut self, pass: &mut Pass) -> Result<bool, SchemaError> {
        let (repository, digest, to) = (pass.row.repository, pass.row.digest, Life::from_code(pass.row.target));
        if pass.row.dropped {
            // When the manifest was pushed anew meanwhile, its referrers belong to that one.
            if schema::get::<ManifestRow>(self.overlay, key::manifest(repository, &digest))?.is_some() {
                return Ok(true);
            }
        } else if pass.told.attaches() == to.attaches() && (pass.told.is_live() || !is_merely_carried(to)) {
            return Ok(true);
        }
        let prefix = key::referrers(repository, &digest).bytes();
        loop {
            let from = match &pass.row.referrer {
                Some(last) => [key::referrer(repository, &digest, last).bytes(), vec![0]].concat(),
                None => prefix.clone(),
            };
            let rows = self.overlay.scan(&from, &prefix_end(&prefix), self.left.clamp(1, 100) as usize)?;
            if rows.is_empty() {
                return Ok(true);
            }
            for (referrer, _) in rows {
                if self.left == 0 {
                    return Ok(false);
                }
                self.left -= 1;
                let mut d = Decoder::new(&referrer[prefix.len()..]);
                let referrer = d.digest("referrer");
                let referrer = referrer.map_err(|source| SchemaError::Row { table: "referrers", source })?;
                self.tell_referrer(pass, &referrer)?;
                pass.row.referrer = Some(referrer);
            }
        }
    }

    /// What refers to a manifest that is merely carried lives by itself, until its subject is dropped: it may be what
    /// carries the subject.
    fn tell_referrer(&mut self, pass: &Pass, referrer: &Digest) -> Result<(), SchemaError> {
        let to = Life::from_code(pass.row.target);
        let (dropped, is_loading) = (pass.row.dropped, self.is_loading);
        self.change(pass.row.repository, referrer, |row, parents| {
            row.attached = to.attaches();
            if dropped {
                // A root that its subject never reached, as one that was restored while that was held, lives on.
                row.root &= !row.stays_root;
            } else if is_merely_carried(to) && !is_loading && !row.deleted && !is_named(row, parents) {
                (row.root, row.stays_root) = (true, true);
            }
        })
    }

    /// A manifest whose window was ended gives up the blobs that were uploaded for it: those not uploaded since it was pushed.
    fn release(&mut self, repository: RepositoryId, digest: &Digest, purged_ms: u64) -> Result<(), SchemaError> {
        let now_ms = self.applied.time_ms;
        let link: Option<LinkRow> = schema::get(self.overlay, key::link(repository, digest))?;
        let Some(before) = link.filter(|link| link.linked_ms <= purged_ms && link.due_ms > now_ms) else {
            return Ok(());
        };
        let after = LinkRow { due_ms: now_ms, ..before.clone() };
        counts::link_changed(self.overlay, repository, digest, Some(&before), Some(&after))?;
        schema::put(self.overlay, key::link(repository, digest), &after);
        Ok(())
    }
}

/// It lives, and its referrers do not by it.
fn is_merely_carried(life: Life) -> bool {
    life.is_live() && !life.attaches()
}

/// When a manifest is due: when it does not live, and no other that is not dropped names it.
fn due_ms(row: &ManifestRow, life: Life, parents: &ParentsRow) -> Option<u64> {
    (!life.is_live() && parents.all == 0).then_some(row.held_until_ms)
}

fn step(count: &mut u32, change: Change) {
    *count = match change {
        Change::Enters => count.saturating_add(1),
        Change::Leaves => count.saturating_sub(1),
    };
}

/// One change of a manifest's life on its way to all that the manifest names.
struct Pass {
    manifest: ManifestId,
    told: Life,
    row: SettlingRow,
    /// Whether its row is in the settling table.
    is_noted: bool,
}

impl Pass {
    fn begin(manifest: ManifestId, repository: RepositoryId, digest: Digest, told: Life, target: Life) -> Self {
        let target = target.code();
        let row =
            SettlingRow { repository, digest, target, dropped: false, purged_ms: 0, references: 0, referrer: None };
        Self { manifest, told, row, is_noted: false }
    }
}
