//! `tidewire sql`: what Tidewire has in a database, installed, printed, removed.

use tidewire_postgres::sql::{self, InstallOptions, Sink};

use crate::args::{Args, InstallFlags, SqlCommand};

pub(super) fn run(args: &Args, command: SqlCommand) -> anyhow::Result<()> {
    match command {
        SqlCommand::Print(flags) => super::print(&sql::print(&options(flags))),
        SqlCommand::Install(flags) => install(args, flags),
        SqlCommand::Uninstall => uninstall(args),
    }
}

fn install(args: &Args, flags: InstallFlags) -> anyhow::Result<()> {
    let (target, options) = (super::database(args)?, options(flags));
    let installed = super::small_runtime()?.block_on(async {
        sql::install(&target, &options).await?;
        sql::installation(&target).await
    })?;
    let definer = installed.and_then(|installed| installed.definer).unwrap_or_default();
    super::print(&format!(
        "version {} is installed in {target}, its tables belong to role {definer}; a table is followed \
         after\n  \
         SELECT enable_realtime('schema', 'table');\nor when the first client subscribes to it\n",
        sql::VERSION
    ))
}

fn uninstall(args: &Args) -> anyhow::Result<()> {
    let target = super::database(args)?;
    super::small_runtime()?.block_on(sql::uninstall(&target))?;
    super::print(&format!("nothing of Tidewire is left in {target}\n"))
}

fn options(flags: InstallFlags) -> InstallOptions {
    let InstallFlags { schema, replace, retention, wal } = flags;
    let sink = if wal { Sink::Wal } else { Sink::Outbox };
    InstallOptions { schema, sink, retention, replace }
}
