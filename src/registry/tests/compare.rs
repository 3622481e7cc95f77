//! The registry against the model: everything that can be read.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    digest::Digest,
    index::schema::{self, Scope, StateHash, UsageRow, key},
    name::RepositoryName,
    registry::{Page, Reference, ReferrersWanted, Registry},
    state::decide::find_repository,
};

use super::{
    items::{Item, SIGNATURE},
    model::{Model, blobs_of, error_name, parse},
};

impl Model {
    /// Used and linked bytes, blobs, manifest bytes, manifests and tags of the repositories that `chosen` picks.
    fn usage(&self, items: &[Item], chosen: impl Fn(&str) -> bool) -> UsageRow {
        let (mut blobs, mut linked, mut manifests) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut usage = UsageRow::default();
        for (_, repository) in self.repositories.iter().filter(|(name, _)| chosen(name)) {
            for (digest, manifest) in &repository.manifests {
                manifests.insert(*digest);
                blobs.extend(blobs_of(&items[manifest.item]).intersection(&repository.blobs).copied());
            }
            linked.extend(repository.blobs.iter().copied());
            usage.tags += repository.tags.len() as u64;
        }
        let len = |digest: &Digest| items.iter().find(|item| item.digest == *digest).map_or(0, Item::len);
        usage.linked_bytes = linked.iter().map(len).sum();
        (usage.blobs, usage.used_bytes) = (blobs.len() as u64, blobs.iter().map(len).sum());
        (usage.manifests, usage.manifest_bytes) = (manifests.len() as u64, manifests.iter().map(len).sum());
        usage
    }

    /// The first thing in which the registry is not like the model.
    pub(super) fn difference(&self, items: &[Item], names: &[&str], registry: &Registry) -> Result<(), String> {
        for (id, session) in &self.sessions {
            let repository = parse(&session.repository);
            let found = registry.upload_offset(&repository, id).map_err(|error| error_name(&error));
            same(id, "upload", Ok(session.written), found)?;
        }
        for (id, name) in self.ended.iter().flat_map(|id| names.iter().map(move |name| (id, name))) {
            let found = registry.upload_offset(&parse(name), id).map_err(|error| error_name(&error));
            same(id, "ended upload", Err("UploadUnknown".to_owned()), found)?;
        }
        for name in names {
            self.repository_difference(items, name, registry)?;
        }
        let catalog: Vec<String> = self.repositories.keys().cloned().collect();
        same(
            "catalog",
            "page",
            &catalog,
            &all_pages(|after, limit| registry.read(|reads| reads.repositories(after, limit)).unwrap()),
        )?;
        self.usage_difference(items, names, registry)
    }

    fn repository_difference(&self, items: &[Item], name: &str, registry: &Registry) -> Result<(), String> {
        let expected = self.repositories.get(name);
        let repository = parse(name);
        for item in items {
            let blob = expected.filter(|repository| repository.blobs.contains(&item.digest));
            let blob = blob.map(|_| item.bytes.clone()).ok_or_else(|| "BlobUnknown".to_owned());
            let found = registry
                .read(|reads| reads.blob(&repository, &item.digest))
                .and_then(|content| Ok(content.read_all()?));
            same(name, "blob", blob, found.map_err(|error| error_name(&error)))?;
            let manifest = self.manifest(items, name, &item.digest);
            let reference = Reference::Digest(item.digest);
            same(name, "manifest", manifest, read_manifest(registry, &repository, &reference))?;
        }
        let subjects = items.iter().filter_map(|item| item.document.as_ref()?.subject);
        for subject in subjects.chain([items[0].digest]).collect::<BTreeSet<_>>() {
            for artifact_type in [None, Some(SIGNATURE)] {
                let found = all_referrers(registry, &repository, subject, artifact_type);
                same(name, "referrers", self.referrers(items, name, subject, artifact_type), found)?;
            }
        }
        let Some(expected) = expected else {
            let found = registry.read(|reads| reads.tags(&repository, None, 1)).map_err(|error| error_name(&error));
            return same(name, "tags", Err("NameUnknown".to_owned()), found);
        };
        for (tag, digest) in &expected.tags {
            let reference = Reference::Tag(tag.parse().unwrap());
            let manifest = self.manifest(items, name, digest);
            same(name, "tag", manifest, read_manifest(registry, &repository, &reference))?;
        }
        let tags: Vec<String> = expected.tags.keys().cloned().collect();
        same(
            name,
            "tags",
            &tags,
            &all_pages(|after, limit| registry.read(|reads| reads.tags(&repository, after, limit)).unwrap()),
        )
    }

    /// Descriptors of the present manifests that name the subject, in the order of their digests.
    fn referrers(&self, items: &[Item], name: &str, subject: Digest, artifact_type: Option<&str>) -> Vec<Value> {
        let manifests = self.repositories.get(name).map(|repository| &repository.manifests);
        let mut referrers = Vec::new();
        for (digest, manifest) in manifests.into_iter().flatten() {
            let item = &items[manifest.item];
            let names_it = item.document.as_ref().is_some_and(|document| document.subject == Some(subject));
            let found_type = item.artifact_type();
            if !names_it || manifest.deleted || (artifact_type.is_some() && artifact_type != found_type) {
                continue;
            }
            let document: Value = serde_json::from_slice(&item.bytes).unwrap();
            let mut descriptor = json!({ "mediaType": manifest.media_type, "digest": digest, "size": item.len() });
            descriptor["annotations"] = document["annotations"].clone();
            if let Some(found) = found_type {
                descriptor["artifactType"] = json!(found);
            }
            referrers.push(descriptor);
        }
        referrers
    }

    fn manifest(&self, items: &[Item], name: &str, digest: &Digest) -> Result<String, String> {
        let repository = self.repositories.get(name).ok_or("NameUnknown")?;
        let manifest = repository.manifests.get(digest).filter(|manifest| !manifest.deleted);
        let manifest = manifest.ok_or("ManifestUnknown")?;
        Ok(format!("{digest} {} {:?}", manifest.media_type, items[manifest.item].bytes))
    }

    fn usage_difference(&self, items: &[Item], names: &[&str], registry: &Registry) -> Result<(), String> {
        let view = registry.store().snapshot();
        let check = |of: &str, scope: Scope, chosen: &dyn Fn(&str) -> bool| {
            let found: Option<UsageRow> = schema::get(&*view, key::usage(scope)).unwrap();
            // The rest is held against a recount.
            let found = UsageRow {
                links: 0,
                history: 0,
                repositories: 0,
                reclaimable_bytes: 0,
                settling: 0,
                organisations: 0,
                state_hash: StateHash::default(),
                ..found.unwrap_or_default()
            };
            same(of, "usage", self.usage(items, chosen), found)
        };
        check("the registry", Scope::Registry, &|_| true)?;
        for name in names {
            let repository = parse(name);
            let Some(id) = find_repository(&*view, &repository).unwrap() else { continue };
            check(name, Scope::Repository(id), &|other| other == *name)?;
            let organisation = repository.organisation();
            let row: schema::OrganisationNameRow =
                schema::expect(&*view, key::organisation_name(organisation)).unwrap();
            let chosen = |other: &str| parse(other).organisation() == organisation;
            check(organisation, Scope::Organisation(row.organisation), &chosen)?;
        }
        Ok(())
    }
}

fn read_manifest(registry: &Registry, name: &RepositoryName, reference: &Reference) -> Result<String, String> {
    let manifest = registry.read(|reads| reads.manifest(name, reference)).map_err(|error| error_name(&error))?;
    assert_eq!(manifest.len, manifest.bytes.len() as u64);
    Ok(format!("{} {} {:?}", manifest.digest, manifest.media_type, manifest.bytes))
}

/// A whole list, read in pages of two.
fn all_pages(page: impl Fn(Option<&str>, usize) -> Page) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let next = page(names.last().map(String::as_str), 2);
        names.extend(next.names);
        if !next.more {
            return names;
        }
    }
}

/// A whole list of referrers, read in pages of two.
fn all_referrers(
    registry: &Registry,
    name: &RepositoryName,
    subject: Digest,
    artifact_type: Option<&str>,
) -> Vec<Value> {
    let artifact_types = artifact_type.into_iter().map(str::to_owned).collect();
    let mut wanted = ReferrersWanted { artifact_types, after: None, limit: 2 };
    let mut referrers = Vec::new();
    loop {
        let page = registry.referrers(name, &subject, &wanted).unwrap();
        let mut index: Value = serde_json::from_slice(&page.index).unwrap();
        referrers.append(index["manifests"].as_array_mut().unwrap());
        if page.next.is_none() {
            return referrers;
        }
        assert!(page.next > wanted.after, "the pages go on");
        wanted.after = page.next;
    }
}

fn same<T: PartialEq + std::fmt::Debug>(of: &str, what: &str, expected: T, found: T) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let clip = |value: T| format!("{value:?}").chars().take(300).collect::<String>();
    Err(format!("{what} of {of}: expected {}, found {}", clip(expected), clip(found)))
}
