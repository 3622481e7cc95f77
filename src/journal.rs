//! The journal.

pub mod operation;
