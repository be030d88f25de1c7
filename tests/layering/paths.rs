//! Every path that a source file names, made absolute where it begins with `self`, `super` or `crate`.

use std::iter::Peekable;

use proc_macro2::token_stream::IntoIter;
use proc_macro2::{Delimiter, Ident, Spacing, TokenStream, TokenTree};

/// One path and where it stands.
#[derive(Debug)]
pub struct Named {
    pub path: Vec<String>,
    pub line: usize,
    /// Whether it stands in a test module.
    pub in_tests: bool,
}

/// The paths named in `text`, which is the source of `module` (counted from the crate, e.g. `["rpc", "status"]`).
pub fn named_in(text: &str, module: &[String]) -> Result<Vec<Named>, String> {
    let tokens: TokenStream = text.parse().map_err(|problem| format!("cannot be read as Rust: {problem}"))?;
    let mut reader = Reader { module: module.to_vec(), named: Vec::new() };
    reader.tokens(tokens, &[]);
    Ok(reader.named)
}

struct Reader {
    module: Vec<String>,
    named: Vec<Named>,
}

type Tokens = Peekable<IntoIter>;

impl Reader {
    fn tokens(&mut self, tokens: TokenStream, prefix: &[String]) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "mod" => self.inline_module(&mut tokens),
                TokenTree::Ident(word) => self.path(&word, &mut tokens, prefix),
                TokenTree::Punct(star) if star.as_char() == '*' && !prefix.is_empty() => {
                    self.push(prefix.to_vec(), star.span().start().line);
                }
                TokenTree::Group(group) => self.tokens(group.stream(), &[]),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// `mod name { … }`: what is inside counts its `super` from there.
    fn inline_module(&mut self, tokens: &mut Tokens) {
        let Some(TokenTree::Ident(name)) = tokens.next() else { return };
        if let Some(TokenTree::Group(body)) = tokens.peek()
            && body.delimiter() == Delimiter::Brace
        {
            let body = body.stream();
            tokens.next();
            self.module.push(name.to_string());
            self.tokens(body, &[]);
            self.module.pop();
        }
    }

    /// `a::b::c`, `a::{b, c::d}`, `a::*`.
    fn path(&mut self, first: &Ident, tokens: &mut Tokens, prefix: &[String]) {
        let line = first.span().start().line;
        let mut path = prefix.to_vec();
        path.push(first.to_string());
        while takes_colons(tokens) {
            match tokens.peek() {
                Some(TokenTree::Ident(segment)) => {
                    path.push(segment.to_string());
                    tokens.next();
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let group = group.stream();
                    tokens.next();
                    return self.tokens(group, &path);
                }
                _ => break,
            }
        }
        self.push(path, line);
    }

    fn push(&mut self, path: Vec<String>, line: usize) {
        let in_tests = self.module.iter().any(|module| module == "tests");
        self.named.push(Named { path: absolute(path, &self.module), line, in_tests });
    }
}

/// Takes `::` if it comes next.
fn takes_colons(tokens: &mut Tokens) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
    let joint =
        matches!(tokens.peek(), Some(TokenTree::Punct(p)) if p.as_char() == ':' && p.spacing() == Spacing::Joint);
    if !joint {
        return false;
    }
    tokens.next();
    debug_assert!(is_colon(tokens.peek()), "a joint colon is followed by another");
    tokens.next();
    true
}

fn absolute(path: Vec<String>, module: &[String]) -> Vec<String> {
    let supers = path.iter().take_while(|segment| *segment == "super").count();
    let from_self = usize::from(path.first().is_some_and(|first| first == "self"));
    if supers + from_self == 0 {
        return path;
    }
    let mut resolved = vec!["crate".to_owned()];
    resolved.extend_from_slice(&module[..module.len().saturating_sub(supers)]);
    resolved.extend(path.into_iter().skip(supers + from_self));
    resolved
}
