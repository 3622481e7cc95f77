//! What deleting a whole repository would give: a pass over its counts, and over its manifests.
//!
//! Exact where nothing is settling, as the live counts are then.

use std::ops::ControlFlow;

use super::{Gain, Scopes, WhatIf};
use crate::{
    index::{
        View,
        schema::{self, CountRow, Key, ManifestRow, RowValue, SchemaError, Scope, Table, each_row, key},
    },
    registry::{
        RegistryError,
        inventory::{self, ManifestState},
    },
    store::StoreError,
};

/// Rows that are read at most: of a repository that has more, parts can be asked for.
const ROWS_MAX: usize = 2_000_000;

struct Pass<'a> {
    view: &'a dyn View,
    scopes: Scopes,
    rows: usize,
    gains: [Gain; 3],
    live: u64,
    all: u64,
}

pub(super) fn gain(view: &dyn View, scopes: Scopes) -> Result<WhatIf, RegistryError> {
    let mut pass = Pass { view, scopes, rows: 0, gains: [Gain::default(); 3], live: 0, all: 0 };
    pass.run().map_err(StoreError::from)?;
    if pass.rows > ROWS_MAX {
        return Err(RegistryError::TooMuch { what: "deleting this whole repository", max: ROWS_MAX });
    }
    let [repository, organisation, registry] = pass.gains;
    Ok(WhatIf { leave: pass.live, dropped: pass.all, repository, organisation, registry, stays: Vec::new() })
}

impl Pass<'_> {
    fn run(&mut self) -> Result<(), SchemaError> {
        let counts = key::counts(self.scopes.repository).bytes();
        each_row(self.view, &counts, |key, value| {
            self.blob(&inventory::digest(&counts, key)?, &CountRow::from_bytes(value)?)?;
            Ok(self.step())
        })?;
        let manifests = Key::of(Table::Manifests).u32(self.scopes.repository).bytes();
        each_row(self.view, &manifests, |key, value| {
            self.manifest(&inventory::digest(&manifests, key)?, &ManifestRow::from_bytes(value)?)?;
            Ok(self.step())
        })
    }

    fn step(&mut self) -> ControlFlow<()> {
        self.rows += 1;
        if self.rows > ROWS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// A blob leaves the scopes up to the first that has it from elsewhere, too; so does what lives by it.
    fn blob(&mut self, digest: &crate::digest::Digest, count: &CountRow) -> Result<(), SchemaError> {
        if count.links == 0 {
            return Ok(());
        }
        let (mut frees, mut reclaims) = (true, count.live > 0);
        for (scope, gain) in self.scopes.all().into_iter().zip(&mut self.gains) {
            if !matches!(scope, Scope::Repository(_)) {
                let outer: CountRow = schema::expect(self.view, key::count(scope, digest))?;
                (frees, reclaims) = (frees && outer.named == 1, reclaims && outer.live == 1);
            }
            gain.freed_bytes += if frees { count.size } else { 0 };
            gain.reclaimable_bytes += if reclaims { count.size } else { 0 };
        }
        Ok(())
    }

    fn manifest(&mut self, digest: &crate::digest::Digest, row: &ManifestRow) -> Result<(), SchemaError> {
        let state = ManifestState::of(self.view, self.scopes.repository, digest, row)?;
        self.live += u64::from(state == ManifestState::Live);
        self.all += 1;
        for (scope, gain) in self.scopes.all().into_iter().zip(&mut self.gains) {
            if !matches!(scope, Scope::Repository(_)) {
                let outer: CountRow = schema::expect(self.view, key::count(scope, digest))?;
                if outer.manifests != 1 {
                    break;
                }
            }
            gain.manifest_bytes = gain.manifest_bytes.saturating_add(row.size);
        }
        Ok(())
    }
}
