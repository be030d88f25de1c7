//! Entries as NDJSON: one object per line, `{"key", "value" or "value_base64", "ttl_ms"?, "version"?}`. Text is written as
//! `value`, anything else as `value_base64` (standard alphabet, padded). `version` is for reading only.

use std::borrow::Cow;
use std::io::{self, BufRead, Read as _};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::client::DumpedEntry;

/// Bytes of a line: the largest value, every byte of it escaped as `\u00xx`, with room for the key.
pub const MAX_LINE_BYTES: usize = 32 * 1024 * 1024;

/// A line as it is written. An unknown field is a mistake: `tll_ms` must not mean "for ever".
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

/// An entry to store.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    /// `None`: the account's default.
    pub ttl: Option<Duration>,
}

/// Why a line is no entry.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("it is no such object: {0}")]
    Json(#[from] serde_json::Error),
    #[error("`value_base64` is not base64 (standard alphabet, padded): {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("give it either `value` or `value_base64`")]
    Value,
    #[error("it is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
}

/// Reads a line.
pub fn parse(line: &[u8]) -> Result<Entry, LineError> {
    let line: Line<'_> = serde_json::from_slice(line)?;
    let value = match (line.value, line.value_base64) {
        (Some(text), None) => Bytes::from(text.into_owned()),
        (None, Some(text)) => Bytes::from(STANDARD.decode(text.as_bytes())?),
        _ => return Err(LineError::Value),
    };
    let ttl = line.ttl_ms.filter(|ttl| *ttl != 0).map(Duration::from_millis);
    Ok(Entry { key: line.key.into_owned(), value, ttl })
}

/// Writes a line, its end included.
pub fn write(entry: &DumpedEntry, mut out: impl io::Write) -> io::Result<()> {
    let text = std::str::from_utf8(&entry.value).ok();
    let line = Line {
        key: Cow::Borrowed(&entry.key),
        value: text.map(Cow::Borrowed),
        value_base64: text.is_none().then(|| Cow::Owned(STANDARD.encode(&entry.value))),
        ttl_ms: entry.remaining_ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        version: Some(entry.version),
    };
    serde_json::to_writer(&mut out, &line)?;
    out.write_all(b"\n")
}

/// Reads the next line into `line`, without its end; `None` at the end of the input. A line over the limit is skipped and
/// answered as such.
pub fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Result<(), LineError>>> {
    line.clear();
    let read = input.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop_if(|byte| *byte == b'\n').is_none() && read > MAX_LINE_BYTES {
        line.clear();
        skip_line(input)?;
        return Ok(Some(Err(LineError::TooLong)));
    }
    Ok(Some(Ok(())))
}

/// Reads past the next end of line, holding one buffer of it at a time.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let read = end.map_or(buffer.len(), |end| end + 1);
        input.consume(read);
        if end.is_some() || read == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(value: &'static [u8], remaining_ttl: Option<Duration>) -> DumpedEntry {
        let cursor = Bytes::new();
        DumpedEntry { key: "a\"b/ä".to_owned(), value: Bytes::from_static(value), version: 7, remaining_ttl, cursor }
    }

    #[test]
    fn what_is_written_is_read() {
        for value in [b"".as_slice(), b"text\nand \"more\"", b"\xff\x00\xfe"] {
            let ttl = Some(Duration::from_millis(1500));
            let mut line = Vec::new();
            write(&dumped(value, ttl), &mut line).unwrap();
            let entry = Entry { key: "a\"b/ä".to_owned(), value: Bytes::from_static(value), ttl };
            assert!(!line[..line.len() - 1].contains(&b'\n'));
            assert_eq!(parse(&line).unwrap(), entry);
        }
    }

    #[test]
    fn a_line_says_what_is_wrong_with_it() {
        let table = [
            ("nonsense", "no such object"),
            (r#"{"key": "k"}"#, "either"),
            (r#"{"key": "k", "value": "v", "value_base64": "dg=="}"#, "either"),
            (r#"{"key": "k", "value_base64": "?"}"#, "base64"),
            (r#"{"key": "k", "value": "v", "tll_ms": 1}"#, "tll_ms"),
            (r#"{"value": "v"}"#, "key"),
        ];
        for (line, wanted) in table {
            let said = parse(line.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(wanted), "{line}: {said}");
        }
    }

    #[test]
    fn a_line_over_the_limit_is_skipped() {
        let mut text = vec![b'x'; MAX_LINE_BYTES + 10];
        text.extend_from_slice(b"\nnext");
        let (mut input, mut line) = (text.as_slice(), Vec::new());
        assert!(matches!(next_line(&mut input, &mut line).unwrap(), Some(Err(LineError::TooLong))));
        assert!(matches!(next_line(&mut input, &mut line).unwrap(), Some(Ok(()))));
        assert_eq!(line, b"next");
        assert!(next_line(&mut input, &mut line).unwrap().is_none());
    }
}
