//! What a round's lines in the log of acknowledgements come to, and what of them the checker is to believe after a cut.
//!
//! The log's words are those of `orlop-load`. What was tried is written before its request, what was answered after. What
//! is answered by the cut must be there after it; what was only tried by then, or a moment later, may be there.

use std::collections::BTreeMap;

/// What happened before a cut.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Blobs, tags and deletes that were answered.
    pub(crate) acknowledged: u64,
    /// Clients that waited for an answer.
    pub(crate) under_way: u64,
}

impl Tally {
    /// Of a round's lines. Each client has a repository of its own, and does one thing at a time.
    pub(crate) fn of(lines: &str) -> Self {
        let mut waiting = BTreeMap::new();
        let mut acknowledged = 0;
        for line in lines.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some("upload" | "try-tag" | "try-delete" | "try-restore"), Some(repository)) => {
                    waiting.insert(repository, true);
                }
                (Some("blob" | "tag" | "delete"), Some(repository)) => {
                    acknowledged += 1;
                    waiting.insert(repository, false);
                }
                _ => {}
            }
        }
        Self { acknowledged, under_way: waiting.values().filter(|waits| **waits).count() as u64 }
    }
}

/// The log as the checker is to read it: `before` was written before the cut, `during` while it was made. Of the latter only
/// what was tried counts, as nobody knows on which side of the cut its answer was.
pub(crate) fn merge(before: &str, during: &str) -> String {
    let is_try = |line: &&str| ["upload ", "try-", "release "].iter().any(|word| line.starts_with(word));
    let mut merged = String::with_capacity(before.len() + during.len());
    for line in whole_lines(before).lines().chain(whole_lines(during).lines().filter(is_try)) {
        merged.push_str(line);
        merged.push('\n');
    }
    merged
}

/// Up to the last line that has its end.
pub(crate) fn whole_lines(text: &str) -> &str {
    text.rfind('\n').map_or("", |end| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_and_waiting_clients() {
        let lines =
            "upload a 1 2 3 /x\nblob a d\nended /x\nupload b 1 2 3 /y\ntry-tag c t d\ntag c t d\nmanifest c d\n";
        assert_eq!(Tally::of(lines), Tally { acknowledged: 2, under_way: 1 });
    }

    #[test]
    fn what_was_answered_after_the_cut_is_not_believed() {
        let during =
            "ended /x\ntry-tag a t e\ntag a t e\nupload a 1 2 3 /y\nrelease a d\ntry-delete a d\ndelete a d\ntry-ta";
        let expected = "blob a d\ntry-tag a t e\nupload a 1 2 3 /y\nrelease a d\ntry-delete a d\n";
        assert_eq!(merge("blob a d\n", during), expected);
    }
}
