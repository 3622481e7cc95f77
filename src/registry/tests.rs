//! The registry over a disk and an index that forget what was not synced.
//!
//! - `admin`: what operators ask, held against what is there and what really happens.
//! - `begun`: manifests that the committer is given with their bytes.
//! - `machine`: a registry that can be killed, cut off from power and opened again.
//! - `items`: the blobs and manifests that are pushed.
//! - `model`: what every call should answer, and what it leaves.
//! - `mounts`: who may mount from where.
//! - `quotas`: limits of what may be stored.
//! - `compare`: the registry against the model.
//! - `steps`: random steps, and doing them in the registry.
//! - `random`: random calls, faults and restarts, held against the model.
//! - `threads`: the same by several threads at once, so that batches hold many requests.
//! - `usage`: used bytes of known images.
//! - `uploads`: sessions over failures and restarts.

mod admin;
mod begun;
mod compare;
mod items;
mod machine;
mod model;
mod mounts;
mod quotas;
mod random;
mod steps;
mod threads;
mod uploads;
mod usage;
