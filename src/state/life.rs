//! Which manifests live: what a manifest's own rows say of it. DESIGN and reasons stand in ARCHITECTURE.md, *Life*.
//!
//! A manifest is *strong* when it is tagged, lives by itself (root) or is the child of a strong index; *attached* when its
//! subject is strong or attached; *carried* when it is the child of an attached or carried index. It lives when it is any
//! of the three. Each of them follows edges along which digests cannot go in a circle (what names comes after what is named),
//! and carried does not pass on to referrers, so what lives is the one least solution, in whatever order it is worked out.

use crate::index::schema::{ManifestRow, ParentsRow};

/// The ways in which a manifest lives, as bits. None of them: it is held, until its window ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life(u8);

impl Life {
    /// It does not live.
    pub const NONE: Self = Self(0);
    const STRONG: u8 = 1;
    const ATTACHED: u8 = 2;
    const CARRIED: u8 = 4;

    /// What its rows say that it is.
    pub fn of(row: &ManifestRow, parents: &ParentsRow) -> Self {
        if row.deleted {
            return Self::NONE;
        }
        let bit = |is: bool, bit: u8| if is { bit } else { 0 };
        Self(
            bit(row.root || row.tags > 0 || parents.strong > 0, Self::STRONG)
                | bit(row.attached, Self::ATTACHED)
                | bit(parents.carried > 0, Self::CARRIED),
        )
    }

    /// What those that it names were told.
    pub fn told(row: &ManifestRow) -> Self {
        Self::from_code(row.told)
    }

    /// From a row's byte.
    pub(super) fn from_code(code: u8) -> Self {
        Self(code)
    }

    /// As a row's byte.
    pub(super) fn code(self) -> u8 {
        self.0
    }

    /// Whether it lives at all: then the blobs that it names are live.
    pub fn is_live(self) -> bool {
        self != Self::NONE
    }

    /// Whether its children are strong.
    pub(super) fn is_strong(self) -> bool {
        self.0 & Self::STRONG != 0
    }

    /// Whether its children are carried.
    pub(super) fn carries(self) -> bool {
        self.0 & (Self::ATTACHED | Self::CARRIED) != 0
    }

    /// Whether its referrers are attached.
    pub(super) fn attaches(self) -> bool {
        self.0 & (Self::STRONG | Self::ATTACHED) != 0
    }
}

/// Whether a tag, or something that lives and names it as child, keeps a manifest.
pub(super) fn is_named(row: &ManifestRow, parents: &ParentsRow) -> bool {
    row.tags > 0 || parents.strong > 0 || parents.carried > 0
}

/// Whether anything else than itself keeps a manifest.
pub(super) fn is_reached(row: &ManifestRow, parents: &ParentsRow) -> bool {
    row.attached || is_named(row, parents)
}
