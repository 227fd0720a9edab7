//! What is told of counts: a table for the terminal and one for the documentation.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::budget::{Budget, Finding, Verdict};

/// Between these lines of the document stands the table.
const BEGIN: &str = "<!-- counts -->\n";
const END: &str = "<!-- /counts -->";

/// All findings, and after them what is to be done.
pub(crate) fn of(findings: &[Finding]) -> String {
    let mut text = format!("{:<48} {:>10} {:>10} {:>8}\n", "", "counted", "budget", "");
    for finding in findings {
        let (counted, allowed) = (number(finding.counted), number(finding.allowed));
        let (change, word) = (change(finding), word(finding.verdict));
        let line = format!("{:<48} {counted:>10} {allowed:>10} {change:>8}  {word}", finding.name);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str(&summary(findings));
    text
}

fn summary(findings: &[Finding]) -> String {
    let count = |wanted: Verdict| findings.iter().filter(|it| it.verdict == wanted).count();
    let mut text = format!("\n{} cases, instructions of one operation\n", findings.len());
    for (verdict, advice) in [
        (
            Verdict::Over,
            "over budget: make it cheaper, or say why it is worth it and UPDATE_BUDGET=1",
        ),
        (Verdict::New, "without a budget: UPDATE_BUDGET=1 gives it one"),
        (Verdict::Gone, "in the budget and not there any more: UPDATE_BUDGET=1 takes it out"),
        (Verdict::Cheaper, "much cheaper than the budget: UPDATE_BUDGET=1, so that it stays so"),
    ] {
        let count = count(verdict);
        if count > 0 {
            writeln!(text, "{count} {advice}").expect("a String");
        }
    }
    text
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Kept => "",
        Verdict::Cheaper => "cheaper",
        Verdict::Over => "OVER",
        Verdict::New => "NEW",
        Verdict::Gone => "GONE",
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

fn change(finding: &Finding) -> String {
    match (finding.counted, finding.allowed) {
        (Some(counted), Some(allowed)) => {
            format!("{:+.1} %", (counted - allowed) / allowed * 100.0)
        }
        _ => String::new(),
    }
}

/// Puts the table of a budget into a document.
pub(crate) fn into_document(budget: &Budget, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let missing = || format!("{} has no {}", path.display(), BEGIN.trim());
    let begin = text.find(BEGIN).with_context(missing)? + BEGIN.len();
    let end = begin + text[begin..].find(END).with_context(missing)?;
    let text = format!("{}{}{}", &text[..begin], table(budget), &text[end..]);
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn table(budget: &Budget) -> String {
    let mut text = "\n| case | instructions |\n|---|---:|\n".to_owned();
    for (name, instructions) in budget.entries() {
        writeln!(text, "| `{name}` | {} |", rounded(instructions)).expect("a String");
    }
    text.push('\n');
    text
}

/// Fractions matter only where there is little.
fn rounded(instructions: f64) -> String {
    match instructions < 100.0 {
        true => format!("{instructions:.1}"),
        false => format!("{instructions:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_over_is_told_with_how_far() {
        let finding = Finding {
            name: "encode/native".to_owned(),
            counted: Some(220.0),
            allowed: Some(200.0),
            verdict: Verdict::Over,
        };
        let text = of(&[finding]);
        assert!(text.contains("220.0      200.0  +10.0 %  OVER"), "{text}");
        assert!(text.contains("1 over budget"), "{text}");
    }
}
