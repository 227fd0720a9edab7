//! The servers that can be measured: how each is started, and how it is spoken to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::lane::{Door, Login, Way};
use crate::process::Watched;
use crate::run;
use crate::scenario::{Needs, Scenario};
use crate::server::{Program, Server, free_address};
use crate::template::Template;

/// A server that is started to be measured.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// This project's.
    Tidewire,
    /// nginx with the module Nchan, one worker.
    Nchan,
    /// Node with the package `ws`.
    Ws,
    /// Node with Socket.IO.
    SocketIo,
    /// nats-server with its WebSocket listener.
    Nats,
}

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The program `tidewire`.
    pub(crate) tidewire: PathBuf,
    /// The folder of the peers' scripts, with what npm installed beside them.
    pub(crate) peers: PathBuf,
    /// For logs, configurations and databases; emptied by nobody but us.
    pub(crate) scratch: PathBuf,
}

/// What Tidewire is told: nobody is refused for being one of many, and it ends at once.
const TIDEWIRE: &[(&str, &str)] = &[
    ("TIDEWIRE_LIMITS_CONNECTIONS", "1000000"),
    ("TIDEWIRE_LIMITS_MESSAGES_PER_SECOND", "1000000000"),
    ("TIDEWIRE_LIMITS_BURST", "1000000000"),
    ("TIDEWIRE_SHUTDOWN_SPREAD", "0s"),
    ("TIDEWIRE_SHUTDOWN_GRACE", "1s"),
    ("TIDEWIRE_LOG_LEVEL", "warn"),
];

/// Signs the tokens of [`Needs::Tokens`]; it protects nothing.
const SECRET: (&str, &str) =
    ("TIDEWIRE_AUTH_JWT_SECRET", "only to measure what it costs to check a signature");

impl System {
    /// How it is called in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidewire => "tidewire",
            Self::Nchan => "nchan",
            Self::Ws => "ws",
            Self::SocketIo => "socket.io",
            Self::Nats => "nats",
        }
    }

    /// The scenario as this server can do it; `None` when it cannot.
    pub(crate) fn adapt(self, scenario: &Scenario) -> Option<Scenario> {
        let mut scenario = scenario.clone();
        if self == Self::Tidewire {
            return Some(scenario);
        }
        let streams = scenario.templates == ["native-sse"];
        scenario.templates = match self {
            Self::Nchan if streams => &["nchan-sse"],
            _ if streams || !scenario.for_peers => return None,
            Self::Tidewire | Self::Nchan => &["nchan"],
            Self::Ws => &["ws"],
            Self::SocketIo => &["socket.io"],
            Self::Nats => &["nats"],
        };
        if self == Self::Nats {
            scenario.way = Way::Nats;
        }
        Some(scenario)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub(crate) fn start(self, scenario: &Scenario, places: &Places) -> anyhow::Result<Server> {
        fs::create_dir_all(&places.scratch).context("making a folder for logs")?;
        match self {
            Self::Tidewire => match scenario.needs {
                Needs::Nothing | Needs::Tokens => tidewire(scenario, places),
                Needs::Postgres | Needs::Log | Needs::Outbox => with_postgres(scenario, places),
            },
            Self::Nchan => nchan(places),
            Self::Ws => node(self.name(), "ws.mjs", places),
            Self::SocketIo => node(self.name(), "socket.io.mjs", places),
            Self::Nats => nats(places),
        }
    }
}

/// What a scenario's clients say, a token included where one is needed.
///
/// # Errors
/// When a template does not exist or no token can be made.
pub(crate) fn templates(
    scenario: &Scenario,
    own: Option<&str>,
    places: &Places,
) -> anyhow::Result<Vec<Template>> {
    let mut templates = run::templates(scenario, own)?;
    if scenario.needs == Needs::Tokens {
        let header = format!("authorization: Bearer {}", token(places)?);
        templates.iter_mut().for_each(|one| one.subscribe.headers.push(header.clone()));
    }
    Ok(templates)
}

fn token(places: &Places) -> anyhow::Result<String> {
    let mut program = Program::new(&places.tidewire)?;
    program.command.args(["token", "--subject", "bench", "--subscribe", "*"]);
    program.command.env(SECRET.0, SECRET.1);
    let output = program.command.output().context("running tidewire token")?;
    let text = String::from_utf8(output.stdout).context("reading the token")?;
    let token = text.split_whitespace().find(|word| word.starts_with("ey"));
    Ok(token.context("tidewire token printed no token")?.to_owned())
}

fn tidewire(scenario: &Scenario, places: &Places) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut program = Program::new(&places.tidewire)?;
    program.command.args(["serve", "--listen", &address.to_string()]);
    program.command.envs(TIDEWIRE.iter().copied());
    if scenario.needs == Needs::Tokens {
        program.command.env(SECRET.0, SECRET.1);
    }
    program.start("tidewire", address, &places.scratch)
}

/// Tidewire with a PostgreSQL of its own, whose processes are not charged to it.
fn with_postgres(scenario: &Scenario, places: &Places) -> anyhow::Result<Server> {
    let (mut server, database) = database(scenario, places)?;
    if scenario.way == Way::Insert {
        let sql = Template::named(scenario.templates[0])?.publish.sql;
        let setup = sql.map(|sql| sql.insert_setup).unwrap_or_default();
        let setup: Vec<_> = setup.iter().map(|text| text.replace("{topic}", "bench0")).collect();
        database.execute(&setup)?;
    }
    if matches!(scenario.way, Way::Notify | Way::Insert) {
        server.target.publish = Door::Unix(database.door);
        server.target.login = database.login;
    }
    server.watched = Some(Watched::alone(server.pid()));
    Ok(server)
}

/// A PostgreSQL, as one reaches it.
pub(crate) struct Database {
    pub(crate) url: String,
    door: PathBuf,
    login: Login,
}

impl Database {
    /// Carries out statements; what the last row told first.
    ///
    /// # Errors
    /// When one is refused.
    pub(crate) fn execute(&self, statements: &[String]) -> anyhow::Result<Option<String>> {
        crate::lane::execute(&self.door, &self.login, statements)
    }
}

/// A PostgreSQL that lives as long as the server does which is given with it.
///
/// # Errors
/// When it is not installed or does not start.
pub(crate) fn database(scenario: &Scenario, places: &Places) -> anyhow::Result<(Server, Database)> {
    let address = free_address()?;
    let dir = places.scratch.join("cluster");
    let mut program = Program::new(&places.tidewire)?;
    program.command.args(["dev", "--no-demo", "--listen", &address.to_string(), "--dir"]);
    program.command.arg(&dir).envs(TIDEWIRE.iter().copied());
    let source = if scenario.needs == Needs::Outbox { "outbox" } else { "wal" };
    program.command.env("TIDEWIRE_SOURCE", source);
    let mut server = program.start("tidewire", address, &places.scratch)?;
    server.remove_after(dir);
    let said = server.await_said("psql '")?;
    let url = said.split('\'').next().unwrap_or_default().to_owned();
    let (door, login) = postgres(&url).context("reading where PostgreSQL listens")?;
    Ok((server, Database { url, door, login }))
}

/// Tidewire without a database of its own, reading a slot and a publication that are there.
///
/// # Errors
/// When it does not start.
pub(crate) fn reader(url: &str, slot: &str, places: &Places) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut program = Program::new(&places.tidewire)?;
    program.command.args(["serve", "--listen", &address.to_string()]);
    program.command.envs(TIDEWIRE.iter().copied());
    let settings = ["POSTGRES_URL", "SOURCE", "WAL_SLOT", "WAL_PUBLICATION"];
    for (name, value) in settings.into_iter().zip([url, "wal", slot, slot]) {
        program.command.env(format!("TIDEWIRE_{name}"), value);
    }
    program.start("reader", address, &places.scratch)
}

/// Socket and login of `postgresql://user@%2Ffolder:port/database`.
fn postgres(url: &str) -> Option<(PathBuf, Login)> {
    let (user, rest) = url.strip_prefix("postgresql://")?.split_once('@')?;
    let (host, rest) = rest.split_once(':')?;
    let (port, database) = rest.split_once('/')?;
    let folder = host.replace("%2F", "/").replace("%20", " ").replace("%25", "%");
    let login = Login { user: user.to_owned(), database: database.to_owned() };
    Some((Path::new(&folder).join(format!(".s.PGSQL.{port}")), login))
}

/// One worker, as a fair match for one thread; everything that writes to disk is off.
fn nchan(places: &Places) -> anyhow::Result<Server> {
    let address = free_address()?;
    let folder = places.scratch.join("nginx");
    fs::create_dir_all(&folder)?;
    let here = folder.display();
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;\n\
         daemon off; worker_processes 1; pid {here}/nginx.pid; error_log {here}/error.log;\n\
         events {{ worker_connections 19900; }}\n\
         http {{\n\
           access_log off; keepalive_requests 1000000000;\n\
           client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
           fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi;\n\
           scgi_temp_path {here}/scgi;\n\
           server {{\n\
             listen {address} backlog=16384;\n\
             location ~ ^/pub/(\\w+)$ {{\n\
               nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 10;\n\
             }}\n\
             location ~ ^/sub/(\\w+)$ {{\n\
               nchan_subscriber; nchan_channel_id $1; nchan_subscriber_first_message newest;\n\
             }}\n\
           }}\n\
         }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut program = Program::new(Path::new("nginx"))?;
    program.command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
    let mut server = program.start("nchan", address, &places.scratch)?;
    // The master listens before its worker is there.
    server.await_processes(2)?;
    Ok(server)
}

fn node(name: &str, script: &str, places: &Places) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut program = Program::new(Path::new("node"))?;
    program.command.arg(script).arg(address.port().to_string()).current_dir(&places.peers);
    program.start(name, address, &places.scratch)
}

fn nats(places: &Places) -> anyhow::Result<Server> {
    let (websocket, plain) = (free_address()?, free_address()?);
    let text = format!(
        "listen: \"{plain}\"\nmax_connections: 100000\n\
         websocket {{ listen: \"{websocket}\", no_tls: true }}\n"
    );
    let file = places.scratch.join("nats.conf");
    fs::write(&file, text)?;
    let mut program = Program::new(Path::new("nats-server"))?;
    program.command.arg("-c").arg(file);
    let mut server = program.start("nats", websocket, &places.scratch)?;
    server.target.publish = Door::Tcp(plain);
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn a_database_in_the_file_system_is_found() {
        let (socket, login) = postgres("postgresql://me@%2Ftmp%2Fa%20b:5433/postgres").unwrap();
        assert_eq!(socket, Path::new("/tmp/a b/.s.PGSQL.5433"));
        assert_eq!((login.user.as_str(), login.database.as_str()), ("me", "postgres"));
        assert!(postgres("postgresql://").is_none());
    }

    #[test]
    fn peers_do_what_they_can_with_templates_that_publish_their_way() {
        let systems = [System::Tidewire, System::Nchan, System::Ws, System::SocketIo, System::Nats];
        for system in systems {
            let adapted: Vec<_> =
                scenario::ALL.iter().filter_map(|one| system.adapt(one)).collect();
            assert!(adapted.len() >= 8, "{system:?}");
            for scenario in adapted {
                let template = Template::named(scenario.templates[0]).unwrap();
                assert_eq!(template.publish.nats.is_some(), scenario.way == Way::Nats);
            }
        }
    }
}
