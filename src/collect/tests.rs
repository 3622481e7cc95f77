//! The collector over a disk and an index that forget.
