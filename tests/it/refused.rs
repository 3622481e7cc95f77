//! Bad input. Each table is sent to a store that has something, and leaves it as it was.

use crate::harness::Orlop;

/// Digests on every way in.
mod digests;
/// Floods of parameters and headers, values that are no text, numbers of any length.
mod floods;
/// Lists: page sizes.
mod lists;
/// Manifests by themselves and against what is stored.
mod manifests;
/// Names and tags on every route.
mod names;
/// Clients that stall or go away, in each phase of each request.
mod phases;
/// HTTP itself: routes, methods, framing, sizes of heads.
mod protocol;
/// Starting: configuration, flags, directories.
mod start;
/// Far too many of something in one request.
mod too_many;
/// Upload sessions: unknown ones, chunks out of order, bodies that break off or go on too long.
mod uploads;

/// Runs `bad` against a store with an image in it; afterwards every stored fact is as before.
fn leaves_no_trace(settings: &[(&str, &str)], bad: impl FnOnce(&Orlop)) {
    let mut server = Orlop::start_with(settings);
    server.push_image("team/app", "latest", 1);
    let before = server.facts();
    let files = server.segment_files();
    bad(&server);
    assert_eq!(server.segment_files(), files, "files of segments");
    let mut after = server.facts_at_end();
    // What was asked for rightly beside it was pulled.
    after.retain(|fact| !fact.starts_with("pulls "));
    for fact in &after {
        assert!(before.contains(fact), "came to be by bad input: {fact}");
    }
    assert_eq!(after.len(), before.len(), "something was lost");
}
