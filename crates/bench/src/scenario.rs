//! What is measured, by name.

use crate::lane::Way;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// Nothing.
    Silence,
    /// So many publications a second, evenly.
    Paced(f64),
    /// As many as possible, with so many outstanding: not answered, or not with every subscriber.
    Outstanding(usize),
}

/// What is done with the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They subscribe; then they are published to and measured.
    Load,
    /// They subscribe and wait: what does that cost?
    Idle,
    /// They connect; only when all are there they subscribe.
    Held,
    /// They connect and subscribe all at once.
    Storm,
    /// They connect and subscribe one after the other, each step when the server is at rest.
    OneByOne,
    /// As [`Kind::Load`], but the last subscriber reads nothing.
    Stalled,
    /// All leave, something is said, all come back at once to where they were.
    Resume,
    /// First one subscriber and what it wants, then as many as there are topics, each with its own.
    Keyed,
    /// Rows that were written while nobody read them, through the server and by `pg_recvlogical`.
    Backlog,
}

/// What a server must have for a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// A database.
    Postgres,
    /// A database whose log is read.
    Log,
    /// A database with triggers that write an outbox.
    Outbox,
    /// A secret, and clients that show tokens.
    Tokens,
}

/// One scenario.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// One line for people.
    pub(crate) about: &'static str,
    pub(crate) kind: Kind,
    /// Templates that subscribers take turns in; publishing is by the first. A peer has its own.
    pub(crate) templates: &'static [&'static str],
    pub(crate) way: Way,
    pub(crate) subscribers: usize,
    /// 1, or as many as subscribers: one each.
    pub(crate) topics: usize,
    pub(crate) load: Load,
    /// Publishing connections, for [`Load::Paced`].
    pub(crate) lanes: usize,
    /// Bytes of a payload.
    pub(crate) payload: usize,
    /// What the server must have.
    pub(crate) needs: Needs,
    /// Whether peers can do it.
    pub(crate) for_peers: bool,
}

/// The scenario that others are told as differences from.
const BASE: Scenario = Scenario {
    name: "paced",
    about: "1 topic, 1,000 subscribers, 20 messages a second",
    kind: Kind::Load,
    templates: &["native"],
    way: Way::Http,
    subscribers: 1_000,
    topics: 1,
    load: Load::Paced(20.0),
    lanes: 1,
    payload: 128,
    needs: Needs::Nothing,
    for_peers: true,
};

/// The scenario of row changes that others are told as differences from.
const ROWS: Scenario = Scenario {
    name: "rows",
    about: "1 table, 100 subscribers, 2,000 commits a second of one row each, from the log",
    templates: &["rows"],
    way: Way::Insert,
    subscribers: 100,
    load: Load::Paced(2_000.0),
    lanes: 16,
    needs: Needs::Log,
    for_peers: false,
    ..BASE
};

/// All scenarios, in the order in which they run.
pub(crate) const ALL: &[Scenario] = &[
    BASE,
    Scenario {
        name: "open200",
        about: "1 topic, 1,000 subscribers, 200 messages a second",
        load: Load::Paced(200.0),
        ..BASE
    },
    Scenario {
        name: "1-in-flight",
        about: "1 topic, 1,000 subscribers, one message after the other",
        load: Load::Outstanding(1),
        ..BASE
    },
    Scenario {
        name: "8-in-flight",
        about: "1 topic, 1,000 subscribers, 8 messages outstanding",
        load: Load::Outstanding(8),
        ..BASE
    },
    Scenario {
        name: "10k-subs",
        about: "1 topic, 10,000 subscribers, 20 messages a second",
        subscribers: 10_000,
        ..BASE
    },
    Scenario {
        name: "10k-topics",
        about: "10,000 connections, each its own topic, 5,000 messages a second",
        subscribers: 10_000,
        topics: 10_000,
        load: Load::Paced(5_000.0),
        lanes: 8,
        ..BASE
    },
    Scenario {
        name: "mixed",
        about: "1 NOTIFY channel, 1,000 subscribers of two dialects, 20 messages a second",
        templates: &["notify", "alle"],
        needs: Needs::Postgres,
        for_peers: false,
        ..BASE
    },
    Scenario {
        name: "sse",
        about: "1 topic, 1,000 subscribers over Server-Sent Events, 20 messages a second",
        templates: &["native-sse"],
        ..BASE
    },
    Scenario {
        name: "idle-10k",
        about: "10,000 subscribers, and nothing is said",
        kind: Kind::Idle,
        subscribers: 10_000,
        load: Load::Silence,
        ..BASE
    },
    Scenario {
        name: "idle-18k",
        about: "18,000 subscribers, and nothing is said",
        kind: Kind::Idle,
        subscribers: 18_000,
        load: Load::Silence,
        ..BASE
    },
    Scenario {
        name: "connected-10k",
        about: "10,000 connections that wait, and then subscribe all together",
        kind: Kind::Held,
        subscribers: 10_000,
        load: Load::Silence,
        for_peers: false,
        ..BASE
    },
    Scenario {
        name: "connect-storm",
        about: "10,000 clients connect and subscribe at once, their topic in the address",
        kind: Kind::Storm,
        templates: &["native-address"],
        subscribers: 10_000,
        load: Load::Silence,
        ..BASE
    },
    Scenario {
        name: "connect-storm-frame",
        about: "as connect-storm, subscribing by a frame once they are connected",
        kind: Kind::Storm,
        subscribers: 10_000,
        load: Load::Silence,
        for_peers: false,
        ..BASE
    },
    Scenario {
        name: "one-by-one",
        about: "2,000 clients come one after the other, and each step finds the server at rest",
        kind: Kind::OneByOne,
        subscribers: 2_000,
        load: Load::Silence,
        ..BASE
    },
    Scenario {
        name: "connect-jwt",
        about: "10,000 clients connect with a JSON Web Token each, and subscribe",
        kind: Kind::Idle,
        subscribers: 10_000,
        load: Load::Silence,
        needs: Needs::Tokens,
        for_peers: false,
        ..BASE
    },
    Scenario {
        name: "one-stalled-reader",
        about: "100 subscribers, 8 messages of 4 KiB outstanding, and one subscriber more who reads nothing",
        kind: Kind::Stalled,
        subscribers: 100,
        load: Load::Outstanding(8),
        payload: 4_096,
        ..BASE
    },
    Scenario {
        name: "resume-storm",
        about: "10,000 clients come back at once to where they were, 50 messages ago",
        kind: Kind::Resume,
        subscribers: 10_000,
        load: Load::Silence,
        for_peers: false,
        ..BASE
    },
    Scenario {
        name: "sql-notify",
        about: "1 NOTIFY channel, 100 subscribers, 100 commits a second of NOTIFY",
        templates: &["notify"],
        way: Way::Notify,
        subscribers: 100,
        load: Load::Paced(100.0),
        needs: Needs::Postgres,
        for_peers: false,
        ..BASE
    },
    Scenario {
        name: "sql-insert",
        about: "as sql-notify, of INSERTs into a table whose trigger notifies",
        templates: &["notify"],
        way: Way::Insert,
        subscribers: 100,
        load: Load::Paced(100.0),
        needs: Needs::Postgres,
        for_peers: false,
        ..BASE
    },
    ROWS,
    Scenario {
        name: "rows-outbox",
        about: "as rows, from the outbox that triggers write",
        needs: Needs::Outbox,
        ..ROWS
    },
    Scenario {
        name: "rows-by-key",
        about: "1 table, 10,000 subscribers of one row each, 1,000 changes a second, beside 1 subscriber",
        kind: Kind::Keyed,
        templates: &["rows-by-key"],
        subscribers: 10_000,
        topics: 10_000,
        load: Load::Paced(1_000.0),
        lanes: 4,
        ..ROWS
    },
    Scenario {
        name: "backlog",
        about: "1,000,000 rows that wait in the log, to 1 subscriber, beside pg_recvlogical",
        kind: Kind::Backlog,
        subscribers: 1,
        load: Load::Silence,
        ..ROWS
    },
];

/// The scenario of that name.
///
/// # Errors
/// When there is none.
pub(crate) fn named(name: &str) -> anyhow::Result<Scenario> {
    let found = ALL.iter().find(|scenario| scenario.name == name);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
        anyhow::anyhow!("there is no scenario {name}; there are {}", names.join(", "))
    })
}

impl Scenario {
    /// Publishing connections, and how many publications each may have under way.
    pub(crate) fn lanes(&self) -> (usize, usize) {
        let one_at_a_time = !matches!(self.way, Way::Websocket | Way::Nats);
        match self.load {
            Load::Outstanding(count) if one_at_a_time => (count, 1),
            Load::Outstanding(count) => (1, count),
            Load::Paced(_) | Load::Silence if one_at_a_time => (self.lanes, 1),
            Load::Paced(_) | Load::Silence => (self.lanes, usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Template;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_templates_that_publish_its_way() {
        for (at, scenario) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|other| other.name != scenario.name));
            assert_eq!(named(scenario.name).unwrap().about, scenario.about);
            for name in scenario.templates {
                Template::named(name).unwrap();
            }
            let publish = Template::named(scenario.templates[0]).unwrap().publish;
            assert!(match scenario.way {
                Way::Http => publish.http.is_some(),
                Way::Websocket => publish.websocket.is_some(),
                Way::Nats => publish.nats.is_some(),
                Way::Notify => publish.sql.is_some_and(|sql| sql.notify.is_some()),
                Way::Insert => publish.sql.is_some_and(|sql| !sql.insert.is_empty()),
            });
        }
    }

    #[test]
    fn what_is_outstanding_is_shared_among_lanes_that_take_one_at_a_time() {
        let scenario = named("8-in-flight").unwrap();
        assert_eq!(scenario.lanes(), (8, 1));
        assert_eq!(Scenario { way: Way::Websocket, ..scenario }.lanes(), (1, 8));
    }
}
