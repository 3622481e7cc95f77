//! A policy as bytes, in the journal and in the index. FORMAT.md tells them; the version is that of whatever holds them.

use super::{Policy, TagPatterns};
use crate::codec::{DecodeError, Decoder, Encoder};

impl Policy {
    /// Appends it.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.str(self.name.as_str()).str(self.pattern.as_str());
        put_patterns(encoder, &self.tag_pattern);
        encoder.option(self.keep_newest, |e, count| {
            e.u32(count);
        });
        for value in [self.older_than_ms, self.not_pulled_for_ms, self.size_max_bytes] {
            encoder.option(value, |e, value| {
                e.u64(value);
            });
        }
        encoder.option(self.immutable.as_ref(), put_patterns);
        for value in [self.held_for_ms, self.never_tagged_for_ms] {
            encoder.option(value, |e, value| {
                e.u64(value);
            });
        }
    }

    /// Takes one from the front.
    ///
    /// # Errors
    /// When the bytes are none, or are of one that is not accepted.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let name = decoder.parsed("policy name")?;
        let mut policy = Self::new(name, decoder.parsed("policy pattern")?);
        policy.tag_pattern = patterns(decoder, "tag pattern")?;
        policy.keep_newest = decoder.option("keep newest", |d| d.u32("keep newest"))?;
        policy.older_than_ms = number(decoder, "older than")?;
        policy.not_pulled_for_ms = number(decoder, "not pulled for")?;
        policy.size_max_bytes = number(decoder, "size max")?;
        policy.immutable = decoder.option("immutable", |d| patterns(d, "immutable"))?;
        policy.held_for_ms = number(decoder, "held for")?;
        policy.never_tagged_for_ms = number(decoder, "never tagged for")?;
        policy.check().map_err(|_| DecodeError { field: "policy", problem: "out of its bounds" })?;
        Ok(policy)
    }
}

fn put_patterns(encoder: &mut Encoder, patterns: &TagPatterns) {
    encoder.list(patterns.texts(), |e, text| {
        e.str(text);
    });
}

fn patterns(decoder: &mut Decoder<'_>, field: &'static str) -> Result<TagPatterns, DecodeError> {
    let texts = decoder.list(field, |d| d.str(field).map(str::to_owned))?;
    TagPatterns::new(field, texts).map_err(|_| DecodeError { field, problem: "out of its grammar" })
}

fn number(decoder: &mut Decoder<'_>, field: &'static str) -> Result<Option<u64>, DecodeError> {
    decoder.option(field, |d| d.u64(field))
}
