//! `tidewire dev`: everything at once, to try: a private PostgreSQL, the server, live traffic.

mod demo;

use anyhow::Context as _;
use tidewire_postgres::private_cluster::{Options, PrivateCluster, Statements};
use tidewire_postgres::sql;

use crate::args::{Args, DevFlags};
use crate::config::{Override, Settings};
use crate::server::{Never, Server};
use crate::{open_files, signals, telemetry};

pub(super) fn run(args: &Args, flags: &DevFlags) -> anyhow::Result<()> {
    let folder = flags.dir.join("postgres");
    let mut cluster = PrivateCluster::start(&folder, Options::default().durable())
        .context("starting a private PostgreSQL")?;
    let settings = settings(args, &cluster)?;
    telemetry::start(&settings.log)?;
    let open_files = open_files::raise().context("raising the limit on open files")?;
    super::serve::started::log(&settings, open_files);
    let served = super::serve::runtime(&settings)?.block_on(serve(settings, &cluster, flags));
    cluster.stop();
    served
}

/// The settings as written, with the private database in place of any other.
fn settings(args: &Args, cluster: &PrivateCluster) -> anyhow::Result<Settings> {
    let mut written = args.written();
    written.flags.push(Override { path: "postgres.url", flag: "dev", text: cluster.url() });
    Ok(Settings::load(&written)?)
}

async fn serve(
    settings: Settings,
    cluster: &PrivateCluster,
    flags: &DevFlags,
) -> anyhow::Result<()> {
    let stop = signals::stop().context("listening to signals")?;
    install(cluster).await.context("installing the SQL functions")?;
    let statements = Statements::of(cluster)?;
    if !flags.no_demo {
        demo::prepare(&statements).await.context("making the table of the demo")?;
    }
    let server = Server::start(settings).await?;
    let address = server.addresses().first().context("no address to listen on")?;
    let demo = (!flags.no_demo).then(|| demo::start(statements, stop.clone()));
    super::print(&things_to_try(&address.to_string(), cluster, demo.is_some()))?;
    server.run(stop, Never).await;
    if let Some(demo) = demo {
        demo.await.context("the demo writer failed")?;
    }
    Ok(())
}

/// Makes `enable_realtime` and `tidewire.publish` available, unless this version of them is there:
/// who has installed them with settings of their own keeps those.
async fn install(cluster: &PrivateCluster) -> anyhow::Result<()> {
    let target = cluster.url().parse()?;
    let installed = sql::installation(&target).await?;
    if installed.is_none_or(|installed| installed.version < sql::VERSION) {
        sql::install(&target, &sql::InstallOptions::default()).await?;
    }
    Ok(())
}

fn things_to_try(address: &str, cluster: &PrivateCluster, demo: bool) -> String {
    let program = this_program();
    let database = cluster.socket_url().unwrap_or_else(|| cluster.url());
    let follow = match demo {
        true => DEMO,
        false => "",
    }
    .replace("{address}", address)
    .replace("{program}", &program);
    format!(
        "\n\
         Tidewire serves http://{address}/ with a private PostgreSQL. Things to try:\n\
         \n\
         {follow}\
         - Send something from SQL, and receive it:\n\
         \x20   psql '{database}' -c \"NOTIFY orders, 'hi'\"\n\
         \x20   {program} listen orders --server http://{address}\n\
         - Follow a table of your own, after CREATE TABLE:\n\
         \x20   {program} listen --table public.mine --server http://{address}\n\
         - Publish over HTTP, on a topic that needs no database:\n\
         \x20   curl http://{address}/v1/publish -d '{{\"topic\":\"room:1\",\"data\":{{\"text\":\"hi\"}}}}'\n\
         \n\
         Stop with Ctrl-C.\n\n"
    )
}

/// What there is to see while the demo writes.
const DEMO: &str = "\
An order comes in every second, as a row of the table public.orders and on the channel \"orders\".

- In a browser: http://{address}/?table=public.orders
- The rows of the table, and then every change to them, as Server-Sent Events:
    curl -N 'http://{address}/v1/sse?table=public.orders&snapshot=true'
- What is announced with NOTIFY:
    curl -N 'http://{address}/v1/sse?notify=orders'
- In a browser's console:
    new EventSource('http://{address}/v1/sse?table=public.orders').onmessage = e => console.log(e.data)
- By long-poll, with the cursor of each answer for the next:
    curl 'http://{address}/v1/poll?table=public.orders&since=earliest'
- From the command line:
    {program} listen --table public.orders --server http://{address}
";

/// How to call this program from a shell: it need not be on the PATH.
fn this_program() -> String {
    let path =
        std::env::current_exe().ok().and_then(|path| path.into_os_string().into_string().ok());
    path.map_or_else(|| "tidewire".to_owned(), |path| in_shell(&path))
}

/// A word as a shell takes it, in quotes where it must be.
fn in_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_is_quoted_for_the_shell() {
        assert_eq!(in_shell("/a-b/target/debug/tidewire"), "/a-b/target/debug/tidewire");
        assert_eq!(in_shell("/my files/it's"), r"'/my files/it'\''s'");
    }
}
