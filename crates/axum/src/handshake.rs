//! What a request says before it becomes a session: who, which topics, from where.
//!
//! Shared by WebSocket, Server-Sent Events and long-poll, so that a parameter means the same on
//! each. Parameters are read strictly: an unknown one is an error that names it, because a
//! misspelt `since` would otherwise lose events silently.

use std::num::{IntErrorKind, ParseIntError};

use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;
use tidewire_protocol::position::PositionError;
use tidewire_protocol::{
    Code, Interest, Position, Refusal, Since, Subscription, Token, Topic, TopicKind,
};

/// Parameters that carry a token.
const TOKEN_PARAMETERS: [&str; 2] = ["token", "access_token"];

/// Parameters that name a topic, and its kind.
const TOPIC_PARAMETERS: [TopicKind; 4] =
    [TopicKind::Application, TopicKind::Private, TopicKind::Table, TopicKind::Notify];

/// Parameters that name topics, and those that say what of a table is wanted.
pub(crate) const SUBSCRIPTION_PARAMETERS: [&str; 9] =
    ["topic", "private", "table", "notify", "since", "events", "columns", "filter", "snapshot"];

/// Topics of one stream or poll.
///
/// Each takes up to 40 bytes of the cursor that comes with every event and goes back in a header;
/// a hundred stay under the 8 KiB that common proxies take. A WebSocket has room for more.
const TOPICS: usize = 100;

/// What stands for no position in a cursor of several.
const NO_POSITION: &str = "-";

/// From where a request goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GoOn<'a> {
    /// What a program wrote as `since`: an error in it is an error of the request.
    Since(Option<&'a str>),
    /// What a client that comes back shows as the last it received.
    ///
    /// A browser never tries again after an error, so whatever is no cursor for these topics is a
    /// place that cannot be gone on from: the client is told gap.
    LastEventId(&'a str),
}

/// The parameters of a request, decoded, in their order.
#[derive(Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the parameters.
    ///
    /// # Errors
    /// `BadField` when a name or value is not UTF-8 after decoding.
    pub fn read(uri: &Uri) -> Result<Self, Refusal> {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        decoded.collect::<Result<_, Refusal>>().map(Self)
    }

    /// Refuses parameters other than these and those that carry a token.
    ///
    /// # Errors
    /// `BadField`, which names the parameter and those there are.
    pub fn expect_only(&self, names: &[&str]) -> Result<(), Refusal> {
        let known = |name: &str| names.contains(&name) || TOKEN_PARAMETERS.contains(&name);
        match self.0.iter().find(|(name, _)| !known(name)) {
            None => Ok(()),
            Some((name, _)) => {
                let known = names.iter().chain(&TOKEN_PARAMETERS).copied();
                let known = known.collect::<Vec<_>>().join(", ");
                let message = format!("unknown parameter {name:?}; there are {known}");
                Err(Refusal::new(Code::BadField, message))
            }
        }
    }

    /// Whether the parameter stands there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found == name)
    }

    /// The value of a parameter that may stand once at most.
    ///
    /// # Errors
    /// `BadField` when it stands twice.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.0.iter().filter(|(found, _)| found == name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => Ok(Some(value)),
            _ => Err(bad(format!("the parameter {name:?} must not be given twice"))),
        }
    }

    /// A whole number in a parameter that may stand once at most; one that is too large to count
    /// is the largest there is.
    ///
    /// # Errors
    /// `BadField` when it stands twice or is no whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        let number = value.parse().or_else(|error: ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow => Ok(u64::MAX),
            _ => Err(error),
        });
        number.map(Some).map_err(|_| bad(format!("the parameter {name:?} must be a whole number")))
    }

    /// The topics named by `topic`, `private`, `table` and `notify`, in their order, each from its
    /// place in the cursor `since`; with a single table, what of it is wanted by `events`,
    /// `columns`, `filter` and `snapshot`.
    ///
    /// # Errors
    /// `MissingField` without any, `BadTopic`, `BadPosition`, `BadField` for a topic named twice
    /// and for what goes with a single table only.
    pub fn subscriptions(&self, since: Option<&str>) -> Result<Vec<Subscription>, Refusal> {
        self.subscriptions_from(GoOn::Since(since))
    }

    /// The same, for requests that may come from a client that comes back.
    pub(crate) fn subscriptions_from(&self, from: GoOn<'_>) -> Result<Vec<Subscription>, Refusal> {
        let mut list = Vec::new();
        for (name, value) in &self.0 {
            if let Some(kind) = TOPIC_PARAMETERS.into_iter().find(|kind| kind.word() == name) {
                let topic = Topic::new(kind, value);
                let topic =
                    topic.map_err(|error| Refusal::new(Code::BadTopic, error.to_string()))?;
                list.push(Subscription::to(topic));
            }
        }
        if list.is_empty() {
            let message = "name at least one topic with topic=, private=, table= or notify=";
            return Err(Refusal::new(Code::MissingField, message));
        }
        go_on_from(&mut list, from)?;
        self.narrow(&mut list)?;
        Ok(list)
    }

    /// Notes what of a table is wanted.
    fn narrow(&self, list: &mut [Subscription]) -> Result<(), Refusal> {
        // Generated clients send `snapshot=false` for every topic: it asks for nothing.
        let snapshot = self.flag("snapshot")?;
        let names = ["events", "columns", "filter"].into_iter().find(|name| self.has(name));
        let Some(named) = names.or(snapshot.then_some("snapshot")) else {
            return Ok(());
        };
        let [wish] = list else { return Err(bad(format!("{named} goes with a single table"))) };
        if wish.topic.kind() != TopicKind::Table {
            return Err(bad(format!("{named} goes with table only")).about(&wish.topic));
        }
        let about = |refusal: Refusal| refusal.about(&wish.topic);
        wish.interest = self.interest().map_err(about)?;
        wish.snapshot = snapshot;
        if wish.snapshot && wish.since == Since::Earliest {
            let message =
                "a snapshot is the table as it is now; since=earliest does not go with it";
            return Err(bad(message).about(&wish.topic));
        }
        Ok(())
    }

    fn interest(&self) -> Result<Interest, Refusal> {
        let list = |name| Ok::<_, Refusal>(self.one(name)?.map(|text| text.split(',').collect()));
        let events: Option<Vec<&str>> = list("events")?;
        let columns: Option<Vec<&str>> = list("columns")?;
        Ok(Interest {
            operations: events
                .map_or(Ok(Vec::new()), |words| Interest::operations_of(&words))
                .map_err(bad)?,
            columns: columns
                .map_or(Ok(Vec::new()), |names| Interest::columns_of(&names))
                .map_err(bad)?,
            filter: self.one("filter")?.map(Into::into),
            limit: None,
        })
    }

    fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.one(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(format!("the parameter {name:?} must be true or false"))),
        }
    }
}

/// Sets each subscription's place from a cursor: one place each, in order, joined by commas.
///
/// # Errors
/// `BadPosition` when `since` does not fit, `TooManySubscriptions`, and `BadField` when a topic
/// stands twice, since a cursor could not tell the two apart.
pub(crate) fn go_on_from(list: &mut [Subscription], from: GoOn<'_>) -> Result<(), Refusal> {
    if list.len() > TOPICS {
        let message = format!("one request names at most {TOPICS} topics; a WebSocket takes more");
        return Err(Refusal::new(Code::TooManySubscriptions, message));
    }
    for (index, subscription) in list.iter().enumerate() {
        if list[..index].iter().any(|earlier| earlier.topic == subscription.topic) {
            return Err(bad("a topic must not be named twice").about(&subscription.topic));
        }
    }
    match from {
        GoOn::Since(None) => Ok(()),
        GoOn::Since(Some(since)) => go_on_since(list, since),
        GoOn::LastEventId(id) => {
            go_on_after(list, id);
            Ok(())
        }
    }
}

fn go_on_since(list: &mut [Subscription], since: &str) -> Result<(), Refusal> {
    let places: Vec<&str> = since.split(',').collect();
    if places.len() != list.len() {
        let message = format!(
            "the cursor has {} places for {} topics; name the topics it was made for, in their order",
            places.len(),
            list.len()
        );
        return Err(Refusal::new(Code::BadPosition, message));
    }
    for (subscription, text) in list.iter_mut().zip(places) {
        subscription.since = place(text).map_err(|refusal| refusal.about(&subscription.topic))?;
    }
    Ok(())
}

fn go_on_after(list: &mut [Subscription], id: &str) {
    let elsewhere = Since::Position(Position::ELSEWHERE);
    let fits = id.split(',').count() == list.len();
    let places = id.split(',').map(|text| place(text).unwrap_or(elsewhere));
    let places = places.filter(|_| fits).chain(std::iter::repeat(elsewhere));
    list.iter_mut().zip(places).for_each(|(subscription, place)| subscription.since = place);
}

fn place(text: &str) -> Result<Since, Refusal> {
    if text == NO_POSITION {
        return Ok(Since::Now);
    }
    text.parse().map_err(|error: PositionError| {
        Refusal::new(Code::BadPosition, format!("since is {error}"))
    })
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadField, message)
}

fn decode(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| bad("the query is not UTF-8 after percent-decoding"))
}

/// What the client offers in `Sec-WebSocket-Protocol`.
#[derive(Default)]
pub(crate) struct Subprotocol {
    /// What the server answers with.
    pub(crate) accepted: Option<&'static str>,
    token: Option<Token>,
}

impl Subprotocol {
    /// Reads `bearer, <token>` and `tidewire`; the latter is preferred where both are offered.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
        let offered: Vec<&str> = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(',').map(str::trim))
            .collect();
        let bearer = offered.iter().position(|name| *name == "bearer");
        let token = bearer.and_then(|at| offered.get(at + 1)).map(|text| Token::new(*text));
        let accepted =
            if offered.contains(&"tidewire") { Some("tidewire") } else { bearer.map(|_| "bearer") };
        Self { accepted, token }
    }
}

/// The client's token: from `Authorization`, else from the query, else from the subprotocol.
///
/// # Errors
/// `BadField` when a token parameter stands twice.
pub(crate) fn token(
    headers: &HeaderMap,
    query: &Query,
    subprotocol: Subprotocol,
) -> Result<Option<Token>, Refusal> {
    if let Some(token) = bearer(headers) {
        return Ok(Some(token));
    }
    for name in TOKEN_PARAMETERS {
        // An empty one is what a page sends that has none yet.
        if let Some(text) = query.one(name)?.filter(|text| !text.is_empty()) {
            return Ok(Some(Token::new(text)));
        }
    }
    Ok(subprotocol.token)
}

/// The token in `Authorization: Bearer …`; other schemes are for a proxy in front.
fn bearer(headers: &HeaderMap) -> Option<Token> {
    let (scheme, text) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::new(text.trim()))
}

/// A request's address for logs: the value of a token parameter never shows.
///
/// ```
/// let uri = "/v1/ws?token=abc&since=4f1c-17".parse().unwrap();
/// assert_eq!(tidewire_axum::redacted(&uri), "/v1/ws?token=hidden&since=4f1c-17");
/// ```
pub fn redacted(uri: &Uri) -> String {
    let Some(query) = uri.query() else { return uri.path().to_owned() };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_token(name) => format!("{name}=hidden"),
        _ => pair.to_owned(),
    });
    format!("{}?{}", uri.path(), pairs.collect::<Vec<_>>().join("&"))
}

fn is_token(name: &str) -> bool {
    decode(name).is_ok_and(|name| TOKEN_PARAMETERS.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewire_protocol::Operation;

    use super::*;

    fn query(text: &str) -> Result<Query, Refusal> {
        Query::read(&format!("/v1/sse?{text}").parse().unwrap())
    }

    fn subscriptions(text: &str, since: Option<&str>) -> Result<Vec<Subscription>, Code> {
        query(text).and_then(|query| query.subscriptions(since)).map_err(|refusal| refusal.code)
    }

    fn refused(text: &str, since: Option<&str>) -> Option<Code> {
        subscriptions(text, since).err()
    }

    #[test]
    fn topics_keep_their_order_and_take_their_place_from_the_cursor() {
        let list = subscriptions("topic=a&notify=b%20c&private=a", Some("a-1,-,earliest")).unwrap();
        let topics: Vec<String> = list.iter().map(|one| one.topic.to_string()).collect();
        assert_eq!(topics, ["topic:a", "notify:b c", "private:a"]);
        let places: Vec<Since> = list.iter().map(|one| one.since).collect();
        let position = "a-1".parse().unwrap();
        assert_eq!(places, [Since::Position(position), Since::Now, Since::Earliest]);
    }

    #[test]
    fn a_cursor_for_other_topics_is_refused() {
        assert_eq!(refused("topic=a", Some("a-1,a-2")), Some(Code::BadPosition));
        assert_eq!(refused("topic=a&topic=b", Some("a-1")), Some(Code::BadPosition));
        assert_eq!(refused("topic=a", Some("")), Some(Code::BadPosition));
        assert_eq!(refused("topic=a&topic=a", None), Some(Code::BadField));
    }

    #[test]
    fn a_last_event_id_that_is_no_cursor_for_these_topics_is_a_place_elsewhere() {
        let elsewhere = Since::Position(Position::ELSEWHERE);
        for (text, id, expected) in [
            ("topic=a", "17", vec![elsewhere]),
            ("topic=a", "a-1,a-2", vec![elsewhere]),
            ("topic=a&topic=b", "a-1", vec![elsewhere, elsewhere]),
            ("topic=a&topic=b", "x,-", vec![elsewhere, Since::Now]),
            ("topic=a", "0-0", vec![elsewhere]),
        ] {
            let list = query(text).and_then(|it| it.subscriptions_from(GoOn::LastEventId(id)));
            let places: Vec<_> = list.unwrap().iter().map(|one| one.since).collect();
            assert_eq!(places, expected, "{text} {id}");
        }
    }

    #[test]
    fn a_number_that_is_too_large_to_count_is_the_largest() {
        let number = |text: &str| query(text).and_then(|query| query.number("timeout"));
        assert_eq!(number("timeout=99999999999999999999").unwrap(), Some(u64::MAX));
        for text in ["timeout=-1", "timeout=", "timeout=1s", "timeout=9e99"] {
            assert_eq!(number(text).unwrap_err().code, Code::BadField, "{text}");
        }
    }

    #[test]
    fn a_request_names_a_hundred_topics_at_most() {
        let names = |count: usize| {
            (0..count).map(|index| format!("topic=t{index}")).collect::<Vec<_>>().join("&")
        };
        assert_eq!(refused(&names(100), None), None);
        assert_eq!(refused(&names(101), None), Some(Code::TooManySubscriptions));
    }

    #[test]
    fn names_that_are_not_topics_are_refused() {
        assert_eq!(refused("topic=", None), Some(Code::BadTopic));
        assert_eq!(refused("topic=a%00b", None), Some(Code::BadTopic));
        assert_eq!(refused("topic=%ff", None), Some(Code::BadField));
        assert_eq!(refused("table=orders", None), Some(Code::BadTopic));
        assert_eq!(refused("", None), Some(Code::MissingField));
    }

    #[test]
    fn what_is_wanted_of_a_table_goes_with_a_single_table() {
        let text = "table=public.orders&events=UPDATE,INSERT&columns=total,id&filter=id%3Dgt.5";
        let list = subscriptions(&format!("{text}&snapshot=true"), Some("a-1")).unwrap();
        let Interest { operations, columns, filter, .. } = &list[0].interest;
        assert_eq!(*operations, [Operation::Insert, Operation::Update]);
        assert_eq!(columns.iter().map(|name| &**name).collect::<Vec<_>>(), ["id", "total"]);
        assert_eq!((filter.as_deref(), list[0].snapshot), (Some("id=gt.5"), true));
        assert!(list[0].since != Since::Now);

        let all = subscriptions("table=public.orders&events=*", None).unwrap();
        assert!(all[0].interest.is_everything() && !all[0].snapshot);
        let of_any = subscriptions("topic=a&notify=b&snapshot=false", None).unwrap();
        assert!(of_any.iter().all(|one| !one.snapshot));
        for text in [
            "topic=a&events=*",
            "table=a.b&table=a.c&filter=id%3Dgt.5",
            "table=a.b&topic=a&snapshot=true",
            "table=a.b&events=insert",
            "table=a.b&events=",
            "table=a.b&columns=",
            "table=a.b&columns=id,",
            "table=a.b&snapshot=1",
            "table=a.b&filter=a&filter=b",
        ] {
            assert_eq!(refused(text, None), Some(Code::BadField), "{text}");
        }
        let text = "table=a.b&snapshot=true";
        assert_eq!(refused(text, Some("earliest")), Some(Code::BadField));
    }

    #[test]
    fn an_unknown_parameter_is_named() {
        let refusal = query("topic=a&sinse=4").unwrap().expect_only(&["topic", "since"]);
        assert_eq!(
            refusal.unwrap_err().message,
            "unknown parameter \"sinse\"; there are topic, since, token, access_token"
        );
    }

    #[test]
    fn the_header_wins_over_the_query_and_the_query_over_the_subprotocol() {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, "bearer, from-protocol".parse().unwrap());
        let find = |headers: &HeaderMap, text| {
            let found = token(headers, &query(text).unwrap(), Subprotocol::read(headers));
            found.unwrap().map(|token| token.expose().to_owned())
        };
        assert_eq!(find(&headers, "").as_deref(), Some("from-protocol"));
        assert_eq!(find(&headers, "access_token=from-query").as_deref(), Some("from-query"));
        headers.insert(AUTHORIZATION, "bearer from-header".parse().unwrap());
        assert_eq!(find(&headers, "token=from-query").as_deref(), Some("from-header"));
        headers.insert(AUTHORIZATION, "Basic abc".parse().unwrap());
        assert_eq!(find(&headers, "token=from-query").as_deref(), Some("from-query"));
    }

    #[test]
    fn the_subprotocol_answered_is_one_that_was_offered() {
        for (offered, accepted) in [
            ("tidewire", Some("tidewire")),
            ("bearer, abc", Some("bearer")),
            ("bearer, abc, tidewire", Some("tidewire")),
            ("graphql-ws", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
            assert_eq!(Subprotocol::read(&headers).accepted, accepted, "{offered}");
        }
    }

    #[test]
    fn a_token_never_shows_in_a_logged_address() {
        for text in
            ["token=secret", "a=b&access_token=secret&c", "%74oken=secret", "token=secret=="]
        {
            let uri = format!("/v1/ws?{text}").parse().unwrap();
            assert!(!redacted(&uri).contains("secret"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(text in "[ -~&&[^# ]]{0,60}") {
            if let Ok(uri) = format!("/?{text}").parse() {
                let _ = Query::read(&uri).and_then(|query| query.subscriptions(Some(&text)));
            }
        }
    }
}
