//! What each case may cost: a file of names and instructions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::callgrind::Counts;

/// How far a count may be from its budget, in percent, where the file does not say.
///
/// Counts of one program differ by less than one; another patch release of a library moves some
/// by two or three.
const TOLERANCE: f64 = 5.0;

const HEAD: &str = "\
# Instructions of one operation, at most; `make check-perf` compares, and
# `UPDATE_BUDGET=1 make check-perf` writes. A third column is the tolerance in percent, where it is
# not 5.
";

/// What each case may cost.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Budget(BTreeMap<String, Allowance>);

/// What one case may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Allowance {
    pub(crate) instructions: f64,
    tolerance: Option<f64>,
}

/// A case held against its budget.
pub(crate) struct Finding {
    pub(crate) name: String,
    pub(crate) counted: Option<f64>,
    pub(crate) allowed: Option<f64>,
    pub(crate) verdict: Verdict,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    /// So much cheaper that the budget would not notice if it were lost again.
    Cheaper,
    Over,
    /// A case without a budget.
    New,
    /// A budget without a case.
    Gone,
}

impl Verdict {
    pub(crate) fn is_fine(self) -> bool {
        matches!(self, Self::Kept | Self::Cheaper)
    }
}

impl Budget {
    /// The budget in a file; an empty one where there is no file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(line).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.to_text()).with_context(|| format!("writing {}", path.display()))
    }

    fn to_text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (name, allowance) in &self.0 {
            write!(text, "{name:<48} {:>10.1}", allowance.instructions).expect("a String");
            if let Some(tolerance) = allowance.tolerance {
                write!(text, " {tolerance:>4}").expect("a String");
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, allowance)| (&**name, allowance.instructions))
    }

    /// Makes counts the budget; where they are all there are, the rest goes.
    pub(crate) fn take_over(&mut self, counts: &Counts, all: bool) {
        if all {
            self.0.retain(|name, _| counts.contains_key(name));
        }
        for (name, &instructions) in counts {
            let tolerance = self.0.get(name).and_then(|allowance| allowance.tolerance);
            self.0.insert(name.clone(), Allowance { instructions, tolerance });
        }
    }

    /// Holds counts against the budget; where they are all there are, the rest is gone.
    pub(crate) fn compare(&self, counts: &Counts, all: bool) -> Vec<Finding> {
        let found = counts.iter().map(|(name, &counted)| {
            let allowance = self.0.get(name).copied();
            Finding {
                name: name.clone(),
                counted: Some(counted),
                allowed: allowance.map(|allowance| allowance.instructions),
                verdict: allowance.map_or(Verdict::New, |allowance| allowance.judge(counted)),
            }
        });
        let gone = self.0.iter().filter(|(name, _)| all && !counts.contains_key(*name));
        let gone = gone.map(|(name, allowance)| Finding {
            name: name.clone(),
            counted: None,
            allowed: Some(allowance.instructions),
            verdict: Verdict::Gone,
        });
        found.chain(gone).collect()
    }
}

impl Allowance {
    fn judge(self, counted: f64) -> Verdict {
        let part = self.tolerance.unwrap_or(TOLERANCE) / 100.0;
        if counted > self.instructions * (1.0 + part) {
            Verdict::Over
        } else if counted < self.instructions * (1.0 - part) {
            Verdict::Cheaper
        } else {
            Verdict::Kept
        }
    }
}

fn line(line: &str) -> Result<(String, Allowance)> {
    let mut words = line.split_whitespace();
    let name = words.next().context("a line without a name")?;
    let number = |word: &str| word.parse::<f64>().with_context(|| format!("in {line:?}"));
    let instructions = number(words.next().with_context(|| format!("no number in {line:?}"))?)?;
    let tolerance = words.next().map(number).transpose()?;
    Ok((name.to_owned(), Allowance { instructions, tolerance }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# why\n\na/b 100.0\na/c 200.0 10\n";

    fn verdicts(counts: &[(&str, f64)]) -> Vec<Verdict> {
        let budget = Budget::parse(FILE).expect("a budget");
        let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        budget.compare(&counts, true).into_iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_count_is_kept_within_its_tolerance() {
        assert_eq!(verdicts(&[("a/b", 104.9), ("a/c", 181.0)]), [Verdict::Kept, Verdict::Kept]);
        assert_eq!(verdicts(&[("a/b", 105.1), ("a/c", 179.0)]), [Verdict::Over, Verdict::Cheaper]);
    }

    #[test]
    fn cases_and_budgets_must_be_of_each_other() {
        assert_eq!(
            verdicts(&[("a/a", 1.0), ("a/b", 100.0)]),
            [Verdict::New, Verdict::Kept, Verdict::Gone]
        );
    }

    #[test]
    fn what_is_written_reads_as_the_same_and_keeps_tolerances() {
        let mut budget = Budget::parse(FILE).expect("a budget");
        budget.take_over(&Counts::from([("a/c".to_owned(), 7.5)]), true);
        let text = budget.to_text();
        assert_eq!(Budget::parse(&text).expect("a budget"), budget);
        assert!(text.ends_with("7.5   10\n"), "{text}");
        assert!(!text.contains("a/b"));
    }
}
