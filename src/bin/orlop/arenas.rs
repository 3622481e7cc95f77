//! How many arenas malloc has.
//!
//! glibc gives threads that meet in malloc arenas of their own, up to eight for each core, and each keeps for itself what was
//! freed in it. With the threads that requests have, that comes to more memory than is in use: in `tools/small-memory` 254
//! MiB, where two arenas take 82.

/// One arena for each core, and two at least; unless the environment says how many (`MALLOC_ARENA_MAX`). To be called before
/// there is a second thread.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt has no safe door")]
pub(crate) fn set() {
    if std::env::var_os("MALLOC_ARENA_MAX").is_some() {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let arenas = i32::try_from(cores).unwrap_or(i32::MAX);
    // SAFETY: mallopt takes two numbers and no memory of ours; nobody else calls it, and there is one thread.
    let is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    debug_assert_eq!(is_set, 1);
}

/// Other allocators keep their own counsel.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn set() {}
