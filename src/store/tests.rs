//! The store over the disk and index that forget.
