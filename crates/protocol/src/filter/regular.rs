//! Regular expressions of `match` and `imatch`: those that mean the same to PostgreSQL and to us.
//!
//! Literals, `.`, `^`, `$`, `|`, groups, sets of ASCII in brackets and the quantifiers of one match
//! do. Classes such as `\w` depend on a collation, back references are beyond a regular language,
//! and a few oddities are read differently by the two; those are refused with what to write
//! instead. The expression is written anew for our engine from what was understood, so that nothing
//! passes that was not.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

/// Most characters of an expression.
const MAX_PATTERN: usize = 512;

/// Largest count in braces: PostgreSQL's.
const MAX_COUNT: u32 = 255;

/// Deepest groups.
const MAX_GROUPS: usize = 16;

/// Sizes of compiled expressions, of which the first that fits is taken: counts in counts are what
/// makes one large, and most are small.
const SIZES: [Size; 3] = [
    Size { compiled: 16 << 10, automaton: 64 << 10, weight: 256 << 10 },
    Size { compiled: 128 << 10, automaton: 256 << 10, weight: 2 << 20 },
    Size { compiled: 1 << 20, automaton: 512 << 10, weight: 8 << 20 },
];

/// How much memory an expression may take.
struct Size {
    /// Bytes of the expression itself.
    compiled: usize,
    /// Bytes of states that are kept while matching, once forward and once backward for each
    /// thread.
    automaton: usize,
    /// Bytes of all that, as it is counted: what it comes to with some threads in use.
    weight: usize,
}

/// A regular expression.
#[derive(Clone)]
pub struct Regular {
    source: Arc<str>,
    any_case: bool,
    compiled: Regex,
    weight: usize,
}

impl Regular {
    /// Reads an expression; for `imatch` with `any_case`.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn new(source: &str, any_case: bool) -> Result<Self, String> {
        if source.chars().count() > MAX_PATTERN {
            return Err(format!("the expression has more than {MAX_PATTERN} characters"));
        }
        let mut reader =
            Reader { rest: source.chars().collect(), at: 0, any_case, out: String::new() };
        reader.alternatives(0)?;
        if reader.peek().is_some() {
            return Err("\")\" without \"(\"".to_owned());
        }
        let built = SIZES.iter().find_map(|size| {
            let compiled = RegexBuilder::new(&reader.out)
                .dot_matches_new_line(true)
                .size_limit(size.compiled)
                .dfa_size_limit(size.automaton)
                .build();
            Some((compiled.ok()?, size.weight))
        });
        let (compiled, weight) = built.ok_or("the expression is too complex")?;
        Ok(Self { source: source.into(), any_case, compiled, weight })
    }

    /// Whether capitals are the same as small letters.
    pub fn any_case(&self) -> bool {
        self.any_case
    }

    /// The expression as SQL's `~` takes it.
    pub fn sql(&self) -> &str {
        &self.source
    }

    /// Bytes of memory that it takes at most, roughly.
    pub fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn compiled(&self) -> &Regex {
        &self.compiled
    }
}

impl PartialEq for Regular {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.any_case == other.any_case
    }
}

impl Eq for Regular {}

impl Hash for Regular {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.source, self.any_case).hash(state);
    }
}

impl fmt::Debug for Regular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regular({:?}, any case {})", self.source, self.any_case)
    }
}

struct Reader {
    rest: Vec<char>,
    at: usize,
    any_case: bool,
    /// What was understood, as our engine takes it.
    out: String,
}

type Outcome = Result<(), String>;

impl Reader {
    fn alternatives(&mut self, depth: usize) -> Outcome {
        loop {
            self.branch(depth)?;
            if !self.take('|') {
                return Ok(());
            }
            self.out.push('|');
        }
    }

    fn branch(&mut self, depth: usize) -> Outcome {
        let start = self.at;
        while !matches!(self.peek(), None | Some('|' | ')')) {
            self.atom(depth)?;
        }
        match self.at == start {
            true => Err("an expression or a part of one is empty".to_owned()),
            false => Ok(()),
        }
    }

    fn atom(&mut self, depth: usize) -> Outcome {
        match self.next().expect("the caller looked") {
            anchor @ ('^' | '$') => {
                self.out.push(anchor);
                return match self.begins_quantifier() {
                    true => Err(format!("{anchor:?} cannot be repeated")),
                    false => Ok(()),
                };
            }
            '.' => self.out.push('.'),
            '(' => self.group(depth + 1)?,
            '[' => self.set()?,
            '\\' => {
                let escaped = self.escaped()?;
                self.literal(escaped)?;
            }
            c @ ('*' | '+' | '?' | '{') => {
                return Err(format!("{c:?} has nothing to repeat here; for itself write \\{c}"));
            }
            // A closing bracket or brace alone stands for itself in both.
            other => self.literal(other)?,
        }
        self.quantifier()
    }

    fn group(&mut self, depth: usize) -> Outcome {
        if depth > MAX_GROUPS {
            return Err(format!("groups are nested more than {MAX_GROUPS} deep"));
        }
        if self.take('?') && !self.take(':') {
            return Err("of the groups that begin with \"(?\" only (?:…) is understood".to_owned());
        }
        self.out.push_str("(?:");
        self.alternatives(depth)?;
        if !self.take(')') {
            return Err("\"(\" is not closed".to_owned());
        }
        self.out.push(')');
        Ok(())
    }

    /// `[a-z_]`, after the bracket.
    fn set(&mut self) -> Outcome {
        let negated = self.take('^');
        self.out.push_str(if negated { "[^" } else { "[" });
        let mut first = true;
        loop {
            let from = match self.next().ok_or("\"[\" is not closed")? {
                ']' if !first => break,
                // At the start or at the end it stands for itself.
                '-' if first || self.peek() == Some(']') => '-',
                c @ ('[' | ']' | '-') => {
                    return Err(format!("{c:?} in brackets is written \\{c}"));
                }
                '\\' => self.escaped()?,
                other => other,
            };
            first = false;
            let ranged = self.peek() == Some('-')
                && self.rest.get(self.at + 1).is_some_and(|next| *next != ']');
            let to = match ranged {
                true => self.range_end()?,
                false => from,
            };
            self.range(from, to)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn range_end(&mut self) -> Result<char, String> {
        self.at += 1;
        match self.next().expect("the caller looked") {
            '[' | '-' => Err("a range in brackets ends with a letter or a digit".to_owned()),
            '\\' => self.escaped(),
            other => Ok(other),
        }
    }

    fn range(&mut self, from: char, to: char) -> Outcome {
        if from > to {
            return Err(format!("the range {from}-{to} is the wrong way round"));
        }
        if from != to && !to.is_ascii() {
            return Err("a range in brackets is of ASCII characters".to_owned());
        }
        self.span(from, to);
        if !self.any_case {
            return Ok(());
        }
        self.ascii_only(from)?;
        // The part of the range that has letters, in the other case.
        for (low, high) in [('a', 'z'), ('A', 'Z')] {
            let (low, high) = (from.max(low), to.min(high));
            if low <= high {
                self.span(flipped(low), flipped(high));
            }
        }
        Ok(())
    }

    fn span(&mut self, from: char, to: char) {
        for (index, c) in [from, to].into_iter().enumerate() {
            if index == 1 {
                self.out.push('-');
            }
            self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
        }
    }

    fn literal(&mut self, c: char) -> Outcome {
        self.ascii_only(c)?;
        if self.any_case && c.is_ascii_alphabetic() {
            self.out.extend(['[', c, flipped(c), ']']);
        } else {
            self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
        }
        Ok(())
    }

    /// What follows a backslash.
    fn escaped(&mut self) -> Result<char, String> {
        match self.next() {
            Some(c) if c.is_ascii_punctuation() => Ok(c),
            Some(c) => Err(format!(
                "\\{c} is not understood, since what it matches depends on the collation or on \
                 the engine; write a set such as [0-9]"
            )),
            None => Err("the expression ends with a backslash".to_owned()),
        }
    }

    fn begins_quantifier(&self) -> bool {
        matches!(self.peek(), Some('*' | '+' | '?' | '{'))
    }

    fn quantifier(&mut self) -> Outcome {
        match self.peek() {
            Some(c @ ('*' | '+' | '?')) => {
                self.at += 1;
                self.out.push(c);
            }
            Some('{') => self.count()?,
            _ => return Ok(()),
        }
        // Whether as much or as little as possible is taken makes no difference to a match.
        self.take('?');
        match self.begins_quantifier() {
            true => Err("a repetition cannot be repeated; use a group".to_owned()),
            false => Ok(()),
        }
    }

    /// `{2}`, `{2,}` or `{2,5}`.
    fn count(&mut self) -> Outcome {
        // A comma outside double quotes ended the value before the grammar of regular expressions
        // was asked, so the count may be whole in what was written.
        let wrong = || {
            "a count is {2}, {2,} or {2,5}, of at most 255; a value with a comma stands in double \
             quotes; for a brace write \\{"
        };
        self.at += 1;
        let low = self.number().ok_or_else(wrong)?;
        let mut written = low.to_string();
        if self.take(',') {
            written.push(',');
            if self.peek() != Some('}') {
                let high = self.number().filter(|high| *high >= low).ok_or_else(wrong)?;
                written.push_str(&high.to_string());
            }
        }
        if !self.take('}') {
            return Err(wrong().to_owned());
        }
        self.out.push('{');
        self.out.push_str(&written);
        self.out.push('}');
        Ok(())
    }

    fn number(&mut self) -> Option<u32> {
        let start = self.at;
        let mut number = 0;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            number = number * 10 + digit;
            self.at += 1;
            if number > MAX_COUNT {
                return None;
            }
        }
        (self.at > start).then_some(number)
    }

    fn ascii_only(&self, c: char) -> Outcome {
        match self.any_case && !c.is_ascii() {
            true => {
                Err("imatch is of ASCII characters: others have other capitals by collation"
                    .to_owned())
            }
            false => Ok(()),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += usize::from(next.is_some());
        next
    }

    fn take(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        self.at += usize::from(found);
        found
    }
}

/// The same letter of ASCII in the other case.
fn flipped(c: char) -> char {
    match c.is_ascii_lowercase() {
        true => c.to_ascii_uppercase(),
        false => c.to_ascii_lowercase(),
    }
}
