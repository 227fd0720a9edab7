//! `tidewire doctor`: checks the database and says what to do.

use anyhow::bail;
use tidewire_postgres::WalOptions;
use tidewire_postgres::doctor::{self, Outcome};

use crate::args::{Args, ReportFlags};
use crate::assemble::wal_options;
use crate::config::{Settings, TableSettings};

pub(super) fn run(args: &Args, flags: &ReportFlags) -> anyhow::Result<()> {
    let target = super::database(args)?;
    let settings = Settings::load(&args.written())?;
    let options = options(&settings.tables);
    let report = super::small_runtime()?.block_on(async {
        let mut report = doctor::examine(&target, &options).await;
        if let Some(function) = &settings.auth.function {
            report.checks.push(doctor::auth_function(&target, function).await);
        }
        report
    });
    let text = if flags.json { format!("{:#}\n", report.json()) } else { report.text() };
    super::print(&text)?;
    if report.outcome() == Outcome::Fail {
        bail!("this database does not work for Tidewire as it is");
    }
    Ok(())
}

/// How the log would be read; the outbox has neither slot nor publication.
pub(super) fn options(tables: &TableSettings) -> WalOptions {
    match tables.source.as_str() {
        "outbox" => WalOptions::default(),
        _ => wal_options(tables),
    }
}
