//! Patterns of `like` and `ilike`.
//!
//! `*` and `%` stand for any characters, `_` for one, and a backslash takes the meaning from what
//! follows. Each run between wildcards is looked for once, leftmost first, so that matching never
//! goes back over what it has passed.

use super::kind::Fold;

/// Most characters of a pattern.
///
/// A run with `_` in it is compared at each place of the value, so this bounds the work for a
/// character of a value.
const MAX_PATTERN: usize = 256;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Like {
    pieces: Vec<Piece>,
    any_case: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Piece {
    /// Any characters, or none.
    Many,
    /// One character.
    One,
    This(char),
}

impl Like {
    /// Reads a pattern; for `ilike` with `any_case`.
    ///
    /// # Errors
    /// What is wrong: too long, or a backslash at the end.
    pub fn new(pattern: &str, any_case: bool) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            pieces.push(match character {
                '*' | '%' => Piece::Many,
                '_' => Piece::One,
                '\\' => Piece::This(characters.next().ok_or("the pattern ends with a backslash")?),
                other => Piece::This(other),
            });
        }
        if pieces.len() > MAX_PATTERN {
            return Err(format!("the pattern has more than {MAX_PATTERN} characters"));
        }
        Ok(Self { pieces, any_case })
    }

    /// Whether capitals are the same as small letters.
    pub fn any_case(&self) -> bool {
        self.any_case
    }

    /// The pattern as SQL's `LIKE` takes it.
    pub fn sql(&self) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Many => out.push('%'),
                Piece::One => out.push('_'),
                Piece::This(c @ ('%' | '_' | '\\')) => out.extend(['\\', *c]),
                Piece::This(c) => out.push(*c),
            }
        }
        out
    }

    /// Makes it ready to be applied; `fold` is asked only where capitals do not count.
    pub(super) fn matcher(&self, fold: &Fold) -> Matcher {
        let mut runs = vec![Run::default()];
        for piece in &self.pieces {
            match piece {
                Piece::Many => runs.push(Run::default()),
                Piece::One => runs.last_mut().expect("there is one from the start").push(None),
                Piece::This(c) => {
                    let c = if self.any_case { fold.character(*c) } else { *c };
                    runs.last_mut().expect("there is one from the start").push(Some(c));
                }
            }
        }
        Matcher { runs, fold: self.any_case.then(|| fold.clone()) }
    }
}

/// A pattern ready to be applied.
#[derive(Debug)]
pub(super) struct Matcher {
    /// What stands between wildcards: the first at the start, the last at the end.
    runs: Vec<Run>,
    /// How capitals become small, where they do not count.
    fold: Option<Fold>,
}

/// Characters in a row; `None` for one that may be any.
#[derive(Debug, Default)]
struct Run {
    characters: Vec<Option<char>>,
    /// The same as text, as long as each is certain.
    text: Option<String>,
}

impl Run {
    fn push(&mut self, character: Option<char>) {
        self.text = match (self.characters.is_empty(), self.text.take(), character) {
            (true, _, Some(c)) => Some(c.into()),
            (false, Some(text), Some(c)) => Some(text + c.encode_utf8(&mut [0; 4])),
            _ => None,
        };
        self.characters.push(character);
    }

    /// What follows the run at the start of `text`.
    fn after<'t>(&self, text: &'t str) -> Option<&'t str> {
        if let Some(run) = &self.text {
            return text.strip_prefix(run.as_str());
        }
        let mut rest = text.chars();
        for wanted in &self.characters {
            let found = rest.next()?;
            if wanted.is_some_and(|wanted| wanted != found) {
                return None;
            }
        }
        Some(rest.as_str())
    }

    /// Whether `text` ends with the run.
    fn ends(&self, text: &str) -> bool {
        let mut rest = text.chars();
        self.characters.iter().rev().all(|wanted| {
            rest.next_back().is_some_and(|found| wanted.is_none_or(|wanted| wanted == found))
        })
    }

    /// What follows the leftmost place of the run in `text`.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        if let Some(run) = &self.text {
            return text.find(run.as_str()).map(|at| &text[at + run.len()..]);
        }
        let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        starts.into_iter().find_map(|at| self.after(&text[at..]))
    }
}

impl Matcher {
    pub(super) fn matches(&self, value: &str) -> bool {
        match &self.fold {
            Some(fold) => self.matches_folded(&fold.text(value)),
            None => self.matches_folded(value),
        }
    }

    fn matches_folded(&self, value: &str) -> bool {
        let (first, others) = self.runs.split_first().expect("there is one from the start");
        let Some(mut rest) = first.after(value) else { return false };
        let Some((last, middle)) = others.split_last() else { return rest.is_empty() };
        for run in middle {
            match run.find(rest) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        last.ends(rest)
    }
}
