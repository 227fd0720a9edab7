//! `tidewire tables`: which tables can be followed, by what, and why others cannot.

use tidewire_postgres::doctor::{self, TableReport};

use crate::args::{Args, ReportFlags};
use crate::config::Settings;

pub(super) fn run(args: &Args, flags: &ReportFlags) -> anyhow::Result<()> {
    let target = super::database(args)?;
    let options = super::doctor::options(&Settings::load(&args.written())?.tables);
    let tables = super::small_runtime()?.block_on(doctor::tables(&target, &options))?;
    if flags.json {
        let tables: Vec<_> = tables.iter().map(TableReport::json).collect();
        return super::print(&format!("{:#}\n", serde_json::Value::from(tables)));
    }
    if tables.is_empty() {
        return super::print(&format!("there are no tables in {target}\n"));
    }
    super::print(&tables.iter().map(TableReport::text).collect::<String>())
}
