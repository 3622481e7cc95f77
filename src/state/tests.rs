//! Counts and rows against a recount, over the index in memory.
