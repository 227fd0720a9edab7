//! The command line.
//!
//! `serve` is the command when none is named, so its flags are taken without the word as well.
//! Flags that set a key of the configuration become [`Override`]s; the other commands have flags
//! of their own. Command lines written for Alle mean here what they mean there.

mod help;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{Override, Written, parse_duration};

/// What happens in PostgreSQL, and in your application, to any number of clients.
#[derive(Clone, Debug, Parser)]
#[command(name = "tidewire", version, max_term_width = 100)]
pub struct Args {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalFlags,
    #[command(flatten)]
    serve: ServeFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GlobalFlags {
    /// PostgreSQL connection string [key postgres.url]
    #[arg(short, long, global = true, value_name = "URL")]
    pub postgres_url: Option<String>,
    /// What to log: info, debug, or a filter such as tidewire=debug,info [key log.level]
    #[arg(short, long, global = true, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// Configuration file, TOML or YAML [env: TIDEWIRE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// SQL function that is asked about tokens [key auth.function]
    #[arg(long, global = true, value_name = "NAME")]
    pub auth_function: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve clients (the command when none is named)
    Serve(ServeFlags),
    /// Try everything: a private PostgreSQL, the server, and live traffic
    Dev(DevFlags),
    /// Print events of NOTIFY channels, tables or topics, one line for each
    Listen(ListenFlags),
    /// Say something on a NOTIFY channel
    Publish(PublishFlags),
    /// Make a token for trying, signed with auth.jwt.secret
    Token(TokenFlags),
    /// API keys for programs that publish
    Key {
        /// What to do with keys.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Install or remove what row changes and tidewire.publish need in the database
    Sql {
        /// What to do.
        #[command(subcommand)]
        command: SqlCommand,
    },
    /// List tables: which can be followed, by what, and why others cannot
    Tables(ReportFlags),
    /// Check the database and say what to do; ends with 1 when something does not work
    Doctor(ReportFlags),
    /// Print the effective configuration, secrets hidden
    Config(ConfigFlags),
}

/// Flags of `serve`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ServeFlags {
    /// Address to listen on, several separated by commas [key listen]
    #[arg(short = 'w', long, visible_alias = "ws-bind-addr", value_name = "ADDR")]
    pub listen: Option<String>,
    /// Further address to listen on; it serves everything, too [key listen_also]
    #[arg(long, value_name = "ADDR")]
    pub sse_bind_addr: Option<String>,
    /// Listen beyond this machine without authentication [key insecure]
    #[arg(long)]
    pub insecure: bool,
    /// NOTIFY channels to listen to from the start [key postgres.listen_channels]
    #[arg(short, long, value_name = "A,B")]
    pub channels: Option<String>,
}

/// Flags of `dev`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct DevFlags {
    /// Folder of the private PostgreSQL; kept, so that the next start finds its data
    #[arg(long, value_name = "FOLDER", default_value = ".tidewire")]
    pub dir: PathBuf,
    /// Make no live traffic
    #[arg(long)]
    pub no_demo: bool,
    /// Address to listen on [key listen]
    #[arg(short = 'w', long, value_name = "ADDR")]
    pub listen: Option<String>,
}

/// Where `listen` and `publish` connect to.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ConnectionFlags {
    /// Server to speak to; with -p instead, PostgreSQL itself
    /// [default: http://127.0.0.1:8080] [env: TIDEWIRE_SERVER]
    #[arg(long, value_name = "URL", conflicts_with = "postgres_url")]
    pub server: Option<String>,
    /// Token to show to the server [env: TIDEWIRE_TOKEN]
    #[arg(long, value_name = "TOKEN", conflicts_with = "postgres_url")]
    pub token: Option<String>,
}

/// Flags of `listen`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ListenFlags {
    /// NOTIFY channels; with --table or --topic, names of those
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Where to connect to.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// Print each event as a JSON object
    #[arg(long)]
    pub json: bool,
    /// The names are tables, schema.table: print each change of a row
    #[arg(long, conflicts_with_all = ["postgres_url", "topic"])]
    pub table: bool,
    /// Only rows that this admits, such as price=gt.10
    #[arg(long, value_name = "FILTER", requires = "table")]
    pub filter: Option<String>,
    /// First the rows that the table has now, then the changes
    #[arg(long, requires = "table")]
    pub snapshot: bool,
    /// The names are application topics, not NOTIFY channels
    #[arg(long, conflicts_with = "postgres_url")]
    pub topic: bool,
    /// Begin after this position; one name only
    #[arg(long, value_name = "POSITION", conflicts_with = "postgres_url")]
    pub since: Option<String>,
}

/// Flags of `publish`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct PublishFlags {
    /// NOTIFY channel
    pub channel: String,
    /// What to say
    #[arg(allow_hyphen_values = true)]
    pub payload: String,
    /// Where to connect to.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// The name is an application topic, not a NOTIFY channel
    #[arg(long, conflicts_with = "postgres_url")]
    pub topic: bool,
    /// Name of the event
    #[arg(long, value_name = "NAME", requires = "topic")]
    pub event: Option<String>,
}

/// Flags of `token`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct TokenFlags {
    /// Whom it names, the claim sub
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// The role
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = read_duration)]
    pub ttl: Duration,
    /// Topics that may be listened to, as a pattern; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub subscribe: Vec<String>,
    /// Topics that may be published on, as a pattern; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub publish: Vec<String>,
}

/// What to do with keys.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum KeyCommand {
    /// Make a key: prints it once, and what to write into the configuration
    New {
        /// Name in logs and answers
        #[arg(long)]
        name: String,
    },
}

/// What to do in the database.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum SqlCommand {
    /// Install, repair or upgrade; safe to run again
    Install(InstallFlags),
    /// Print what install would run
    Print(InstallFlags),
    /// Remove everything that install made, and the triggers of all tables
    Uninstall,
}

/// Flags of `sql install` and `sql print`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct InstallFlags {
    /// Schema of enable_realtime, disable_realtime and notify_table_change
    #[arg(long, value_name = "NAME", default_value = "public")]
    pub schema: String,
    /// Put ours in the place of other functions of these names
    #[arg(long)]
    pub replace: bool,
    /// How long changes wait for a server that is down
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = read_duration)]
    pub retention: Duration,
    /// tidewire.publish writes to the write-ahead log, not to the outbox
    #[arg(long)]
    pub wal: bool,
}

/// Flags of `tables` and `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ReportFlags {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `config`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ConfigFlags {
    /// Print the documentation of every key instead
    #[arg(long)]
    pub docs: bool,
    /// The flags of serve, to see what they would do.
    #[command(flatten)]
    pub serve: ServeFlags,
}

/// What `listen` and `publish` connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A server at this address, and the token to show.
    Server {
        /// Base address, `http://127.0.0.1:8080`.
        url: String,
        /// What to show, if anything.
        token: Option<String>,
    },
    /// PostgreSQL itself, by this connection string.
    Postgres(String),
}

/// Where a server is when nobody says otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

impl Args {
    /// Reads a command line, its first word being the program's name.
    ///
    /// # Errors
    /// [`clap::Error`], which also is how `--help` and `--version` answer; its `exit` prints it.
    pub fn read<W>(words: impl IntoIterator<Item = W>) -> Result<Self, clap::Error>
    where
        W: Into<OsString> + Clone,
    {
        let matches = help::with_variables(Self::command()).try_get_matches_from(words)?;
        let args = Self::from_arg_matches(&matches)?;
        if args.serve != ServeFlags::default() && !args.is_about_serving() {
            let message = "flags of serve stand before a command that does not serve";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(args)
    }

    fn is_about_serving(&self) -> bool {
        matches!(self.command, None | Some(Command::Serve(_) | Command::Config(_)))
    }

    /// What to do; `serve` when no command is named.
    pub fn chosen(&self) -> Command {
        self.command.clone().unwrap_or_else(|| Command::Serve(ServeFlags::default()))
    }

    /// The configuration as written for this process, its environment included.
    pub fn written(&self) -> Written {
        Written::of_process(self.global.config.clone(), self.overrides())
    }

    /// Whether a flag carries a token.
    pub(crate) fn has_token(&self) -> bool {
        let connection = match &self.command {
            Some(Command::Listen(flags)) => &flags.connection,
            Some(Command::Publish(flags)) => &flags.connection,
            _ => return false,
        };
        connection.token.is_some()
    }

    /// What the flags set, weaker ones first.
    pub fn overrides(&self) -> Vec<Override> {
        let mut found = self.global.overrides();
        found.extend(self.serve.overrides());
        match &self.command {
            Some(Command::Serve(serve) | Command::Config(ConfigFlags { serve, .. })) => {
                found.extend(serve.overrides());
            }
            Some(Command::Dev(dev)) => found.extend(set("listen", "--listen", &dev.listen)),
            _ => {}
        }
        found
    }
}

impl GlobalFlags {
    fn overrides(&self) -> Vec<Override> {
        let url = set("postgres.url", "--postgres-url", &self.postgres_url);
        let level = set("log.level", "--log-level", &self.log_level);
        let function = set("auth.function", "--auth-function", &self.auth_function);
        [url, level, function].into_iter().flatten().collect()
    }
}

impl ServeFlags {
    fn overrides(&self) -> Vec<Override> {
        let listen = set("listen", "--listen", &self.listen);
        let also = set("listen_also", "--sse-bind-addr", &self.sse_bind_addr);
        let insecure = self.insecure.then(|| "true".to_owned());
        let insecure = set("insecure", "--insecure", &insecure);
        let channels = set("postgres.listen_channels", "--channels", &self.channels);
        [listen, also, insecure, channels].into_iter().flatten().collect()
    }
}

fn set(path: &'static str, flag: &'static str, text: &Option<String>) -> Option<Override> {
    Some(Override { path, flag, text: text.clone()? })
}

impl ConnectionFlags {
    /// What to connect to: `--server`, `-p`, the variable `TIDEWIRE_SERVER`, this machine.
    ///
    /// `variable` looks a variable of the environment up.
    pub fn target(
        &self,
        global: &GlobalFlags,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Target {
        if let Some(url) = &global.postgres_url {
            return Target::Postgres(url.clone());
        }
        let variable = |name| variable(name).filter(|text| !text.is_empty());
        let url = self.server.clone().or_else(|| variable("TIDEWIRE_SERVER"));
        let url = url.unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        Target::Server { url, token: self.token.clone().or_else(|| variable("TIDEWIRE_TOKEN")) }
    }
}

fn read_duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("expected a time with its unit, such as 10m, 1h or 7d")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, clap::Error> {
        Args::read(line.split_whitespace())
    }

    fn overrides(line: &str) -> Vec<(&'static str, String)> {
        let args = read(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        args.overrides().into_iter().map(|set| (set.path, set.text)).collect()
    }

    #[track_caller]
    fn check(line: &str, expected: &[(&'static str, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|(path, text)| (*path, (*text).to_owned())).collect();
        assert_eq!(overrides(line), expected, "{line}");
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_lines_of_alles_readme_mean_what_they_say() {
        check("tidewire", &[]);
        check("tidewire serve", &[]);
        check("tidewire serve -w 0.0.0.0:8080", &[("listen", "0.0.0.0:8080")]);
        check("tidewire -l alle=info,info", &[("log.level", "alle=info,info")]);
        check("tidewire serve -l debug", &[("log.level", "debug")]);
        let url = "postgresql://localhost/postgres";
        check(&format!("tidewire -p {url}"), &[("postgres.url", url)]);
        check(&format!("tidewire --postgres-url {url} serve"), &[("postgres.url", url)]);
        check(&format!("tidewire serve -p {url}"), &[("postgres.url", url)]);
        check(
            "tidewire --auth-function f serve -c a,b --ws-bind-addr [::]:1 --sse-bind-addr [::]:2",
            &[
                ("auth.function", "f"),
                ("listen", "[::]:1"),
                ("listen_also", "[::]:2"),
                ("postgres.listen_channels", "a,b"),
            ],
        );
    }

    #[test]
    fn help_and_version_are_answers() {
        for (line, kind) in [
            ("tidewire help", ErrorKind::DisplayHelp),
            ("tidewire --help", ErrorKind::DisplayHelp),
            ("tidewire help listen", ErrorKind::DisplayHelp),
            ("tidewire -V", ErrorKind::DisplayVersion),
        ] {
            assert_eq!(read(line).unwrap_err().kind(), kind, "{line}");
        }
    }

    #[test]
    fn serve_is_the_command_when_none_is_named() {
        for line in ["tidewire", "tidewire serve", "tidewire --listen 127.0.0.1:0"] {
            assert!(matches!(read(line).unwrap().chosen(), Command::Serve(_)), "{line}");
        }
        check("tidewire --insecure -w [::]:1", &[("listen", "[::]:1"), ("insecure", "true")]);
    }

    #[test]
    fn flags_after_the_word_are_stronger_than_those_before() {
        check("tidewire -w [::]:1 serve -w [::]:2", &[("listen", "[::]:1"), ("listen", "[::]:2")]);
    }

    #[test]
    fn flags_of_serve_do_not_get_lost_before_another_command() {
        let refused = read("tidewire --insecure publish orders hi").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn config_takes_the_flags_of_serve() {
        check("tidewire config --listen [::1]:0", &[("listen", "[::1]:0")]);
        let docs = read("tidewire config --docs").unwrap().chosen();
        assert!(matches!(docs, Command::Config(ConfigFlags { docs: true, .. })));
    }

    #[test]
    fn dev_has_a_folder_and_an_address() {
        let Command::Dev(dev) = read("tidewire dev --no-demo").unwrap().chosen() else {
            panic!("dev is dev");
        };
        assert_eq!((dev.dir, dev.no_demo), (PathBuf::from(".tidewire"), true));
        check("tidewire dev --listen [::1]:0", &[("listen", "[::1]:0")]);
    }

    #[test]
    fn listen_and_publish_take_channels() {
        let Command::Listen(listen) =
            read("tidewire listen orders Alerts --json").unwrap().chosen()
        else {
            panic!("listen is listen");
        };
        assert_eq!(listen.names, ["orders", "Alerts"]);
        assert!(listen.json);
        let words = ["tidewire", "publish", "orders", "-5 degrees", "--topic", "--event", "cold"];
        let Command::Publish(publish) = Args::read(words).unwrap().chosen() else {
            panic!("publish is publish");
        };
        assert_eq!(publish.payload, "-5 degrees");
        assert_eq!(publish.event.as_deref(), Some("cold"));
        assert!(read("tidewire listen").is_err());
        assert!(read("tidewire publish orders").is_err());
    }

    fn target(line: &str, variables: &[(&str, &str)]) -> Target {
        let args = read(line).unwrap();
        let Command::Listen(listen) = args.chosen() else { panic!("the line listens") };
        listen.connection.target(&args.global, |name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn a_client_speaks_to_a_server_or_straight_to_postgresql() {
        let server = |url: &str, token: Option<&str>| Target::Server {
            url: url.to_owned(),
            token: token.map(str::to_owned),
        };
        let around = [("TIDEWIRE_SERVER", "http://b"), ("TIDEWIRE_TOKEN", "t")];
        assert_eq!(target("tidewire listen a", &[]), server("http://127.0.0.1:8080", None));
        assert_eq!(target("tidewire listen a", &around), server("http://b", Some("t")));
        let line = "tidewire listen a --server http://c --token u";
        assert_eq!(target(line, &around), server("http://c", Some("u")));
        let postgres = Target::Postgres("postgresql:///x".to_owned());
        assert_eq!(target("tidewire listen a -p postgresql:///x", &around), postgres);
        assert_eq!(target("tidewire -p postgresql:///x listen a", &around), postgres);
    }

    #[test]
    fn what_only_a_server_can_do_is_not_asked_of_postgresql() {
        for flag in ["--server http://c", "--topic", "--since 1", "--token t"] {
            let line = format!("tidewire listen a -p postgresql:///x {flag}");
            let refused = read(&line).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ArgumentConflict, "{line}");
        }
    }

    #[test]
    fn a_token_has_a_length_of_life_with_a_unit() {
        let Command::Token(token) =
            read("tidewire token --ttl 7d --subscribe room:* --subscribe notify:* --publish *")
                .unwrap()
                .chosen()
        else {
            panic!("token is token");
        };
        assert_eq!(token.ttl, Duration::from_secs(7 * 86_400));
        assert_eq!(token.subscribe, ["room:*", "notify:*"]);
        assert!(read("tidewire token --ttl 7").is_err());
    }

    #[test]
    fn a_key_has_a_name() {
        let chosen = read("tidewire key new --name billing").unwrap().chosen();
        assert!(matches!(
            chosen,
            Command::Key { command: KeyCommand::New { name } } if name == "billing"
        ));
        assert!(read("tidewire key new").is_err());
    }

    #[test]
    fn sql_tables_and_doctor_look_at_a_database() {
        let chosen = read("tidewire sql install --schema app --retention 1h -p postgresql:///x");
        let Command::Sql { command: SqlCommand::Install(flags) } = chosen.unwrap().chosen() else {
            panic!("sql install is sql install");
        };
        assert_eq!((flags.schema.as_str(), flags.replace), ("app", false));
        assert_eq!(flags.retention, Duration::from_secs(3600));
        for line in ["tidewire sql print --wal", "tidewire sql uninstall", "tidewire tables --json"]
        {
            assert!(read(line).is_ok(), "{line}");
        }
        let doctor = read("tidewire doctor --json").unwrap().chosen();
        assert!(matches!(doctor, Command::Doctor(ReportFlags { json: true })));
        assert!(read("tidewire sql").is_err());
    }
}
