//! Says what is wrong with a JSON text without repeating what stands in it: it may be a token that somebody put there.

use super::FileError;

/// Characters of an unknown field's name that are repeated, if it looks like one. Tokens are longer.
const MAX_NAME: usize = 24;

/// The error of `serde_json` as ours.
pub fn explain(error: &serde_json::Error) -> FileError {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    FileError::Json { line: error.line(), column: error.column(), problem: sentence(message) }
}

/// Only in `<what was found>, expected <what is needed>` the first half comes from the file.
fn sentence(message: &str) -> String {
    if message.starts_with("unknown field `token`") {
        return "a token is kept only as its hash: pipe it into `larder account hash` and write `\"hash\": \"sha256:…\"`".into();
    }
    let Some((found, expected)) = message.split_once(", expected ") else { return message.into() };
    let (kind, quoted) =
        found.split_once(['`', '"']).map_or((found, None), |(kind, rest)| (kind.trim_end(), Some(rest)));
    let expected = if expected == "u64" { "a whole number from 0 upwards" } else { expected };
    match quoted.map(|rest| rest.trim_end_matches(['`', '"'])) {
        Some(name) if kind.starts_with("unknown") && is_name(name) => format!("{kind} `{name}`, expected {expected}"),
        _ => format!("{kind}, expected {expected}"),
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
