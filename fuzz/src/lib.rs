//! What all fuzzers share: the target by its name, and the bound on what it allocates.
//!
//! The properties themselves stand in `orlop::fuzzing`, where tests replay them without libFuzzer.

mod allocator;

use libfuzzer_sys as _;
use orlop::fuzzing::{OPERATIONS, TARGETS, Target};

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// The target of a name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> &'static Target {
    static ALL: [&[Target]; 2] = [&TARGETS, &[OPERATIONS]];
    let found = ALL.into_iter().flatten().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no target {name}"))
}

/// Checks one input, and that no more was allocated at one time than its length allows.
///
/// # Panics
/// When a property does not hold.
pub fn check(target: &Target, input: &[u8]) {
    let before = allocator::begin();
    (target.check)(input);
    let most = allocator::most().saturating_sub(before);
    let (base, each) = target.allocated_max;
    let allowed = base + each * input.len();
    assert!(most <= allowed, "{}: {most} bytes were allocated for {} of input, {allowed} are allowed", target.name, input.len());
}

/// The fuzzer of a target.
#[macro_export]
macro_rules! fuzz {
    ($name:literal) => {
        static TARGET: std::sync::LazyLock<&orlop::fuzzing::Target> = std::sync::LazyLock::new(|| $crate::target($name));
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::check(*TARGET, input));
    };
}
