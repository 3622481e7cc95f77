//! Globs: `*` stands for any characters but `/`, `**` for any. All other characters stand for themselves.
//!
//! Matching takes at most the product of both lengths, whatever the pattern: it keeps the set of places in the pattern that a
//! prefix of the text can have reached, and never goes back. It runs in the committer, for every policy, when a
//! repository is named first.

/// Longest pattern in bytes.
pub(super) const LEN_MAX: usize = 255;

/// What stands at a place of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Any characters but `/`.
    Star,
    /// Any characters.
    Stars,
    /// Itself.
    Byte(u8),
}

impl Part {
    /// Bytes that it takes in the pattern.
    fn len(self) -> usize {
        if self == Self::Stars { 2 } else { 1 }
    }

    /// Whether it stands for any number of characters.
    pub(super) fn is_wild(self) -> bool {
        !matches!(self, Self::Byte(_))
    }

    /// Whether it is a wildcard that all texts of another part are texts of, any number of times.
    fn swallows(self, other: Self) -> bool {
        match self {
            Self::Stars => true,
            Self::Star => !matches!(other, Self::Stars | Self::Byte(b'/')),
            Self::Byte(_) => false,
        }
    }
}

/// The part that begins at a place; `None` at the end.
fn part(pattern: &[u8], at: usize) -> Option<Part> {
    match pattern.get(at..)? {
        [] => None,
        [b'*', b'*', ..] => Some(Part::Stars),
        [b'*', ..] => Some(Part::Star),
        [byte, ..] => Some(Part::Byte(*byte)),
    }
}

/// The parts of a pattern, in order.
pub(super) fn parts(pattern: &str) -> impl Iterator<Item = Part> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let part = part(pattern.as_bytes(), at)?;
        at += part.len();
        Some(part)
    })
}

/// Places of a pattern; the last is behind its end.
type Places = [bool; LEN_MAX + 1];

/// Marks a place, and those behind wildcards that stand for nothing.
fn reach(places: &mut Places, pattern: &[u8], mut at: usize) {
    loop {
        places[at] = true;
        match part(pattern, at) {
            Some(wild) if wild.is_wild() => at += wild.len(),
            _ => return,
        }
    }
}

/// Whether every text of `parts` is one of `pattern`, as far as it can be said part by part: never wrongly `true`.
fn accepts(pattern: &str, parts: impl Iterator<Item = Part>) -> bool {
    let pattern = pattern.as_bytes();
    debug_assert!(pattern.len() <= LEN_MAX, "{} bytes", pattern.len());
    let mut places = [false; LEN_MAX + 1];
    reach(&mut places, pattern, 0);
    for given in parts {
        let mut next = [false; LEN_MAX + 1];
        for at in (0..pattern.len()).filter(|at| places[*at]) {
            match part(pattern, at) {
                Some(wild) if wild.swallows(given) => reach(&mut next, pattern, at),
                Some(own) if own == given && !own.is_wild() => reach(&mut next, pattern, at + 1),
                _ => {}
            }
        }
        places = next;
    }
    places[pattern.len()]
}

/// Whether a text is one of the pattern's. The text has no `*`.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    // Nearly all patterns begin with letters that nearly all texts don't; and many end with their only wildcard.
    let fixed = pattern.find('*').unwrap_or(pattern.len());
    let (head, wild) = pattern.split_at(fixed);
    let Some(rest) = text.strip_prefix(head) else { return false };
    match wild {
        "" => rest.is_empty(),
        "*" => !rest.contains('/'),
        "**" => true,
        _ => accepts(wild, rest.bytes().map(Part::Byte)),
    }
}

/// Whether all texts of another pattern are texts of this one. May be `false` for some that are; never `true` wrongly.
pub(super) fn covers(pattern: &str, other: &str) -> bool {
    accepts(pattern, parts(other))
}

/// Whether there is a text that both match.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|pattern| parts(pattern).collect::<Vec<_>>());
    let width = other.len() + 1;
    // Pairs of places that some text reaches in both; every step goes to a pair that is looked at later.
    let mut reached = vec![false; (one.len() + 1) * width];
    reached[0] = true;
    for a in 0..=one.len() {
        for b in 0..=other.len() {
            if !reached[a * width + b] {
                continue;
            }
            let (left, right) = (one.get(a).copied(), other.get(b).copied());
            let mut go = |a: usize, b: usize| reached[a * width + b] = true;
            if left.is_some_and(Part::is_wild) {
                go(a + 1, b);
            }
            if right.is_some_and(Part::is_wild) {
                go(a, b + 1);
            }
            match (left, right) {
                (Some(Part::Byte(x)), Some(Part::Byte(y))) if x == y => go(a + 1, b + 1),
                (Some(wild), Some(byte @ Part::Byte(_))) if wild.swallows(byte) => go(a, b + 1),
                (Some(byte @ Part::Byte(_)), Some(wild)) if wild.swallows(byte) => go(a + 1, b),
                _ => {}
            }
        }
    }
    reached.last().copied().unwrap_or(false)
}
