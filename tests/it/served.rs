//! Good input, by every way in.

/// What is deleted leaves the disk by itself.
mod collecting;
/// Blobs, manifests: exact bytes and headers; deletion.
mod content;
/// The requests of clients that no test can run.
mod habits;
/// Large content, sent from its file.
mod large;
/// Tags and repositories in pages.
mod lists;
/// Mounts between repositories.
mod mounts;
/// Indexes in indexes, one digest in several roles, manifests that name what is absent.
mod nested;
/// Referrers: types, annotations, filters, pages.
mod referrers;
/// Kills, restarts and orderly ends.
mod restart;
/// Every way to upload.
mod uploads;
