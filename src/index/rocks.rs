//! Rocks.
