//! A request's body, taken in chunks of a bounded size.
//!
//! What came before a body failed is handed over too: an upload keeps it.

use std::error::Error;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::{error::HttpError, pace::TooSlow};

/// A chunk that has become this long gets all of its memory at once, with room for one read (which is no longer) more.
const GROWN_LEN: usize = 64 << 10;

/// Why a body did not come whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The connection broke, or the transfer coding was wrong.
    #[error("the body broke off: {0}")]
    Broken(String),
    /// The client sent too slowly.
    #[error(transparent)]
    TooSlow(TooSlow),
    /// More bytes came than were announced.
    #[error("the body is longer than the {announced} bytes that were announced")]
    TooLong {
        /// Bytes that were announced.
        announced: u64,
    },
    /// Fewer bytes came than were announced.
    #[error("the body has {came} bytes, {announced} were announced")]
    TooShort {
        /// Bytes that were announced.
        announced: u64,
        /// Bytes that came.
        came: u64,
    },
}

impl From<BodyError> for HttpError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooSlow(_) => Self::too_slow(error.to_string()),
            _ => Self::size(error.to_string()),
        }
    }
}

/// Reads a body.
#[derive(Debug)]
pub(super) struct BodyReader {
    body: Body,
    /// Bytes that the body must have, where something other than its framing says so.
    announced: Option<u64>,
    came: u64,
}

impl BodyReader {
    /// Reads `body`, which must have `announced` bytes if that is known.
    pub(super) fn new(body: Body, announced: Option<u64>) -> Self {
        Self { body, announced, came: 0 }
    }

    /// How many bytes the body has at most, where its framing or somebody's word for it tells.
    pub(super) fn len_max(&self) -> Option<u64> {
        self.announced.or_else(|| self.body.size_hint().upper())
    }

    /// Appends what comes to `chunk` until it has at least `len` bytes (and less than one read more); whether more
    /// may follow.
    ///
    /// # Errors
    /// [`BodyError`]; `chunk` then has what came before, and of a body that is too long no more than was announced.
    pub(super) async fn fill(&mut self, chunk: &mut Vec<u8>, len: usize) -> Result<bool, BodyError> {
        while chunk.len() < len {
            // Growth by doubling could end at twice the step that the budget was asked for.
            if chunk.len() >= GROWN_LEN && chunk.capacity() < len {
                chunk.reserve_exact(len.saturating_sub(chunk.len()).saturating_add(GROWN_LEN));
            }
            if self.body.is_end_stream() {
                return self.end();
            }
            match self.body.frame().await {
                None => return self.end(),
                Some(Err(error)) => return Err(broken(error)),
                // Trailers say nothing that is used here.
                Some(Ok(frame)) => self.take(&frame.into_data().unwrap_or_default(), chunk)?,
            }
        }
        Ok(true)
    }

    fn take(&mut self, data: &Bytes, chunk: &mut Vec<u8>) -> Result<(), BodyError> {
        let came = self.came.saturating_add(data.len() as u64);
        if let Some(announced) = self.announced.filter(|&announced| came > announced) {
            let room = usize::try_from(announced - self.came).unwrap_or(data.len());
            chunk.extend_from_slice(data.get(..room).unwrap_or(data));
            self.came = announced;
            return Err(BodyError::TooLong { announced });
        }
        chunk.extend_from_slice(data);
        self.came = came;
        Ok(())
    }

    fn end(&self) -> Result<bool, BodyError> {
        match self.announced {
            Some(announced) if announced != self.came => Err(BodyError::TooShort { announced, came: self.came }),
            _ => Ok(false),
        }
    }
}

fn broken(error: axum::Error) -> BodyError {
    let error = error.into_inner();
    let mut source: Option<&(dyn Error + 'static)> = Some(error.as_ref());
    while let Some(cause) = source {
        if let Some(slow) = cause.downcast_ref::<TooSlow>() {
            return BodyError::TooSlow(*slow);
        }
        source = cause.source();
    }
    BodyError::Broken(error.to_string())
}

/// A whole body of at most `max` bytes. Not more than that, and one read, is ever taken.
///
/// # Errors
/// 413 naming `what` when it is longer, [`BodyError`]s else.
pub(super) async fn whole(body: Body, what: &str, max: usize) -> Result<Bytes, HttpError> {
    let too_large = || HttpError::too_large(what, max as u64);
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let more = BodyReader::new(body, None).fill(&mut bytes, max.saturating_add(1)).await?;
    if more || bytes.len() > max { Err(too_large()) } else { Ok(bytes.into()) }
}

#[cfg(test)]
mod tests {
    use http_body_util::channel::Channel;

    use super::*;

    fn is_refusal(error: &HttpError, status: u16) -> bool {
        error.status().as_u16() == status && error.code() == "SIZE_INVALID"
    }

    /// A body of frames, broken off in the end when `breaks`.
    fn body(frames: &[&'static str], breaks: bool) -> Body {
        let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(frames.len().max(1));
        for frame in frames {
            sender.try_send(http_body::Frame::data(Bytes::from_static(frame.as_bytes()))).unwrap();
        }
        if breaks {
            sender.abort(std::io::Error::other("gone"));
        }
        Body::new(body)
    }

    async fn check(frames: &[&'static str], breaks: bool, announced: Option<u64>, chunks: &[&str], end: &str) {
        let mut reader = BodyReader::new(body(frames, breaks), announced);
        let mut found = Vec::new();
        let ended = loop {
            let mut chunk = Vec::new();
            let more = reader.fill(&mut chunk, 4).await;
            found.push(String::from_utf8(chunk).unwrap());
            match more {
                Ok(true) => {}
                Ok(false) => break "whole".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(found, chunks);
        assert!(ended.contains(end), "{ended}");
    }

    #[tokio::test]
    async fn bodies_come_in_chunks_and_what_came_before_a_failure_is_kept() {
        check(&[], false, None, &[""], "whole").await;
        check(&["ab", "c"], false, None, &["abc"], "whole").await;
        check(&["ab", "cdef", "g"], false, Some(7), &["abcdef", "g"], "whole").await;
        check(&["ab", "cdef", "g"], false, Some(6), &["abcdef", ""], "longer than the 6").await;
        check(&["ab", "cdef"], false, Some(3), &["abc"], "longer than the 3").await;
        check(&["ab"], false, Some(3), &["ab"], "has 2 bytes, 3").await;
        check(&["abcd", "ef"], true, None, &["abcd", "ef"], "broke off").await;
    }

    #[tokio::test]
    async fn a_whole_body_ends_at_its_limit() {
        assert_eq!(whole(body(&["ab", "cd"], false), "manifest", 4).await.unwrap(), "abcd");
        for frames in [&["ab", "cde"][..], &["abcde"]] {
            let error = whole(body(frames, false), "manifest", 4).await.unwrap_err();
            assert!(is_refusal(&error, 413));
        }
        let error = whole(Body::from("abcde"), "manifest", 4).await.unwrap_err();
        assert!(is_refusal(&error, 413));
        let error = whole(body(&["ab"], true), "manifest", 4).await.unwrap_err();
        assert!(is_refusal(&error, 400));
    }
}
