//! Checks a registry against the log of what it acknowledged.
//!
//! Every acknowledged blob and manifest is read whole and hashed; every tag points to what was acknowledged last or tried
//! after it, and what it points to is read whole, children of indexes and their blobs with it; nothing that was deleted is there; every cut-off upload is gone, or goes on from the offset that the registry
//! names and becomes the blob that it was to be. It writes nothing but those resumed blobs, and logs them.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

use crate::{
    Server,
    acks::{AckLog, Acknowledged, Fact, TagChoice, Upload},
    clients::{self, Bounds},
    content::Content,
    error::{LoadError, file_error},
    registry::{CallError, Client},
};

/// Which registry, which log.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    server: Server,
    /// How many clients check at once
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Lines at the log's beginning that an earlier check has been through, and this one leaves out
    #[arg(long, default_value_t = 0)]
    skip_lines: usize,
    /// Only read, and let a disk that cannot be read excuse what is refused: wrong bytes and what is not found are wrong
    /// still
    #[arg(long)]
    failed_disk: bool,
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What is not as it was acknowledged.
    pub(crate) wrong: Vec<String>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    blobs: u64,
    manifests: u64,
    tags: u64,
    gone: u64,
    uploads_resumed: u64,
    uploads_gone: u64,
    /// What a disk that cannot be read excuses.
    excused: u64,
}

impl Findings {
    /// The counts as data.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "blobs": self.counts.blobs,
            "manifests": self.counts.manifests,
            "tags": self.counts.tags,
            "gone": self.counts.gone,
            "uploads_resumed": self.counts.uploads_resumed,
            "uploads_gone": self.counts.uploads_gone,
            "excused": self.counts.excused,
            "wrong": self.wrong.len(),
        })
    }
}

enum Item {
    Blob((String, String)),
    Manifest((String, String)),
    Tag(((String, String), TagChoice)),
    Gone((String, String)),
    Upload((String, Upload)),
}

impl Check {
    /// Checks all.
    ///
    /// # Errors
    /// When the log cannot be read, or the server does not answer at all. What is wrong is no error but a finding.
    pub(crate) fn run(&self) -> Result<Findings, LoadError> {
        let Some(path) = &self.server.acks else {
            return Err(LoadError::Usage("check needs --acks FILE".to_owned()));
        };
        let text = fs::read_to_string(path).map_err(file_error(path))?;
        let rest = text.split_inclusive('\n').skip(self.skip_lines).collect::<String>();
        let mut all = Acknowledged::parse(&rest)
            .map_err(|line| LoadError::Usage(format!("{}: cannot understand {line}", path.display())))?;
        if self.failed_disk {
            all.uploads.clear();
        }
        let log = self.server.open_log()?;
        let read = Mutex::default();
        let items: Vec<Item> = (all.blobs.into_iter().map(Item::Blob))
            .chain(all.manifests.into_iter().map(Item::Manifest))
            .chain(all.tags.into_iter().map(Item::Tag))
            .chain(all.gone.into_iter().map(Item::Gone))
            .chain(all.uploads.into_iter().map(Item::Upload))
            .collect();
        let findings = Mutex::new(Findings::default());
        clients::run(
            &Bounds::all(self.clients, items.len() as u64),
            |_| Client::new(&self.server.address),
            |client, index| {
                let outcome = self.check_item(client, &log, &read, &items[index as usize]);
                let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
                match outcome {
                    Ok(count) => *count(&mut findings.counts) += 1,
                    Err(LoadError::Call(error)) if self.failed_disk && error.is_failure() => {
                        findings.counts.excused += 1
                    }
                    Err(LoadError::Call(error)) => findings.wrong.push(error.to_string()),
                    Err(error) => return Err(error),
                }
                Ok(())
            },
        )?;
        Ok(findings.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn check_item(
        &self,
        client: &mut Client,
        log: &AckLog,
        read: &Read,
        item: &Item,
    ) -> Result<fn(&mut Counts) -> &mut u64, LoadError> {
        match item {
            Item::Blob((repository, digest)) => {
                read_once(client, read, repository, digest)?;
                Ok(|counts| &mut counts.blobs)
            }
            Item::Manifest((repository, digest)) => {
                let (found, _) = client.manifest(repository, digest)?;
                require(found == *digest, repository, digest, || format!("the bytes have digest {found}"))?;
                Ok(|counts| &mut counts.manifests)
            }
            Item::Tag(((repository, tag), choice)) => {
                check_tag(client, read, repository, tag, choice)?;
                Ok(|counts| &mut counts.tags)
            }
            Item::Gone((repository, reference)) => {
                let found = client.has_manifest(repository, reference)?
                    || (reference.contains(':') && client.has_blob(repository, reference)?);
                require(!found, repository, reference, || "it was deleted, and is there".to_owned())?;
                Ok(|counts| &mut counts.gone)
            }
            Item::Upload((location, upload)) => {
                let resumed = self.resume(client, log, location, upload)?;
                Ok(if resumed { |counts| &mut counts.uploads_resumed } else { |counts| &mut counts.uploads_gone })
            }
        }
    }

    /// Continues a cut-off upload; `false` when the registry has forgotten it.
    fn resume(&self, client: &mut Client, log: &AckLog, location: &str, upload: &Upload) -> Result<bool, LoadError> {
        let content = Content::new(upload.seed, upload.index, upload.len);
        let Some(offset) = client.upload_offset(location)? else {
            self.server.log(log, &Fact::Ended { location: location.to_owned() })?;
            return Ok(false);
        };
        let beyond = || format!("the upload reports {offset} bytes, more than the {} of the blob", upload.len);
        require(offset <= upload.len, &upload.repository, location, beyond)?;
        let digest = content.digest();
        let mut next = location.to_owned();
        if offset < upload.len {
            let range = format!("{offset}-{}", upload.len - 1);
            next = client.patch(location, content.from(offset), Some(&range))?;
        }
        client.finish_upload(&next, content.from(upload.len), &digest)?;
        client.read_blob(&upload.repository, &digest)?;
        self.server.log(log, &Fact::Blob { repository: upload.repository.clone(), digest })?;
        self.server.log(log, &Fact::Ended { location: location.to_owned() })?;
        Ok(true)
    }
}

/// Blobs that this check has read, by repository and digest: many manifests name the same.
type Read = Mutex<BTreeSet<(String, String)>>;

fn read_once(client: &mut Client, read: &Read, repository: &str, digest: &str) -> Result<(), LoadError> {
    let key = (repository.to_owned(), digest.to_owned());
    if read.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
        return Ok(());
    }
    client.read_blob(repository, digest)?;
    read.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    Ok(())
}

fn check_tag(
    client: &mut Client,
    read: &Read,
    repository: &str,
    tag: &str,
    choice: &TagChoice,
) -> Result<(), LoadError> {
    let (digest, bytes) = match client.manifest(repository, tag) {
        Err(CallError::Refused { status: 404, .. }) if !choice.must_exist => return Ok(()),
        answer => answer?,
    };
    let problem = || format!("it points to {digest}, which was never tried after the last acknowledgement");
    require(choice.digests.contains(&digest), repository, tag, problem)?;
    let mut manifests = vec![bytes];
    while let Some(bytes) = manifests.pop() {
        let Named { blobs, children } = named(&bytes);
        blobs.iter().try_for_each(|blob| read_once(client, read, repository, blob))?;
        for child in children {
            let (found, bytes) = client.manifest(repository, &child)?;
            require(found == child, repository, &child, || format!("the bytes have digest {found}"))?;
            manifests.push(bytes);
        }
    }
    Ok(())
}

/// What a manifest names.
struct Named {
    /// Config and layers.
    blobs: BTreeSet<String>,
    /// Manifests.
    children: BTreeSet<String>,
}

fn named(manifest: &[u8]) -> Named {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let all = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
    let digests = |descriptors: Vec<Value>| {
        descriptors.iter().filter_map(|descriptor| Some(descriptor["digest"].as_str()?.to_owned())).collect()
    };
    let blobs = all("layers").into_iter().chain([manifest["config"].clone()]).collect();
    Named { blobs: digests(blobs), children: digests(all("manifests")) }
}

fn require(holds: bool, repository: &str, what: &str, problem: impl FnOnce() -> String) -> Result<(), LoadError> {
    if holds {
        return Ok(());
    }
    Err(CallError::Wrong { call: format!("{repository} {what}"), problem: problem() }.into())
}
