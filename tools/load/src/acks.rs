//! The log of what a registry acknowledged: one line per fact, written before the client does anything else.
//!
//! What is *tried* is written before the request and what is *acknowledged* after its answer. So after a kill the log
//! tells three things apart: what must be there, what may be there (tried, never answered), and which uploads were cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// An upload as its client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    /// The repository.
    pub(crate) repository: String,
    /// Names the content, with `index` and `len`.
    pub(crate) seed: u64,
    /// See `seed`.
    pub(crate) index: u64,
    /// Bytes of the whole.
    pub(crate) len: u64,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// An upload was opened, or moved on to a new location.
    Upload {
        /// Where it goes on.
        location: String,
        /// What it is to become.
        upload: Upload,
    },
    /// The upload at this location ended in an answer: finished, or moved on.
    Ended {
        /// Where it was.
        location: String,
    },
    /// A blob is in a repository.
    Blob {
        /// The repository.
        repository: String,
        /// The blob.
        digest: String,
    },
    /// A manifest is in a repository.
    Manifest {
        /// The repository.
        repository: String,
        /// The manifest.
        digest: String,
    },
    /// A tag is about to be set.
    TryTag(Tagged),
    /// A tag is set.
    Tag(Tagged),
    /// Something loses what kept it: from now on it may go.
    Release(Referred),
    /// A tag, manifest or blob is about to be deleted.
    TryDelete(Referred),
    /// A tag, manifest or blob is deleted: nobody pushes it again, but it may be restored.
    Delete(Referred),
    /// A tag, manifest or blob that is deleted is about to be restored.
    TryRestore(Referred),
}

/// A tag or digest in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Referred {
    /// The repository.
    pub(crate) repository: String,
    /// The tag or digest.
    pub(crate) reference: String,
}

/// A tag and what it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tagged {
    /// The repository.
    pub(crate) repository: String,
    /// The tag.
    pub(crate) tag: String,
    /// The manifest.
    pub(crate) digest: String,
}

impl Fact {
    fn to_line(&self) -> String {
        match self {
            Self::Upload { location, upload: Upload { repository, seed, index, len } } => {
                format!("upload {repository} {seed} {index} {len} {location}\n")
            }
            Self::Ended { location } => format!("ended {location}\n"),
            Self::Blob { repository, digest } => format!("blob {repository} {digest}\n"),
            Self::Manifest { repository, digest } => format!("manifest {repository} {digest}\n"),
            Self::TryTag(Tagged { repository, tag, digest }) => format!("try-tag {repository} {tag} {digest}\n"),
            Self::Tag(Tagged { repository, tag, digest }) => format!("tag {repository} {tag} {digest}\n"),
            Self::Release(Referred { repository, reference }) => format!("release {repository} {reference}\n"),
            Self::TryDelete(Referred { repository, reference }) => format!("try-delete {repository} {reference}\n"),
            Self::Delete(Referred { repository, reference }) => format!("delete {repository} {reference}\n"),
            Self::TryRestore(Referred { repository, reference }) => format!("try-restore {repository} {reference}\n"),
        }
    }

    fn from_line(line: &str) -> Option<Self> {
        let owned = str::to_owned;
        let tagged =
            |repository, tag, digest| Tagged { repository: owned(repository), tag: owned(tag), digest: owned(digest) };
        let referred = |repository, reference| Referred { repository: owned(repository), reference: owned(reference) };
        let words: Vec<&str> = line.split(' ').collect();
        Some(match words.as_slice() {
            ["upload", repository, seed, index, len, location] => Self::Upload {
                location: owned(location),
                upload: Upload {
                    repository: owned(repository),
                    seed: seed.parse().ok()?,
                    index: index.parse().ok()?,
                    len: len.parse().ok()?,
                },
            },
            ["ended", location] => Self::Ended { location: owned(location) },
            ["blob", repository, digest] => Self::Blob { repository: owned(repository), digest: owned(digest) },
            ["manifest", repository, digest] => Self::Manifest { repository: owned(repository), digest: owned(digest) },
            ["try-tag", repository, tag, digest] => Self::TryTag(tagged(repository, tag, digest)),
            ["tag", repository, tag, digest] => Self::Tag(tagged(repository, tag, digest)),
            ["release", repository, reference] => Self::Release(referred(repository, reference)),
            ["try-delete", repository, reference] => Self::TryDelete(referred(repository, reference)),
            ["delete", repository, reference] => Self::Delete(referred(repository, reference)),
            ["try-restore", repository, reference] => Self::TryRestore(referred(repository, reference)),
            _ => return None,
        })
    }
}

/// A log that many clients append to.
#[derive(Debug)]
pub(crate) struct AckLog(Option<Mutex<File>>);

impl AckLog {
    /// Appends to `path`, or to nothing.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path).map(Mutex::new);
        path.map(open).transpose().map(Self)
    }

    /// Appends a line; on return the operating system has it.
    pub(crate) fn write(&self, fact: &Fact) -> io::Result<()> {
        let Some(file) = &self.0 else { return Ok(()) };
        file.lock().unwrap_or_else(PoisonError::into_inner).write_all(fact.to_line().as_bytes())
    }
}

/// What a log adds up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// (repository, digest) of every blob.
    pub(crate) blobs: BTreeSet<(String, String)>,
    /// (repository, digest) of every manifest.
    pub(crate) manifests: BTreeSet<(String, String)>,
    /// What each (repository, tag) may point to.
    pub(crate) tags: BTreeMap<(String, String), TagChoice>,
    /// (repository, tag or digest) of everything that must not be there.
    pub(crate) gone: BTreeSet<(String, String)>,
    /// Uploads without an end, by location.
    pub(crate) uploads: BTreeMap<String, Upload>,
}

/// What a tag may point to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct TagChoice {
    /// The last acknowledged manifest and those that were tried after it.
    pub(crate) digests: BTreeSet<String>,
    /// Whether it was ever acknowledged; else it may be missing.
    pub(crate) must_exist: bool,
}

impl Acknowledged {
    /// Adds up a log.
    ///
    /// # Errors
    /// The first line (with its number) that cannot be understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        for (number, line) in text.lines().enumerate() {
            let fact = Fact::from_line(line).ok_or_else(|| format!("line {}: {line:?}", number + 1))?;
            all.add(fact);
        }
        Ok(all)
    }

    fn add(&mut self, fact: Fact) {
        match fact {
            Fact::Upload { location, upload } => drop(self.uploads.insert(location, upload)),
            Fact::Ended { location } => drop(self.uploads.remove(&location)),
            Fact::Blob { repository, digest } => drop(self.blobs.insert((repository, digest))),
            Fact::Manifest { repository, digest } => drop(self.manifests.insert((repository, digest))),
            Fact::TryTag(Tagged { repository, tag, digest }) => {
                self.tags.entry((repository, tag)).or_default().digests.insert(digest);
            }
            // One client sets one tag at a time, so an answer outdates every earlier try.
            Fact::Tag(Tagged { repository, tag, digest }) => {
                let choice = TagChoice { digests: [digest].into(), must_exist: true };
                self.tags.insert((repository, tag), choice);
            }
            Fact::Release(referred) | Fact::TryDelete(referred) => drop(self.release(referred)),
            Fact::Delete(referred) => {
                let key = self.release(referred);
                self.tags.remove(&key);
                self.gone.insert(key);
            }
            Fact::TryRestore(Referred { repository, reference }) => drop(self.gone.remove(&(repository, reference))),
        }
    }

    /// What the key stands for may be there or not.
    fn release(&mut self, Referred { repository, reference }: Referred) -> (String, String) {
        let key = (repository, reference);
        self.blobs.remove(&key);
        self.manifests.remove(&key);
        if let Some(choice) = self.tags.get_mut(&key) {
            choice.must_exist = false;
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_log_adds_up_to_what_was_acknowledged() {
        let tagged = |digest: &str| Tagged { repository: "r".into(), tag: "t".into(), digest: digest.into() };
        let upload = Upload { repository: "r".into(), seed: 1, index: 2, len: 3 };
        let facts = [
            Fact::Upload { location: "/a".into(), upload: upload.clone() },
            Fact::Upload { location: "/b?s=1".into(), upload: upload.clone() },
            Fact::Ended { location: "/a".into() },
            Fact::Blob { repository: "r".into(), digest: "d".into() },
            Fact::Manifest { repository: "r".into(), digest: "m".into() },
            Fact::TryTag(tagged("m1")),
            Fact::Tag(tagged("m1")),
            Fact::TryTag(tagged("m2")),
        ];
        let all = Acknowledged::parse(&facts.iter().map(Fact::to_line).collect::<String>()).unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(all.blobs, [pair("r", "d")].into());
        assert_eq!(all.manifests, [pair("r", "m")].into());
        assert_eq!(all.uploads, [("/b?s=1".to_owned(), upload)].into());
        let choice = TagChoice { digests: ["m1".to_owned(), "m2".to_owned()].into(), must_exist: true };
        assert_eq!(all.tags, [(pair("r", "t"), choice)].into());
    }

    #[test]
    fn what_was_deleted_is_gone_and_what_was_to_be_deleted_may_be() {
        let log = |rest: &str| {
            let before = "blob r b\nblob r c\nmanifest r m\ntry-tag r t m\ntag r t m\n";
            Acknowledged::parse(&format!("{before}{rest}")).unwrap()
        };
        let pair = |reference: &str| ("r".to_owned(), reference.to_owned());
        let tried = log("release r b\ntry-delete r m\ntry-delete r t\n");
        assert_eq!((tried.blobs, tried.manifests), ([pair("c")].into(), BTreeSet::new()));
        assert!(!tried.tags[&pair("t")].must_exist && tried.gone.is_empty());
        let deleted = "release r b\ntry-delete r m\ntry-delete r t\ndelete r m\ndelete r t\n";
        let done = log(deleted);
        assert_eq!((done.gone, done.tags), ([pair("m"), pair("t")].into(), BTreeMap::new()));
        let unsure = log(&format!("{deleted}try-restore r m\ntry-restore r t\ntry-tag r t m\n"));
        assert!(unsure.gone.is_empty() && unsure.manifests.is_empty() && !unsure.tags[&pair("t")].must_exist);
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_named() {
        assert!(Acknowledged::parse("blob r d\nblob r").unwrap_err().starts_with("line 2"));
        assert!(Acknowledged::parse("upload r x 2 3 /a").is_err());
    }
}
