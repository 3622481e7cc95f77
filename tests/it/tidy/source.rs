//! A Rust source as tokens, without its comments and literals, and the paths in it.
//!
//! Far from a parser: it knows `use` trees, paths in expressions, and modules; macros are read as if they were code.

/// A source file.
pub(super) struct Source {
    /// From the package's root, with slashes.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) tokens: Vec<Token>,
}

/// A word, `::`, or any other character that is no space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Separator,
    Other(char),
}

impl Token {
    pub(super) fn is(&self, text: &str) -> bool {
        match self {
            Self::Word(word) => word == text,
            Self::Separator => text == "::",
            Self::Other(other) => text.chars().eq([*other]),
        }
    }
}

/// A path and the modules that it stands in, below the file's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathUse {
    pub(super) parts: Vec<String>,
    pub(super) inner_modules: usize,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), tokens: tokens(text) }
    }

    /// The modules of the file below its crate: `src/a/b.rs` is `a`, `b`.
    pub(super) fn modules(&self) -> Vec<&str> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.trim_end_matches(".rs").split('/').filter(|part| *part != "lib").collect()
    }

    /// Every path with at least two parts, and every name of a `use`.
    pub(super) fn paths(&self) -> Vec<PathUse> {
        let (mut paths, mut at, mut braces) = (Vec::new(), 0, Vec::new());
        while let Some(token) = self.tokens.get(at) {
            match token {
                Token::Other('{') => braces.push(at >= 2 && self.tokens[at - 2].is("mod")),
                Token::Other('}') => drop(braces.pop()),
                Token::Word(_) | Token::Separator => {
                    let is_use = token.is("use");
                    let mut found = Vec::new();
                    let end = self.tree(at + usize::from(is_use), &[], &mut found);
                    let inner_modules = braces.iter().filter(|is_module| **is_module).count();
                    let kept = found.into_iter().filter(|parts| is_use || parts.len() > 1);
                    paths.extend(kept.map(|parts| PathUse { parts, inner_modules }));
                    at = end.max(at + 1);
                    continue;
                }
                Token::Other(_) => {}
            }
            at += 1;
        }
        paths
    }

    /// Reads a path, or a tree of them in braces, and gives the place behind it.
    fn tree(&self, mut at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
        let mut parts = prefix.to_vec();
        let begins = at;
        if self.tokens.get(at) == Some(&Token::Separator) {
            at += 1;
        }
        loop {
            match self.tokens.get(at) {
                Some(Token::Word(word)) => {
                    if word != "self" {
                        parts.push(word.clone());
                    }
                    at += 1;
                    if !prefix.is_empty() && self.tokens.get(at).is_some_and(|token| token.is("as")) {
                        at += 2;
                    }
                }
                Some(Token::Other('*')) => at += 1,
                Some(Token::Other('{')) => {
                    at += 1;
                    while self.tokens.get(at).is_some_and(|token| !token.is("}")) {
                        let end = self.tree(at, &parts, found);
                        // Commas, and whatever a macro may have there.
                        at = end.max(at + 1);
                    }
                    return at + 1;
                }
                _ => break,
            }
            if self.tokens.get(at) != Some(&Token::Separator) {
                break;
            }
            at += 1;
        }
        if at > begins && !parts.is_empty() {
            found.push(parts);
        }
        at
    }

    /// The files of modules that are declared here, in modules of the file too.
    pub(super) fn declared_modules(&self) -> Vec<String> {
        let (directory, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = file.trim_end_matches(".rs");
        let is_root = matches!(stem, "lib" | "main") || matches!(directory, "benches" | "examples");
        let own = if is_root { directory.to_owned() } else { format!("{directory}/{stem}") };
        let (mut declared, mut braces) = (Vec::new(), Vec::new());
        for (at, token) in self.tokens.iter().enumerate() {
            match (token, self.tokens.get(at + 1), self.tokens.get(at + 2)) {
                (Token::Word(word), Some(Token::Word(name)), Some(Token::Other(';'))) if word == "mod" => {
                    let inner: String = braces.iter().flatten().map(|module| format!("/{module}")).collect();
                    declared.push(format!("{own}{inner}/{name}.rs"));
                }
                (Token::Other('{'), ..) => braces.push(match (at.checked_sub(2), at.checked_sub(1)) {
                    (Some(word), Some(name)) if self.tokens[word].is("mod") => match &self.tokens[name] {
                        Token::Word(name) => Some(name.clone()),
                        _ => None,
                    },
                    _ => None,
                }),
                (Token::Other('}'), ..) => drop(braces.pop()),
                _ => {}
            }
        }
        declared
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    while let Some(&c) = chars.get(at) {
        let rest = &chars[at..];
        if let Some(len) = skipped(rest, tokens.last()) {
            at += len;
        } else if is_word(&c) {
            let word: String = rest.iter().take_while(|c| is_word(c)).collect();
            at += word.chars().count();
            tokens.push(Token::Word(word));
        } else if rest.starts_with(&[':', ':']) {
            at += 2;
            tokens.push(Token::Separator);
        } else {
            at += 1;
            tokens.push(Token::Other(c));
        }
    }
    tokens
}

/// The length of the space, comment or literal that begins here.
fn skipped(rest: &[char], before: Option<&Token>) -> Option<usize> {
    let until = |begins: usize, end: &str| {
        let end: Vec<char> = end.chars().collect();
        let found = rest[begins..].windows(end.len()).position(|window| window == end);
        found.map_or(rest.len(), |found| begins + found + end.len())
    };
    let quoted = |begins: usize, quote: char| {
        let mut at = begins;
        while rest.get(at).is_some_and(|c| *c != quote) {
            at += if rest[at] == '\\' { 2 } else { 1 };
        }
        (at + 1).min(rest.len())
    };
    match rest {
        [c, ..] if c.is_whitespace() => Some(1),
        ['/', '/', ..] => Some(until(2, "\n")),
        ['/', '*', ..] => Some(until(2, "*/")),
        ['"', ..] => Some(quoted(1, '"')),
        ['b' | 'c', '"', ..] => Some(quoted(2, '"')),
        ['r', '"' | '#', ..] | ['b', 'r', '"' | '#', ..] => {
            let prefix = if rest[0] == 'b' { 2 } else { 1 };
            let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
            let is_literal = rest.get(prefix + hashes) == Some(&'"');
            is_literal.then(|| until(prefix + hashes + 1, &format!("\"{}", "#".repeat(hashes))))
        }
        // A character, unless it is a lifetime: that has no quote behind its first letter.
        ['\'', '\\', ..] => Some(quoted(1, '\'')),
        ['\'', _, '\'', ..] if before != Some(&Token::Other('\'')) => Some(3),
        _ => None,
    }
}

#[test]
fn comments_and_literals_are_no_tokens() {
    let text = r####"a /* b */ "c \" d" // e
        'f' '\'' b"g" r#"h " i"# r"j" 'k: &'l m::n b'o' "\\" p"####;
    let words: Vec<_> = tokens(text)
        .into_iter()
        .filter_map(|token| match token {
            Token::Word(word) => Some(word),
            _ => None,
        })
        .collect();
    assert_eq!(words, ["a", "k", "l", "m", "n", "b", "p"]);
}

#[test]
fn paths_of_uses_and_expressions_are_read() {
    let text = "use a::{b, c::{self, d as e, *}, f}; use g; fn h(i: j::K) { mod l { super::m::n() } }";
    let found: Vec<_> = Source::new("src/x.rs", text)
        .paths()
        .into_iter()
        .map(|path| (path.parts.join("::"), path.inner_modules))
        .collect();
    let found: Vec<_> = found.iter().map(|(path, inner)| (path.as_str(), *inner)).collect();
    for expected in [("a::b", 0), ("a::c", 0), ("a::c::d", 0), ("a::f", 0), ("g", 0), ("j::K", 0), ("super::m::n", 1)] {
        assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
    }
}
