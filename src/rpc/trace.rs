//! W3C Trace Context (<https://www.w3.org/TR/trace-context-1/>): which trace a call belongs to, whose child it is, and whether
//! somebody records it. A small value without an allocation of its own, but for a `tracestate`, which few callers send.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::metadata::{TRACEPARENT, TRACESTATE};

/// A place in a trace: the span that whatever comes next is a child of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Not all zero.
    pub trace_id: [u8; 16],
    /// Not all zero.
    pub span_id: [u8; 8],
    pub flags: u8,
    /// Passed on as it came.
    state: Option<Box<HeaderValue>>,
}

/// Bytes as hex digits.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

/// The flag that says that the caller records.
pub const SAMPLED: u8 = 1;

/// Bytes of a `traceparent` of version 00.
pub const TRACEPARENT_BYTES: usize = 55;

impl Trace {
    /// A place that begins a trace, or goes on in one that has no state.
    #[must_use]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Self {
        Self { trace_id, span_id, flags, state: None }
    }

    /// Reads the trace context. An invalid `traceparent` is ignored together with its `tracestate`, as W3C says.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let trace = Self::parse(headers.get(TRACEPARENT)?.as_bytes())?;
        Some(Self { state: headers.get(TRACESTATE).cloned().map(Box::new), ..trace })
    }

    /// The same from the texts of a `CallContext`.
    #[must_use]
    pub fn of_texts(traceparent: &str, tracestate: &str) -> Option<Self> {
        let trace = Self::parse(traceparent.as_bytes())?;
        let state = Some(tracestate).filter(|state| !state.is_empty());
        Some(Self { state: state.and_then(|state| HeaderValue::from_str(state).ok()).map(Box::new), ..trace })
    }

    /// W3C Trace Context §3.2: version, trace id and parent id not all zero, flags; a future version may go on after a '-'.
    fn parse(text: &[u8]) -> Option<Self> {
        let (version, rest) = field::<1>(text)?;
        let (trace_id, rest) = field::<16>(rest.strip_prefix(b"-")?)?;
        let (span_id, rest) = field::<8>(rest.strip_prefix(b"-")?)?;
        let ([flags], rest) = field::<1>(rest.strip_prefix(b"-")?)?;
        let ends = rest.is_empty() || (version != [0] && rest[0] == b'-');
        let valid = ends && version != [0xff] && trace_id != [0; 16] && span_id != [0; 8];
        valid.then(|| Self::new(trace_id, span_id, flags))
    }

    /// Another place in the same trace.
    #[must_use]
    pub fn at(&self, span_id: [u8; 8], flags: u8) -> Self {
        Self { span_id, flags, ..self.clone() }
    }

    /// Whether whoever is at this place records it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Writes it for the next hop.
    pub fn write(&self, headers: &mut HeaderMap) {
        // Hex digits and dashes are a valid value.
        if let Ok(value) = HeaderValue::from_bytes(&self.traceparent()) {
            headers.insert(HeaderName::from_static(TRACEPARENT), value);
        }
        if let Some(value) = &self.state {
            headers.insert(HeaderName::from_static(TRACESTATE), HeaderValue::clone(value));
        }
    }

    /// As text, version 00.
    #[must_use]
    pub fn traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put(&mut text[3..35], &self.trace_id);
        put(&mut text[36..52], &self.span_id);
        put(&mut text[53..55], &[self.flags]);
        text
    }

    /// The `tracestate`, if it has one that is text: a header may be anything.
    #[must_use]
    pub fn tracestate(&self) -> &str {
        self.state.as_ref().and_then(|state| state.to_str().ok()).unwrap_or_default()
    }

    /// The trace id, 32 hex digits, for logs.
    #[must_use]
    pub fn id(&self) -> Hex<'_> {
        Hex(&self.trace_id)
    }
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Takes so many bytes off a text of hex digits, which must be lower case.
fn field<const N: usize>(text: &[u8]) -> Option<([u8; N], &[u8])> {
    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        }
    }
    let (digits, rest) = text.split_at_checked(2 * N)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some((bytes, rest))
}

fn put(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests;
