//! The kinds of work: what one piece of each does, and what must be there before.

use std::ops::Range;

use crate::{
    content::Hasher,
    error::LoadError,
    measure::{
        shelf::{STORED_KEY, Shelf, push_blob, tag},
        stock::{Blob, Manifests, Stock, block},
    },
    registry::{CallError, Client},
};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Work {
    /// POST, PATCH, PUT of a large blob, streamed
    PushLarge,
    /// POST and PUT of a large blob, streamed
    PushLargePut,
    /// HEAD, POST, PUT of a small blob
    PushSmall,
    /// GET of large blobs
    PullLarge,
    /// GET of small blobs
    PullSmall,
    /// GET of ranges of 64 KiB at random offsets of large blobs
    PullRange,
    /// HEAD of manifests by tag
    HeadManifest,
    /// GET of manifests by tag
    GetManifest,
    /// PUT of a new manifest with a new tag
    PutTag,
    /// PUT of one manifest that is there, with a new tag
    Retag,
    /// GET of a manifest by tag, then of its config, out of the --items images that `benches/scale.rs` fills a store with
    PullFilled,
    /// GET of pages of 100 tags from random places
    ListTags,
    /// DELETE of manifests, each with one tag, by digest
    DeleteManifest,
    /// Small pulls and pushes, manifests, tags and pages, mixed
    Mixed,
}

/// What mixed work is made of, in percent.
const MIX: [(Work, u8); 6] = [
    (Work::PullSmall, 50),
    (Work::GetManifest, 20),
    (Work::HeadManifest, 10),
    (Work::PushSmall, 10),
    (Work::PutTag, 5),
    (Work::ListTags, 5),
];
const SMALL_BYTES: u64 = 4096;
const RANGE_BYTES: u64 = 64 << 10;
const PAGE_TAGS: u64 = 100;

impl Work {
    /// Its name, as the command line has it.
    pub(crate) fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Bytes of a blob, unless told.
    fn size(self) -> u64 {
        match self {
            Self::PushLarge | Self::PushLargePut | Self::PullLarge => 64 << 20,
            Self::PullRange => 1 << 30,
            _ => SMALL_BYTES,
        }
    }

    /// Stored things to draw from, unless told.
    fn items(self) -> u64 {
        match self {
            Self::PullLarge => 4,
            Self::PullRange => 1,
            Self::PullSmall => 1000,
            Self::HeadManifest | Self::GetManifest => 100,
            Self::Retag => 1,
            Self::PullFilled => 1_000_000,
            Self::ListTags => 5000,
            Self::DeleteManifest => 300,
            Self::Mixed => 500,
            Self::PushLarge | Self::PushLargePut | Self::PushSmall | Self::PutTag => 0,
        }
    }

    /// Whether a web server with files can do it.
    fn only_reads(self) -> bool {
        use Work as W;
        matches!(self, W::PullLarge | W::PullSmall | W::PullRange | W::HeadManifest | W::GetManifest)
    }

    fn needs(self, others: &[Self]) -> bool {
        self == Self::Mixed || others.contains(&self)
    }
}

/// A kind of work with all that it needs at hand.
pub(crate) struct Plan {
    work: Work,
    repository: String,
    stock: Stock,
    manifests: Manifests,
    items: u64,
    victims: Vec<String>,
    verify: bool,
    key: u64,
}

/// What a piece of work tells of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    /// What it was; of mixed work, its part.
    pub(crate) work: Work,
    /// Bytes of blobs that were moved.
    pub(crate) bytes: u64,
}

/// How a plan is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes of a blob.
    pub(crate) size: Option<u64>,
    /// Stored things.
    pub(crate) items: Option<u64>,
    /// Most pieces, so many victims are there.
    pub(crate) count: u64,
    /// Names what is new.
    pub(crate) seed: u64,
    /// Whether what comes is compared with what was stored.
    pub(crate) verify: bool,
}

impl Plan {
    /// Puts there what the work needs.
    pub(crate) fn prepare(work: Work, shelf: &Shelf, shape: Shape) -> Result<Self, LoadError> {
        if shelf.files.is_some() && !work.only_reads() {
            return Err(LoadError::Usage(format!("{} is not for --files", work.name())));
        }
        let block = block();
        let stock = Stock::new(&block, shape.size.unwrap_or(work.size()));
        let named = Stock::new(&block, SMALL_BYTES);
        let manifests = Manifests::new(&named, STORED_KEY);
        let items = shape.items.unwrap_or(work.items());
        // The key of what is stored stays apart.
        let key = shape.seed.wrapping_add(1).max(1);
        let mut plan = Self {
            work,
            repository: shelf.repository.clone(),
            stock,
            manifests,
            items,
            victims: Vec::new(),
            verify: shape.verify,
            key,
        };
        if work.needs(&[Work::PullLarge, Work::PullSmall, Work::PullRange]) {
            plan.require_items(1)?;
            shelf.blobs(&plan.stock, items)?;
        }
        let of_tags =
            [Work::HeadManifest, Work::GetManifest, Work::PutTag, Work::Retag, Work::ListTags, Work::DeleteManifest];
        if work.needs(&of_tags) {
            plan.require_items(match work {
                Work::Mixed | Work::ListTags => PAGE_TAGS + 1,
                Work::HeadManifest | Work::GetManifest | Work::Retag => 1,
                _ => 0,
            })?;
            shelf.tags(&named, &plan.manifests, items)?;
        }
        if work == Work::PullFilled {
            plan.require_items(1)?;
        }
        if work.needs(&[Work::PushLarge, Work::PushLargePut, Work::PushSmall]) && shelf.has(&plan.stock.blob(key, 0))? {
            return Err(LoadError::Usage(format!("--seed {} was pushed before; name another", shape.seed)));
        }
        if work == Work::DeleteManifest {
            plan.victims = shelf.victims(&plan.manifests, key, shape.count)?;
        }
        Ok(plan)
    }

    fn require_items(&self, least: u64) -> Result<(), LoadError> {
        if self.items >= least {
            return Ok(());
        }
        Err(LoadError::Usage(format!("{} needs --items of at least {least}", self.work.name())))
    }

    /// Does a piece of the work.
    pub(crate) fn piece(
        &self,
        client: &mut Client,
        random: &mut fastrand::Rng,
        index: u64,
    ) -> Result<Piece, CallError> {
        let work = if self.work == Work::Mixed { draw(random) } else { self.work };
        let repository = &self.repository;
        let mut bytes = 0;
        match work {
            Work::PushLarge => bytes = self.push_streamed(client, index)?,
            Work::PushLargePut => {
                let blob = self.stock.blob(self.key, index);
                push_blob(client, repository, &blob)?;
                bytes = blob.len();
            }
            Work::PushSmall => bytes = self.push_small(client, index)?,
            Work::PullLarge | Work::PullSmall => {
                let blob = self.stored(random);
                bytes = self.pull(client, &blob, None)?;
            }
            Work::PullRange => {
                let blob = self.stored(random);
                let begin = random.u64(0..=blob.len().saturating_sub(RANGE_BYTES));
                let end = begin.saturating_add(RANGE_BYTES).min(blob.len());
                bytes = self.pull(client, &blob, Some(begin..end))?;
            }
            Work::HeadManifest => {
                let tag = tag(random.u64(..self.items));
                require(client.has_manifest(repository, &tag)?, &tag, || "it is gone".to_owned())?;
            }
            Work::GetManifest => self.get_manifest(client, random.u64(..self.items))?,
            Work::PutTag => {
                let tag = format!("s{}-{index}", self.key);
                client.put_manifest(repository, &tag, &self.manifests.bytes(self.key, index))?;
            }
            Work::Retag => {
                let tag = format!("r{}-{index}", self.key);
                client.put_manifest(repository, &tag, &self.manifests.bytes(STORED_KEY, 0))?;
            }
            Work::PullFilled => bytes = self.pull_filled(client, random.u64(..self.items))?,
            Work::ListTags => self.list(client, random.u64(..self.items - PAGE_TAGS))?,
            Work::DeleteManifest => {
                let victim = usize::try_from(index).ok().and_then(|index| self.victims.get(index));
                client.delete_manifest(repository, victim.map_or("", |victim| victim))?;
            }
            Work::Mixed => {}
        }
        Ok(Piece { work, bytes })
    }

    fn stored(&self, random: &mut fastrand::Rng) -> Blob {
        self.stock.blob(STORED_KEY, random.u64(..self.items))
    }

    fn push_streamed(&self, client: &mut Client, index: u64) -> Result<u64, CallError> {
        let blob = self.stock.blob(self.key, index);
        let location = client.start_upload(&self.repository)?;
        let location = client.patch(&location, &blob, None)?;
        client.finish_upload(&location, &[][..], &blob.digest)?;
        Ok(blob.len())
    }

    fn push_small(&self, client: &mut Client, index: u64) -> Result<u64, CallError> {
        let blob = self.stock.blob(self.key, index);
        let known = client.has_blob(&self.repository, &blob.digest)?;
        require(!known, &blob.digest, || "it was pushed before; name another --seed".to_owned())?;
        push_blob(client, &self.repository, &blob)?;
        Ok(blob.len())
    }

    fn pull(&self, client: &mut Client, blob: &Blob, range: Option<Range<u64>>) -> Result<u64, CallError> {
        let wanted = range.clone().unwrap_or(0..blob.len());
        let (mut offset, mut same) = (wanted.start, true);
        let len = client.blob(&self.repository, &blob.digest, range, &mut |bytes| {
            same = same && (!self.verify || blob.has(offset, bytes));
            offset += bytes.len() as u64;
        })?;
        let expected = wanted.end - wanted.start;
        require(len == expected, &blob.digest, || format!("{len} bytes came, not {expected}"))?;
        require(same, &blob.digest, || "the bytes are not those that were pushed".to_owned())?;
        Ok(len)
    }

    fn get_manifest(&self, client: &mut Client, index: u64) -> Result<(), CallError> {
        let tag = tag(index);
        let (_, bytes) = client.manifest(&self.repository, &tag)?;
        let same = !self.verify || bytes == self.manifests.bytes(STORED_KEY, index);
        require(same, &tag, || "the bytes are not those that were pushed".to_owned())
    }

    fn pull_filled(&self, client: &mut Client, image: u64) -> Result<u64, CallError> {
        let (repository, tag) = (format!("org-{}/app-{}", image / 1_000, image / 100), format!("v{image}"));
        let (_, manifest) = client.manifest(&repository, &tag)?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap_or_default();
        let config = manifest["config"]["digest"].as_str().unwrap_or_default();
        let mut hasher = Hasher::default();
        let len = client.blob(&repository, config, None, &mut |bytes| hasher.update(bytes))?;
        require(!self.verify || hasher.finish() == config, config, || "the bytes are others".to_owned())?;
        Ok(len)
    }

    fn list(&self, client: &mut Client, after: u64) -> Result<(), CallError> {
        let last = tag(after);
        let answer = client.tags(&self.repository, PAGE_TAGS, &last)?;
        if !self.verify {
            return Ok(());
        }
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
        let tags = answer["tags"].as_array().map_or(&[][..], Vec::as_slice);
        let next = tag(after + 1);
        let right = tags.len() as u64 == PAGE_TAGS && tags[0] == next.as_str();
        let problem = || format!("asked for {PAGE_TAGS} tags after it, from {next} on; got {} tags", tags.len());
        require(right, &last, problem)
    }
}

fn draw(random: &mut fastrand::Rng) -> Work {
    let mut left = random.u8(..100);
    for (work, share) in MIX {
        match left.checked_sub(share) {
            Some(rest) => left = rest,
            None => return work,
        }
    }
    Work::PullSmall
}

fn require(holds: bool, what: &str, problem: impl FnOnce() -> String) -> Result<(), CallError> {
    if holds { Ok(()) } else { Err(CallError::Wrong { call: what.to_owned(), problem: problem() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_adds_up_and_every_part_is_drawn() {
        assert_eq!(MIX.iter().map(|(_, share)| u32::from(*share)).sum::<u32>(), 100);
        let mut random = fastrand::Rng::with_seed(1);
        let drawn: std::collections::BTreeSet<_> = (0..1000).map(|_| draw(&mut random)).collect();
        assert_eq!(drawn, MIX.iter().map(|(work, _)| *work).collect());
    }
}
