//! Digests: the names of content, parsed once at the boundary.
//!
//! `sha256` and `sha512` as the OCI image specification registers them
//! (image-spec, *descriptor.md*, "Registered algorithms"); lower-case hexadecimal only. Any other algorithm is refused,
//! never passed through: a digest that cannot be checked names nothing.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256, Sha512};

/// Longest hash in bytes (SHA-512).
pub const HASH_LEN_MAX: usize = 64;

/// A registered hash algorithm. The number is its code in keys and records (FORMAT.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256 = 1,
    /// SHA-512, 64 bytes.
    Sha512 = 2,
}

impl Algorithm {
    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the hash in bytes.
    pub fn hash_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The algorithm of a stored code.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Sha256),
            2 => Some(Self::Sha512),
            _ => None,
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            other => Err(DigestError::Algorithm(other.chars().take(64).collect())),
        }
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No colon between algorithm and hash.
    #[error("a digest is written <algorithm>:<hex>, for example sha256:e3b0c4…")]
    Shape,
    /// An algorithm that is not registered.
    #[error("digest algorithm \"{0}\" is not supported; use sha256 or sha512")]
    Algorithm(String),
    /// Not lower-case hexadecimal, or not of the algorithm's length.
    #[error("a {algorithm} digest has {expected} lower-case hexadecimal digits after the colon")]
    Hash {
        /// Name of the algorithm.
        algorithm: &'static str,
        /// Digits that it has.
        expected: usize,
    },
}

/// The name of some bytes: an algorithm and their hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hash: [u8; HASH_LEN_MAX],
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// A digest from an algorithm and exactly its hash's bytes.
    pub fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Option<Self> {
        if hash.len() != algorithm.hash_len() {
            return None;
        }
        let mut padded = [0; HASH_LEN_MAX];
        padded[..hash.len()].copy_from_slice(hash);
        Some(Self { algorithm, hash: padded })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash: 32 or 64 bytes.
    pub fn hash(&self) -> &[u8] {
        &self.hash[..self.algorithm.hash_len()]
    }

    /// Appends the binary form: the algorithm's code, then the hash. It sorts by algorithm, then hash.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.algorithm as u8);
        out.extend_from_slice(self.hash());
    }

    /// Reads the binary form from the front of `bytes`; the digest and what follows it.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&code, rest) = bytes.split_first()?;
        let algorithm = Algorithm::from_code(code)?;
        let (hash, rest) = rest.split_at_checked(algorithm.hash_len())?;
        Some((Self::from_hash(algorithm, hash)?, rest))
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Digest {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.algorithm, self.hash()).cmp(&(other.algorithm, other.hash()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = [0; 2 * HASH_LEN_MAX];
        f.write_str(self.algorithm.name())?;
        f.write_str(":")?;
        f.write_str(HEXLOWER.encode_mut_str(self.hash(), &mut hex[..2 * self.algorithm.hash_len()]))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Shape)?;
        let algorithm: Algorithm = algorithm.parse()?;
        let wrong = DigestError::Hash { algorithm: algorithm.name(), expected: 2 * algorithm.hash_len() };
        if hex.len() != 2 * algorithm.hash_len() {
            return Err(wrong);
        }
        let mut hash = [0; HASH_LEN_MAX];
        match HEXLOWER.decode_mut(hex.as_bytes(), &mut hash[..algorithm.hash_len()]) {
            Ok(_) => Ok(Self { algorithm, hash }),
            Err(_) => Err(wrong),
        }
    }
}

/// Hashes bytes as they come.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256 under way.
    Sha256(Sha256),
    /// SHA-512 under way.
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// The algorithm that it computes.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all that was taken.
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let mut hash = [0; HASH_LEN_MAX];
        match self {
            Self::Sha256(hasher) => hash[..32].copy_from_slice(&hasher.finalize()),
            Self::Sha512(hasher) => hash.copy_from_slice(&hasher.finalize()),
        }
        Digest { algorithm, hash }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_both_algorithms() {
        assert_eq!(
            Digest::of(Algorithm::Sha256, b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            Digest::of(Algorithm::Sha512, b"abc").to_string(),
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
    }

    #[test]
    fn text_and_bytes_round_trip() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"orlop");
            assert_eq!(digest.to_string().parse(), Ok(digest));
            let mut bytes = Vec::new();
            digest.encode(&mut bytes);
            bytes.extend_from_slice(b"rest");
            assert_eq!(Digest::decode(&bytes), Some((digest, &b"rest"[..])));
        }
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let cases = [
            String::new(),
            "sha256".to_owned(),
            "sha256:".to_owned(),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha512:{hex}"),
            format!("md5:{hex}"),
            format!("SHA256:{hex}"),
            format!("sha256:{}é", &hex[2..]),
            format!("sha256:../{}", &hex[3..]),
        ];
        for text in cases {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        assert_eq!(Digest::decode(&[3; 70]), None);
        assert_eq!(Digest::decode(&[1; 32]), None);
    }
}
