//! `tidewire doctor`: checks the database and says what to do.

use anyhow::bail;
use tidewire_postgres::doctor::{self, Outcome};

use crate::args::{Args, ReportFlags};

pub(super) fn run(args: &Args, flags: &ReportFlags) -> anyhow::Result<()> {
    let target = super::database(args)?;
    let report = super::small_runtime()?.block_on(doctor::examine(&target));
    let text = if flags.json { format!("{:#}\n", report.json()) } else { report.text() };
    super::print(&text)?;
    if report.outcome() == Outcome::Fail {
        bail!("this database does not work for Tidewire as it is");
    }
    Ok(())
}
