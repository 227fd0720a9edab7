//! The walls between crates: who may depend on whom, and on what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Small libraries without a world of their own, for every crate above the protocol.
const EVERYBODY: &[&str] = &[
    "arc-swap",
    "async-trait",
    "bytes",
    "futures-util",
    "getrandom",
    "parking_lot",
    "prometheus-client",
    "serde",
    "serde_json",
    "sha2",
    "strsim",
    "thiserror",
    "tidewire-protocol",
    "tokio",
    "tokio-util",
    "tracing",
];

/// What else each crate is built from, apart from tests: its one outside world. A new line here is
/// a decision.
const MAY_USE: &[(&str, &[&str])] = &[
    ("tidewire", &[]),
    (
        "tidewire-postgres",
        &[
            "tidewire",
            "deadpool",
            "nix",
            "postgres-protocol",
            "postgres-types",
            "rustls",
            "rustls-native-certs",
            "socket2",
            "tempfile",
            "tokio-postgres",
            "tokio-postgres-rustls",
            "tokio-rustls",
            "x509-cert",
        ],
    ),
    (
        "tidewire-adapters",
        &["tidewire", "base64", "crc32fast", "jsonwebtoken", "reqwest", "secrecy", "subtle"],
    ),
    (
        "tidewire-axum",
        &[
            "tidewire",
            "axum",
            "http",
            "http-body",
            "http-body-util",
            "httparse",
            "httpdate",
            "hyper",
            "hyper-util",
            // Networks of trusted proxies, as they are written.
            "ipnet",
            "percent-encoding",
            "rustls",
            "socket2",
            "tokio-rustls",
            "tower",
            "tower-http",
            "tungstenite",
        ],
    ),
    ("tidewire-measure", &["anyhow", "criterion"]),
];

/// The protocol is pure: it has no runtime, and none of the above by right.
const PROTOCOL: &str = "tidewire-protocol";
const PROTOCOL_MAY_USE: &[&str] = &[
    "base64",
    "bytes",
    "memchr",
    "regex",
    "serde",
    "serde_json",
    "smallvec",
    "strsim",
    "thiserror",
];

/// What must not be in a crate's tree at all, however deep.
const NEVER_SEES: &[(&str, &[&str])] = &[
    (
        "tidewire-protocol",
        &["tokio", "getrandom", "rand", "mio", "socket2", "http", "hyper", "chrono", "time"],
    ),
    (
        "tidewire",
        &[
            "axum",
            "http",
            "hyper",
            "reqwest",
            "tungstenite",
            "tokio-postgres",
            "redis",
            "async-nats",
            "jsonwebtoken",
            "rustls",
            "clap",
            "toml",
        ],
    ),
];

/// Of tokio the engine has what needs no operating system.
const ENGINE_TOKIO: [&str; 4] = ["macros", "rt", "sync", "time"];

/// The crates at the top: the one that knows all others, and the one that measures it from outside.
/// They may use what they need, and nobody depends on them.
const TOP: [&str; 2] = ["tidewire-server", "tidewire-bench"];

/// Crates side by side, which do not know each other.
const SIBLINGS: [&str; 3] = ["tidewire-postgres", "tidewire-adapters", "tidewire-axum"];

struct Dependency {
    name: String,
    /// Whether it is in what is built, and not only in tests or a build script.
    is_built_in: bool,
    features: Vec<String>,
}

/// What cargo says of the workspace, for this machine, with all features.
struct Graph {
    /// Direct dependencies of each crate of the workspace.
    direct: BTreeMap<String, Vec<Dependency>>,
    /// Direct dependencies of every package, those for tests included where they are ours.
    tree: BTreeMap<String, BTreeSet<String>>,
    /// The same without those for tests.
    built: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let metadata = metadata();
        let packages = list(&metadata["packages"]);
        let names: BTreeMap<&str, &str> =
            packages.iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let ours: BTreeSet<&str> = list(&metadata["workspace_members"]).iter().map(text).collect();
        let own = packages.iter().filter(|package| ours.contains(text(&package["id"])));
        let direct = own.map(|package| {
            let dependencies = list(&package["dependencies"]).iter().map(dependency);
            (text(&package["name"]).to_owned(), dependencies.collect())
        });
        let tree = edges(&metadata, &names, |_| true);
        let built = edges(&metadata, &names, |kind| kind["kind"] != "dev");
        Self { direct: direct.collect(), tree, built }
    }

    /// Everything that is in what a crate is built from.
    fn below(&self, name: &str) -> BTreeSet<String> {
        let (mut seen, mut left) = (BTreeSet::new(), vec![name.to_owned()]);
        while let Some(next) = left.pop() {
            for below in self.built.get(&next).into_iter().flatten() {
                if seen.insert(below.clone()) {
                    left.push(below.clone());
                }
            }
        }
        seen
    }

    fn users_of(&self, name: &str) -> BTreeSet<&str> {
        let users = self.tree.iter().filter(|(_, below)| below.contains(name));
        users.map(|(user, _)| user.as_str()).collect()
    }
}

fn metadata() -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--all-features"])
        .args(["--filter-platform", &host])
        .current_dir(root)
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn dependency(value: &Value) -> Dependency {
    Dependency {
        name: text(&value["name"]).to_owned(),
        is_built_in: value["kind"].is_null(),
        features: list(&value["features"]).iter().map(|name| text(name).to_owned()).collect(),
    }
}

fn edges(
    metadata: &Value,
    names: &BTreeMap<&str, &str>,
    counts: impl Fn(&Value) -> bool,
) -> BTreeMap<String, BTreeSet<String>> {
    let nodes = list(&metadata["resolve"]["nodes"]).iter();
    let named = |id: &Value| names[text(id)].to_owned();
    let mut edges = BTreeMap::<String, BTreeSet<String>>::new();
    for node in nodes {
        let below = list(&node["deps"]).iter();
        let below = below.filter(|below| list(&below["dep_kinds"]).iter().any(&counts));
        edges
            .entry(named(&node["id"]))
            .or_default()
            .extend(below.map(|below| named(&below["pkg"])));
    }
    edges
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[test]
fn each_crate_uses_what_it_may_and_nothing_else() {
    let graph = Graph::read();
    for (name, dependencies) in &graph.direct {
        if TOP.contains(&name.as_str()) {
            continue;
        }
        for dependency in dependencies.iter().filter(|dependency| dependency.is_built_in) {
            let used = dependency.name.as_str();
            assert!(may_use(name, used), "{name} must not use {used}");
        }
    }
}

fn may_use(name: &str, used: &str) -> bool {
    if name == PROTOCOL {
        return PROTOCOL_MAY_USE.contains(&used);
    }
    let own = MAY_USE.iter().find(|(known, _)| *known == name);
    let (_, own) = own.unwrap_or_else(|| panic!("say in this test what {name} may use"));
    EVERYBODY.contains(&used) || own.contains(&used)
}

#[test]
fn siblings_do_not_know_each_other_and_nobody_knows_the_top() {
    let graph = Graph::read();
    for (name, dependencies) in &graph.direct {
        // In tests neither: what a crate needs to be tried is a sign of what it stands on.
        for dependency in dependencies.iter().map(|dependency| dependency.name.as_str()) {
            assert!(!TOP.contains(&dependency), "{name} must not know {dependency}");
            let both = SIBLINGS.contains(&name.as_str()) && SIBLINGS.contains(&dependency);
            assert!(!both || name == dependency, "{name} must not know {dependency}");
        }
    }
}

#[test]
fn what_is_below_stays_light() {
    let graph = Graph::read();
    for (name, never) in NEVER_SEES {
        let below = graph.below(name);
        for seen in *never {
            assert!(!below.contains(*seen), "{name} sees {seen}");
        }
    }
}

#[test]
fn the_engine_waits_but_opens_nothing() {
    let graph = Graph::read();
    let tokio = graph.direct["tidewire"]
        .iter()
        .find(|dependency| dependency.name == "tokio" && dependency.is_built_in);
    for feature in &tokio.expect("the engine uses tokio").features {
        assert!(
            ENGINE_TOKIO.contains(&feature.as_str()),
            "the engine must not use tokio {feature}"
        );
    }
}

#[test]
fn every_library_is_behind_the_wall_that_deny_toml_names() {
    let graph = Graph::read();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deny.toml");
    let text = std::fs::read_to_string(path).expect("the file");
    let table: toml::Table = text.parse().expect("TOML");
    let bans = table["bans"]["deny"].as_array().expect("a list of bans");
    for ban in bans {
        let name = ban["crate"].as_str().expect("a crate");
        let wrappers = ban.get("wrappers").and_then(toml::Value::as_array);
        let wrappers = wrappers.into_iter().flatten().filter_map(toml::Value::as_str);
        let wrappers: BTreeSet<&str> = wrappers.collect();
        let users = graph.users_of(name);
        let strangers: Vec<_> = users.difference(&wrappers).collect();
        assert!(strangers.is_empty(), "{name} is used by {strangers:?}");
    }
}
