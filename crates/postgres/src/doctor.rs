//! Looks at a database as Tidewire would use it, and says what is right, what is not, and what to
//! do about it.
//!
//! [`examine`] never changes anything; its one NOTIFY goes to a channel of its own. [`tables`]
//! says of each table whether its changes can be followed, and why not.

mod notify;
mod outbox;
mod server;
mod tables;
mod wal;

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
pub use tables::{TableReport, tables};

use crate::auth_function::AuthFunction;
use crate::connect::{Pool, Target};
use crate::wal::WalOptions;

/// How long one question may take.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Something does not work, or soon will not; the rest does.
    Warn,
    /// Tidewire cannot work like this.
    Fail,
}

impl Outcome {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What, in one word or two: `wal level`.
    pub name: &'static str,
    /// How it is.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do, unless all is well.
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, found: found.into(), advice: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order in which things depend on one another.
    pub checks: Vec<Check>,
}

impl Report {
    /// The worst outcome.
    pub fn outcome(&self) -> Outcome {
        self.checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Ok)
    }

    /// For people: a line for each check, what to do below it, and a summary.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for Check { name, outcome, found, advice } in &self.checks {
            let _ = writeln!(out, "{:<4}  {name:<width$}  {found}", outcome.word());
            if let Some(advice) = advice {
                let _ = writeln!(out, "      {:<width$}  -> {advice}", "");
            }
        }
        let count = |outcome| self.checks.iter().filter(|check| check.outcome == outcome).count();
        let summary = match (count(Outcome::Fail), count(Outcome::Warn)) {
            (0, 0) => "all is well".to_owned(),
            (0, warnings) => format!("it works; things to look at: {warnings}"),
            (failures, _) => format!("it does not work; things to mend: {failures}"),
        };
        let _ = writeln!(out, "\n{summary}");
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let check = |check: &Check| {
            json!({
                "name": check.name, "outcome": check.outcome.word(),
                "found": check.found, "advice": check.advice,
            })
        };
        let checks: Vec<Value> = self.checks.iter().map(check).collect();
        json!({ "outcome": self.outcome().word(), "checks": checks })
    }
}

/// Looks at everything, and at the slot and the publication that are configured. Takes some
/// milliseconds, and 2 s where notifications do not arrive.
pub async fn examine(target: &Target, options: &WalOptions) -> Report {
    let mut checks = Vec::new();
    let pool = Pool::new(target, 2, STATEMENT_LIMIT, STATEMENT_LIMIT);
    match pool.get().await {
        Ok(connection) => {
            checks.push(server::connection(target).await);
            let asked = connection.run(async |client| {
                server::examine(client, &mut checks).await?;
                wal::examine(client, options, &mut checks).await?;
                outbox::examine(client, &mut checks).await?;
                tables::examine(client, options, &mut checks).await?;
                notify::queue(client, &mut checks).await
            });
            if let Err(said) = asked.await.unwrap_or(Ok(())) {
                let found = said.as_db_error().map_or(said.to_string(), |e| e.message().to_owned());
                checks.push(Check::fail("questions", found, "a question to the catalog failed"));
            }
            drop(connection);
            checks.push(notify::round_trip(target, &pool).await);
        }
        Err(error) => checks.push(server::unreachable(&error)),
    }
    Report { checks }
}

/// Looks at the function that decides who a client is, by the name that is configured.
pub async fn auth_function(target: &Target, name: &str) -> Check {
    const NAME: &str = "auth function";
    let found = match AuthFunction::new(target, name) {
        Ok(function) => function.describe().await,
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok((call, owner)) => Check::ok(NAME, format!("{call}, owned by {owner}")),
        Err(why) => Check::fail(NAME, why, "nobody who shows a token is let in until it is there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ends_with_what_to_make_of_it() {
        let mut report = Report { checks: vec![Check::ok("version", "15.18")] };
        assert_eq!(report.text(), "ok    version  15.18\n\nall is well\n");
        report.checks.push(Check::warn("wal level", "replica", "set it"));
        assert!(report.text().ends_with("things to look at: 1\n"));
        report.checks.push(Check::fail("standby", "it is", "connect to the primary"));
        assert_eq!(report.outcome(), Outcome::Fail);
        assert!(report.text().contains("\n                 -> connect to the primary\n"));
        assert_eq!(report.json()["checks"][2]["outcome"], "fail");
    }
}
