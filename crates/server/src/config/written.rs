//! The configuration as written: a file, the environment and flags, laid over the defaults.
//!
//! Each layer is flattened to paths, each path is looked up in the table of keys, each value is
//! read by its key's kind. What is not in the table is a problem that names the nearest key.
//! Whether the values fit each other is decided later, in `settings`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::error::{ConfigError, Problem};
use super::keys::{KEYS, Key, OTHER_VARIABLES};
use super::nearest::nearest;
use super::value::{Kind, Value};
use super::values::{Origin, Values};

/// A value from the command line for one key.
#[derive(Clone, Debug)]
pub struct Override {
    /// The path of the key, `postgres.url`.
    pub path: &'static str,
    /// The flag as people know it, `--postgres-url`.
    pub flag: &'static str,
    /// What was written after it.
    pub text: String,
}

/// Everything a configuration is made of, kept so that it can be read again on a SIGHUP.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The file named by `--config`; otherwise the one that `TIDEWIRE_CONFIG` names, if it does.
    pub file: Option<PathBuf>,
    /// Environment variables, all of them; those of others are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// What the command line sets.
    pub flags: Vec<Override>,
}

impl Written {
    /// The environment of this process with what the command line says.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Override>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), flags }
    }

    /// All layers, the strongest value of each key.
    pub(super) fn values(&self) -> Result<Values, ConfigError> {
        let mut problems = Vec::new();
        let mut values = Values::new(KEYS);
        offer_defaults(&mut values);
        self.offer_file(&mut values, &mut problems);
        self.offer_environment(&mut values, &mut problems);
        self.offer_flags(&mut values, &mut problems);
        ConfigError::unless(problems, values)
    }

    fn offer_file(&self, values: &mut Values, problems: &mut Vec<Problem>) {
        let named = self.file.clone().map(|file| ("--config", file));
        let Some((named_by, file)) = named.or_else(|| self.file_of_environment()) else {
            return;
        };
        match read_file(&file) {
            Ok(table) => {
                let origin = Origin::File(file.into());
                offer_table(values, &table, "", &origin, problems);
            }
            Err(message) => {
                problems.push(Problem::new(format!("{} ({named_by})", file.display()), message));
            }
        }
    }

    fn file_of_environment(&self) -> Option<(&'static str, PathBuf)> {
        let named = self.environment.iter().find(|(name, _)| name == "TIDEWIRE_CONFIG");
        named
            .filter(|(_, file)| !file.is_empty())
            .map(|(_, file)| ("TIDEWIRE_CONFIG", PathBuf::from(file)))
    }

    fn offer_environment(&self, values: &mut Values, problems: &mut Vec<Problem>) {
        for key in KEYS {
            // The strongest name comes first and later ones of the same rank would replace it.
            if let Some((name, text)) = key.variables().iter().find_map(|name| self.variable(name))
            {
                let origin = Origin::Environment(name.to_owned());
                offer_text(values, key, text, &origin, problems);
            }
        }
        self.refuse_unknown_variables(problems);
    }

    /// A variable that is set to something; empty counts as not set, as Compose files leave it.
    fn variable<'a>(&'a self, name: &'a str) -> Option<(&'a str, Result<&'a str, String>)> {
        let (_, text) = self.environment.iter().find(|(known, _)| known == name)?;
        if text.is_empty() {
            return None;
        }
        Some((name, text.to_str().ok_or_else(|| "not valid UTF-8".to_owned())))
    }

    fn refuse_unknown_variables(&self, problems: &mut Vec<Problem>) {
        let own: Vec<String> = KEYS.iter().flat_map(Key::variables).collect();
        let others = OTHER_VARIABLES.map(|(name, _)| name);
        for (name, text) in &self.environment {
            let name = name.to_string_lossy();
            let is_known = own.iter().any(|own| *own == name) || others.contains(&&*name);
            if !name.starts_with("TIDEWIRE_") || is_known || is_service_link(&name, text) {
                continue;
            }
            let known = own.iter().map(String::as_str).chain(others);
            let known = known.filter(|known| known.starts_with("TIDEWIRE_"));
            problems.push(unknown(&name, "variable", "", &name, known));
        }
    }

    fn offer_flags(&self, values: &mut Values, problems: &mut Vec<Problem>) {
        for flag in &self.flags {
            let key = KEYS.iter().find(|key| key.path() == flag.path);
            let key = key.expect("flags set keys of the table");
            let origin = Origin::Flag(flag.flag.to_owned());
            offer_text(values, key, Ok(&flag.text), &origin, problems);
        }
    }
}

fn offer_defaults(values: &mut Values) {
    for key in values.keys() {
        if let Some(default) = key.default() {
            let value = key.kind().read_text(default).expect("defaults fit their kinds");
            values.offer(key.path(), value, Origin::Default);
        }
    }
}

/// A file as one table, whichever language it is written in.
fn read_file(file: &Path) -> Result<Map<String, Json>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot be read: {e}"))?;
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let tree = match extension {
        "toml" => parse_toml(&text)?,
        "yaml" | "yml" => parse_yaml(&text)?,
        _ => return Err("the name of a configuration file ends in .toml, .yaml or .yml".to_owned()),
    };
    match tree {
        Json::Object(table) => Ok(table),
        // An empty YAML file is nothing rather than an empty table.
        Json::Null => Ok(Map::new()),
        _ => Err("a configuration file is a table of keys".to_owned()),
    }
}

/// Without the source line that the library would quote: it may hold a secret.
fn parse_toml(text: &str) -> Result<Json, String> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("not valid TOML: {line}{}", error.message())
    })
}

/// Without the source lines that the library would quote: they may hold a secret.
fn parse_yaml(text: &str) -> Result<Json, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| format!("not valid YAML: {error}"))
}

/// Walks a table of the file down to keys.
fn offer_table(
    values: &mut Values,
    table: &Map<String, Json>,
    above: &str,
    origin: &Origin,
    problems: &mut Vec<Problem>,
) {
    for (name, json) in table {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let key = values.keys().iter().find(|key| key.path() == path);
        match (key, json) {
            // Written and left empty, as YAML allows: the same as not written.
            (_, Json::Null) => {}
            (Some(key), json) => offer_json(values, key, json, origin, problems),
            // Down to the leaves even of an unknown table: they name the nearest key best.
            (None, Json::Object(below)) if !below.is_empty() => {
                offer_table(values, below, &path, origin, problems);
            }
            (None, Json::Object(_)) if is_section(values.keys(), &path) => {}
            (None, _) if is_section(values.keys(), &path) => {
                problems.push(Problem::new(origin.place(&path), "expected a table of keys"));
            }
            (None, _) => {
                let known = values.keys().iter().map(Key::path);
                problems.push(unknown(&origin.place(&path), "key", above, &path, known));
            }
        }
    }
}

fn is_section(keys: &[Key], path: &str) -> bool {
    keys.iter().any(|key| key.path().strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// A problem about a name that is not known, with the nearest that is.
fn unknown<'a>(
    place: &str,
    what: &str,
    section: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Problem {
    let known: Vec<&str> = known.collect();
    // A neighbour in the same section is likelier meant than a like name elsewhere.
    let neighbours = known.iter().copied().filter(|known| known.starts_with(section));
    let meant = nearest(name, neighbours).or_else(|| nearest(name, known.iter().copied()));
    let advice = match meant {
        Some(meant) => format!("did you mean {meant}?"),
        None => "`tidewire config --docs` lists those there are".to_owned(),
    };
    Problem::new(place, format!("unknown {what}, {advice}"))
}

fn offer_json(
    values: &mut Values,
    key: &Key,
    json: &Json,
    origin: &Origin,
    problems: &mut Vec<Problem>,
) {
    let place = origin.place(key.path());
    let value = match (key.kind(), json) {
        (Kind::Records(keys), Json::Array(items)) => {
            read_records(key.path(), keys, items, origin, problems)
        }
        (kind, json) => match kind.read_json(json) {
            Ok(value) => beside_file(value, origin),
            Err(message) => return problems.push(Problem::new(place, message)),
        },
    };
    values.offer(key.path(), value, origin.clone());
}

/// Paths in a file are relative to the file, so that it means the same from everywhere.
fn beside_file(value: Value, origin: &Origin) -> Value {
    match (value, origin) {
        (Value::File(path), Origin::File(file)) => {
            Value::File(file.parent().map_or(path.clone(), |folder| folder.join(&path)))
        }
        (value, _) => value,
    }
}

fn read_records(
    list: &str,
    keys: &'static [Key],
    items: &[Json],
    origin: &Origin,
    problems: &mut Vec<Problem>,
) -> Value {
    let mut records = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let place = format!("{list}[{index}]");
        let Json::Object(table) = item else {
            problems.push(Problem::new(origin.place(&place), "expected a table of keys"));
            continue;
        };
        let mut record = Values::new(keys);
        offer_defaults(&mut record);
        let mut found = Vec::new();
        offer_table(&mut record, table, "", origin, &mut found);
        problems.extend(
            found
                .into_iter()
                .map(|problem| Problem { place: format!("{place}.{}", problem.place), ..problem }),
        );
        records.push(record);
    }
    Value::Records(records)
}

fn offer_text(
    values: &mut Values,
    key: &Key,
    text: Result<&str, String>,
    origin: &Origin,
    problems: &mut Vec<Problem>,
) {
    let read = text.and_then(|text| match key.kind() {
        Kind::Records(_) => serde_json::from_str::<Json>(text)
            .map_err(|_| "expected a list of tables, as JSON".to_owned())
            .map(|json| offer_json(values, key, &json, origin, problems)),
        kind => kind.read_text(text).map(|value| values.offer(key.path(), value, origin.clone())),
    });
    if let Err(message) = read {
        problems.push(Problem::new(origin.place(key.path()), message));
    }
}

/// Kubernetes puts such variables into every pod beside a Service that is called `tidewire`.
fn is_service_link(name: &str, text: &OsString) -> bool {
    let Some(name) = name.strip_prefix("TIDEWIRE") else { return false };
    let text = text.to_string_lossy();
    let is_address = text.starts_with("tcp://") || text.starts_with("udp://");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && is_address)
        || name.contains("_TCP") && name.contains("_PORT_")
        || name.contains("_UDP") && name.contains("_PORT_")
}
