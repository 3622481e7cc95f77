//! See `orlop::fuzzing`.
#![no_main]
orlop_fuzz::fuzz!("operations");
