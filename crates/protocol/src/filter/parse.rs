//! The grammar of filters.
//!
//! `column=op.value` joined by commas; inside `or=(…)` and `and=(…)` a dot stands for the `=`. A
//! value with a comma, a quote or a parenthesis is written in double quotes, where `\"` and `\\`
//! stand for `"` and `\`.

use std::sync::Arc;

use super::{
    Comparison, Condition, Filter, FilterError, Is, Like, MAX_BYTES, MAX_CONDITIONS, MAX_DEPTH,
    MAX_LIST, Node, Regular, Test,
};

/// The operators, for messages.
const OPERATORS: [&str; 13] = [
    "eq",
    "neq",
    "lt",
    "lte",
    "gt",
    "gte",
    "in",
    "like",
    "ilike",
    "is",
    "match",
    "imatch",
    "isdistinct",
];

pub(super) fn filter(text: &str) -> Result<Filter, FilterError> {
    if text.len() > MAX_BYTES {
        let message = format!("it has {} bytes, at most {MAX_BYTES} are allowed", text.len());
        return Err(FilterError { at: 1, message });
    }
    let mut parser = Parser { text, at: 0, conditions: 0 };
    let list = parser.list(Place::Top, 0)?;
    Ok(Filter { root: Node::All(list) })
}

/// Where a condition stands, which decides how it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `column=op.value`
    Top,
    /// `column.op.value`, inside parentheses
    Group,
}

impl Place {
    /// What follows a column's name.
    fn separator(self) -> char {
        match self {
            Self::Top => '=',
            Self::Group => '.',
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
    conditions: usize,
}

impl<'a> Parser<'a> {
    /// Conditions separated by commas, up to the end or to a closing parenthesis.
    fn list(&mut self, place: Place, depth: usize) -> Result<Vec<Node>, FilterError> {
        let mut list = Vec::new();
        loop {
            self.spaces();
            list.push(self.node(place, depth)?);
            if !self.take(",") {
                break;
            }
        }
        match place {
            Place::Top if !self.rest().is_empty() => {
                Err(self.error("a comma or the end is expected here"))
            }
            _ => Ok(list),
        }
    }

    fn node(&mut self, place: Place, depth: usize) -> Result<Node, FilterError> {
        for (words, negated, any) in [
            ("or", false, true),
            ("and", false, false),
            ("not.or", true, true),
            ("not.and", true, false),
        ] {
            if self.begins_group(words) {
                let node = self.group(any, depth + 1)?;
                return Ok(if negated { Node::Not(Box::new(node)) } else { node });
            }
        }
        self.condition(place)
    }

    /// Whether a group follows; reads its word and its parenthesis.
    fn begins_group(&mut self, words: &str) -> bool {
        let Some(rest) = self.rest().strip_prefix(words) else { return false };
        let rest = rest.strip_prefix('=').unwrap_or(rest);
        let Some(rest) = rest.strip_prefix('(') else { return false };
        self.at = self.text.len() - rest.len();
        true
    }

    fn group(&mut self, any: bool, depth: usize) -> Result<Node, FilterError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("groups are nested more than {MAX_DEPTH} deep")));
        }
        let list = self.list(Place::Group, depth)?;
        if !self.take(")") {
            return Err(self.error("a comma or \")\" is expected here"));
        }
        Ok(if any { Node::Any(list) } else { Node::All(list) })
    }

    fn condition(&mut self, place: Place) -> Result<Node, FilterError> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            let message = format!("more than {MAX_CONDITIONS} conditions");
            return Err(self.error(message));
        }
        let column: Arc<str> = self.column(place)?.into();
        let negated = self.take("not.");
        let test = self.test(place)?;
        let node = Node::Condition(Condition { column, test });
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn column(&mut self, place: Place) -> Result<String, FilterError> {
        let start = self.at;
        let name = if self.rest().starts_with('"') {
            self.quoted()?
        } else {
            let odd = |c: char| matches!(c, '"' | '(' | ')' | ',' | '.' | ':' | '=' | '>' | '\'');
            let end = self.rest().find(odd).unwrap_or(self.rest().len());
            self.advance(end).to_owned()
        };
        if name.is_empty() {
            return Err(error_at(self.text, start, "the name of a column is expected here"));
        }
        if name.ends_with('-') && self.rest().starts_with('>') {
            let message = "parts of JSON values (-> and ->>) cannot be filtered on";
            return Err(error_at(self.text, start, message));
        }
        let separator = place.separator();
        if !self.take(separator.encode_utf8(&mut [0; 4])) {
            let form = match place {
                Place::Top => "column=op.value",
                Place::Group => "column.op.value",
            };
            let message = format!(
                "{separator:?} is expected after {name:?}: a condition is {form}, and a value with \
                 a comma in it is written in double quotes"
            );
            return Err(self.error(message));
        }
        Ok(name)
    }

    fn test(&mut self, place: Place) -> Result<Test, FilterError> {
        let start = self.at;
        let end = self.rest().find(['.', ',', ')', '(']).unwrap_or(self.rest().len());
        let word = self.advance(end);
        if !OPERATORS.contains(&word) {
            return Err(error_at(self.text, start, unknown_operator(word)));
        }
        if !self.take(".") {
            return Err(self.error(format!("{word:?} is followed by a dot and a value")));
        }
        if word == "in" {
            return Ok(Test::OneOf(self.values()?));
        }
        let start = self.at;
        let value = self.value(place)?;
        let compare = |comparison| Ok(Test::Compare(comparison, value.as_str().into()));
        match word {
            "eq" => compare(Comparison::Equal),
            "neq" => compare(Comparison::NotEqual),
            "lt" => compare(Comparison::Less),
            "lte" => compare(Comparison::AtMost),
            "gt" => compare(Comparison::Greater),
            "gte" => compare(Comparison::AtLeast),
            "isdistinct" => Ok(Test::Distinct(value.as_str().into())),
            "is" => is(&value).map(Test::Is),
            "like" => Like::new(&value, false).map(Test::Like),
            "ilike" => Like::new(&value, true).map(Test::Like),
            "match" => Regular::new(&value, false).map(Test::Match),
            "imatch" => Regular::new(&value, true).map(Test::Match),
            other => unreachable!("{other} is among the operators and has an arm"),
        }
        .map_err(|message| error_at(self.text, start, message))
    }

    /// `(a,"b,c")`
    fn values(&mut self) -> Result<Vec<Arc<str>>, FilterError> {
        if !self.take("(") {
            return Err(self.error("\"in\" is followed by values in parentheses: in.(a,b)"));
        }
        if self.rest().starts_with(')') {
            return Err(self.error("the list is empty, so no row would be admitted"));
        }
        let mut values = Vec::new();
        loop {
            if values.len() == MAX_LIST {
                return Err(self.error(format!("more than {MAX_LIST} values in a list")));
            }
            values.push(self.value(Place::Group)?.into());
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(self.error("a comma or \")\" is expected here"));
            }
        }
    }

    /// A value in quotes, or all up to what ends it.
    fn value(&mut self, place: Place) -> Result<String, FilterError> {
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let ends = |c: char| match place {
            Place::Top => c == ',',
            Place::Group => matches!(c, ',' | ')' | '('),
        };
        let end = self.rest().find(ends).unwrap_or(self.rest().len());
        let value = self.advance(end).to_owned();
        if place == Place::Group && self.rest().starts_with('(') {
            return Err(self.error("a value with parentheses is written in double quotes here"));
        }
        self.no_nul(value)
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        let start = self.at;
        let mut value = String::new();
        let mut characters = self.rest()[1..].chars();
        loop {
            match characters.next() {
                Some('"') => break,
                Some('\\') => value.extend(characters.next()),
                Some(other) => value.push(other),
                None => return Err(error_at(self.text, start, "this quote is not closed")),
            }
        }
        self.at = self.text.len() - characters.as_str().len();
        self.no_nul(value)
    }

    fn no_nul(&self, value: String) -> Result<String, FilterError> {
        match value.contains('\0') {
            true => Err(self.error("PostgreSQL has no NUL characters")),
            false => Ok(value),
        }
    }

    fn spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches(' ').len();
    }

    fn take(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let start = self.at;
        self.at += bytes;
        &self.text[start..self.at]
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, message: impl Into<String>) -> FilterError {
        error_at(self.text, self.at, message)
    }
}

fn is(word: &str) -> Result<Is, String> {
    match word.to_ascii_lowercase().as_str() {
        "null" => Ok(Is::Null),
        "true" => Ok(Is::True),
        "false" => Ok(Is::False),
        "unknown" => Ok(Is::Unknown),
        _ => Err("\"is\" is followed by null, true, false or unknown".to_owned()),
    }
}

fn unknown_operator(word: &str) -> String {
    let near = OPERATORS.into_iter().min_by_key(|known| strsim::damerau_levenshtein(known, word));
    let shown: String = word.chars().take(32).collect();
    match near.filter(|known| strsim::damerau_levenshtein(known, word) <= 1) {
        Some(known) => format!("there is no operator {shown:?}; did you mean {known:?}?"),
        None => format!("there is no operator {shown:?}; there are {}", OPERATORS.join(", ")),
    }
}

/// `at` in bytes, told in characters.
fn error_at(text: &str, at: usize, message: impl Into<String>) -> FilterError {
    FilterError { at: text[..at].chars().count() + 1, message: message.into() }
}
