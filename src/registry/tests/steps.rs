//! Random steps, and doing them in the registry.

use crate::{
    digest::Algorithm,
    name::Tag,
    registry::{
        Reference,
        manifest::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST},
    },
};

use super::{
    items::Item,
    machine::Machine,
    model::{Answer, Model, Step, error_name, next_bytes, parse},
    random::{NAMES, Run},
};

const TAGS: [&str; 4] = ["1.0", "latest", "a", "Z"];

impl Run {
    pub(super) fn name(&mut self) -> String {
        NAMES[self.random.usize(..NAMES.len())].to_owned()
    }

    fn tag(&mut self) -> String {
        TAGS[self.random.usize(..TAGS.len())].to_owned()
    }

    /// Mostly a blob.
    pub(super) fn item(&mut self) -> usize {
        let manifest_too = self.random.u8(..8) == 0;
        let blobs = self.items.iter().take_while(|item| item.document.is_none()).count();
        self.random.usize(..if manifest_too { self.items.len() } else { blobs })
    }

    fn manifest(&mut self) -> usize {
        let blobs = self.items.iter().take_while(|item| item.document.is_none()).count();
        self.random.usize(blobs..self.items.len())
    }

    pub(super) fn random_step(&mut self) -> Step {
        let repository = self.name();
        let sessions: Vec<&String> = self.model.sessions.keys().collect();
        if !sessions.is_empty() && self.random.u8(..10) < 4 {
            let session = sessions[self.random.usize(..sessions.len())].clone();
            return match self.random.u8(..10) {
                0 => Step::Cancel { session },
                1..4 => Step::Finish { session },
                _ => {
                    let len = [10, 1_000, 4_000, 60_000, 200_000][self.random.usize(..5)];
                    Step::Write { session, len: self.random.usize(..=len), keep: self.random.bool() }
                }
            };
        }
        match self.random.u8(..20) {
            0..4 => Step::Put { repository, item: self.item() },
            4..6 => {
                let from = if self.random.bool() { Some(self.name()) } else { None };
                Step::Mount { repository, item: self.item(), from }
            }
            6..8 => {
                let item = self.item();
                let live = self.machine.is_named_live(&repository, &self.items[item].digest);
                Step::DeleteBlob { repository, item, live }
            }
            8..10 => Step::Delete { repository, reference: self.tag() },
            10..12 => {
                let item = self.manifest();
                Step::Delete { repository, reference: self.items[item].digest.to_string() }
            }
            _ => self.push(repository),
        }
    }

    /// A push of what can often be pushed: its blobs come just before, as a client does it.
    fn push(&mut self, repository: String) -> Step {
        let item = self.manifest();
        let document = self.items[item].document.clone().unwrap();
        if self.random.u8(..3) > 0 {
            for (role, digest, _) in &document.references {
                if role.is_blob() && self.random.u8(..10) > 0 {
                    let item = self.items.iter().position(|item| item.digest == *digest).unwrap();
                    let put = Step::Put { repository: repository.clone(), item };
                    let answer = act(&self.machine, &self.items, &self.model, &put);
                    assert_eq!(answer, self.model.step(&self.items, &put));
                }
            }
        }
        let media_type = match (document.media_type, self.random.u8(..10)) {
            (OCI_INDEX, _) => OCI_INDEX,
            (_, 0) => OCI_MANIFEST,
            (_, 1) => DOCKER_MANIFEST,
            (usual, _) => usual,
        };
        let digest = self.items[item].digest;
        let (tags, expected) = match self.random.u8(..10) {
            0 => (vec![self.tag(), "2.0".to_owned()], Some(digest)),
            1 => (Vec::new(), Some(self.items[0].digest)),
            2..6 => (vec![self.tag()], Some(digest)),
            _ => (Vec::new(), Some(digest)),
        };
        // Without an expected digest the registry takes SHA-256.
        let sha256 = digest.algorithm() == Algorithm::Sha256;
        let expected = if sha256 && !tags.is_empty() { None } else { expected };
        Step::Push { repository, item, media_type, tags, expected }
    }
}

/// Does a step in the registry. `model` is as before the step.
pub(super) fn act(machine: &Machine, items: &[Item], model: &Model, step: &Step) -> Answer {
    let registry = machine.registry();
    let result = match step {
        Step::Put { repository, item } => {
            let Item { digest, bytes, .. } = &items[*item];
            let stored = registry.store().put(&parse(repository), digest.algorithm(), bytes);
            stored.map(|stored| assert_eq!(stored, *digest)).map(|()| String::new()).map_err(Into::into)
        }
        Step::Write { session: id, len, keep } => {
            let session = &model.sessions[id];
            registry.lease_upload(&parse(&session.repository), id).and_then(|mut lease| {
                lease.write(next_bytes(items, session, *len))?;
                let offset = lease.offset();
                if *keep { lease.keep() } else { Ok(offset) }.map(|offset| offset.to_string())
            })
        }
        Step::Finish { session: id } => {
            let session = &model.sessions[id];
            let lease = registry.lease_upload(&parse(&session.repository), id);
            lease.and_then(|lease| lease.finish(items[session.item].digest)).map(|()| String::new())
        }
        Step::Cancel { session } => {
            let repository = parse(&model.sessions[session].repository);
            registry.cancel_upload(&repository, session).map(|()| String::new())
        }
        Step::Mount { repository, item, from } => {
            let from = from.as_deref().map(parse);
            registry
                .mount(&parse(repository), &items[*item].digest, from.as_ref(), |_| true)
                .map(|found| found.to_string())
        }
        Step::DeleteBlob { repository, item, .. } => {
            registry.delete_blob(&parse(repository), &items[*item].digest).map(|()| String::new())
        }
        Step::Push { repository, item, media_type, tags, expected } => {
            let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
            let pushed =
                registry.push_manifest(&parse(repository), *expected, &tags, Some(media_type), &items[*item].bytes);
            pushed.map(|pushed| format!("{} {:?}", pushed.digest, pushed.subject))
        }
        Step::Delete { repository, reference } => {
            let reference = match reference.parse() {
                Ok(digest) => Reference::Digest(digest),
                Err(_) => Reference::Tag(reference.parse().unwrap()),
            };
            registry.delete_manifest(&parse(repository), &reference).map(|()| String::new())
        }
    };
    result.map_err(|error| error_name(&error))
}
