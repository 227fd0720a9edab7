//! What one client was told, and whether that can be: every change exactly once, in the order of
//! commits, or a gap named at its place.
//!
//! The table helps: each writer has a row with a number below zero that it counts up in each of
//! its transactions, last. So a transaction that is missing, doubled or in two parts is seen at
//! once, and so is one change of it by the index, or by an old row that is not the one known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

/// Rows by their key.
pub(super) type Rows = BTreeMap<i64, Value>;

/// Which change has which position. All clients must be told the same.
pub(super) type Register = Arc<Mutex<HashMap<String, (i64, i64)>>>;

/// One client's account.
pub(super) struct Account {
    name: String,
    register: Register,
    pub(super) rows: Rows,
    /// Whether the rows are those of the table: not after a gap, until they were read again.
    pub(super) knows: bool,
    /// Numbers of the writers whose next one is certain.
    certain: BTreeSet<i64>,
    /// Numbers of all writers seen.
    numbers: BTreeMap<i64, i64>,
    /// The transaction that is being told, and the index of its last change told.
    open: Option<(i64, i64)>,
    /// The last place told since the subscription began.
    place: Option<Place>,
    lsn: Option<(u64, u64)>,
    /// Where the rows are complete; what is told before is part of them.
    head: Option<Place>,
    /// Some rows were told, and all of them, since they were last forgotten.
    rows_begun: bool,
    rows_told: bool,
    /// Where to go on from; none while the rows are told.
    pub(super) cursor: Option<String>,
    pub(super) gaps: Vec<String>,
    pub(super) resumed: usize,
    pub(super) changes: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Place {
    epoch: String,
    number: u64,
}

impl Place {
    fn of(position: &Value) -> Self {
        let (epoch, number) = text(position).rsplit_once('-').expect("an epoch and a number");
        Self { epoch: epoch.to_owned(), number: number.parse().expect("a number") }
    }
}

impl Account {
    pub(super) fn new(name: String, register: Register) -> Self {
        Self {
            name,
            register,
            rows: Rows::new(),
            knows: false,
            certain: BTreeSet::new(),
            numbers: BTreeMap::new(),
            open: None,
            place: None,
            lsn: None,
            head: None,
            rows_begun: false,
            rows_told: false,
            cursor: None,
            gaps: Vec::new(),
            resumed: 0,
            changes: 0,
        }
    }

    /// Takes one frame; `false` when a gap is told, after which the rows are wanted again.
    pub(super) fn take(&mut self, frame: &Value) -> bool {
        match text(&frame["type"]) {
            "subscribed" => self.begin(frame),
            "rows" => self.take_rows(frame),
            "change" => self.take_change(frame),
            "gap" => {
                self.step_to(Place::of(&frame["position"]));
                self.lose(text(&frame["reason"]));
                return false;
            }
            other => panic!("{}: unexpected {other}: {frame}", self.name),
        }
        true
    }

    /// The connection is over; a transaction that was being told goes on with the next.
    pub(super) fn part(&mut self) {
        if !self.rows_told {
            // A snapshot that broke off in the middle is worth nothing.
            self.forget();
        }
    }

    /// A subscription was answered.
    fn begin(&mut self, frame: &Value) {
        match text(&frame["outcome"]) {
            "resumed" => {
                assert!(self.knows, "{}: resumed without rows: {frame}", self.name);
                self.resumed += 1;
                return;
            }
            "gap" => self.lose(text(&frame["reason"])),
            _ => {}
        }
        self.begin_rows();
        self.head = Some(Place::of(&frame["position"]));
        self.cursor = None;
    }

    /// Rows follow, and replace what was known.
    pub(super) fn begin_rows(&mut self) {
        self.forget();
        self.rows.clear();
        self.head = None;
    }

    fn take_rows(&mut self, frame: &Value) {
        for row in frame["rows"].as_array().expect("rows") {
            let before = self.rows.insert(key(row), row.clone());
            assert_eq!(before, None, "{}: a row is told twice", self.name);
        }
        self.rows_begun = true;
        if frame["last"] == true {
            self.rows_told = true;
            self.know();
            self.cursor = self.head.as_ref().map(|head| format!("{}-{}", head.epoch, head.number));
        }
    }

    /// The rows are the table's, but for changes that follow.
    fn know(&mut self) {
        if std::mem::replace(&mut self.knows, true) {
            return;
        }
        for (id, row) in self.rows.range(..0) {
            // They may be older than what was told before; then that is told again.
            self.numbers.insert(*id, number(&row["n"]));
            self.certain.insert(*id);
        }
    }

    pub(super) fn lose(&mut self, reason: &str) {
        self.gaps.push(reason.to_owned());
        self.forget();
    }

    /// In what the rows known are not those of the table, in words.
    pub(super) fn difference(&self, truth: &Rows) -> String {
        let mut keys: BTreeSet<i64> = self.rows.keys().chain(truth.keys()).copied().collect();
        keys.retain(|key| self.rows.get(key) != truth.get(key));
        let pair = |key: &i64| (*key, self.rows.get(key), truth.get(key));
        let some: Vec<_> = keys.iter().take(5).map(pair).collect();
        let (name, knows, gaps) = (&self.name, self.knows, &self.gaps);
        let count = keys.len();
        format!("{name}: knows: {knows}, gaps: {gaps:?}, {count} rows (have, should): {some:?}")
    }

    fn forget(&mut self) {
        (self.knows, self.rows_begun, self.rows_told) = (false, false, false);
        self.cursor = None;
        self.certain.clear();
        (self.open, self.place, self.lsn) = (None, None, None);
    }

    fn take_change(&mut self, frame: &Value) {
        self.changes += 1;
        if self.rows_begun {
            self.know();
        }
        self.agree(frame);
        self.step_to(Place::of(&frame["position"]));
        self.keep_in_order(frame);
        self.count(frame);
        if self.knows {
            self.apply(frame);
        }
        let place = self.place.clone().expect("it is there just now");
        let in_rows = self.head.as_ref().is_some_and(|head| place.number <= head.number);
        if self.rows_told && !in_rows {
            self.cursor = Some(text(&frame["position"]).to_owned());
        }
    }

    /// What is at a place is the same for everybody.
    fn agree(&self, frame: &Value) {
        let change = (number(&frame["xid"]), number(&frame["index"]));
        let position = text(&frame["position"]).to_owned();
        let known = *self.register.lock().entry(position).or_insert(change);
        assert_eq!(change, known, "{}: others were told something else: {frame}", self.name);
    }

    fn step_to(&mut self, place: Place) {
        if let Some(last) = &self.place {
            assert_eq!(last.epoch, place.epoch, "{}: another epoch", self.name);
            assert!(last.number < place.number, "{}: {place:?} after {last:?}", self.name);
        }
        self.place = Some(place);
    }

    /// Transactions are whole, and in the order of their commits.
    fn keep_in_order(&mut self, frame: &Value) {
        let (xid, index) = (number(&frame["xid"]), number(&frame["index"]));
        match self.open {
            Some(last) => assert_eq!((xid, index), (last.0, last.1 + 1), "{}: {frame}", self.name),
            // Where nothing is known yet, it may be the rest of one.
            None => assert!(index == 0 || !self.knows, "{}: a part: {frame}", self.name),
        }
        let is_last = frame["last"] == true;
        assert_eq!(is_last, is_writers(frame), "{}: where does it end? {frame}", self.name);
        self.open = (!is_last).then_some((xid, index));
        if let Some(lsn) = frame["lsn"].as_str() {
            let (high, low) = lsn.split_once('/').expect("two halves");
            let half = |digits| u64::from_str_radix(digits, 16).expect("hexadecimal");
            let lsn = (half(high), half(low));
            assert!(self.lsn.is_none_or(|last| last <= lsn), "{}: {frame}", self.name);
            self.lsn = Some(lsn);
        }
    }

    /// No transaction of a writer is left out or repeated, apart from those in a gap.
    fn count(&mut self, frame: &Value) {
        if !is_writers(frame) {
            return;
        }
        let (id, n) = (number(&frame["key"]["id"]), number(&frame["record"]["n"]));
        let last = self.numbers.insert(id, n).unwrap_or_default();
        let follows = if self.certain.insert(id) { n > last } else { n == last + 1 };
        assert!(follows, "{}: {n} after {last}: {frame}", self.name);
    }

    fn apply(&mut self, frame: &Value) {
        let id = number(&frame["key"]["id"]);
        let before = match text(&frame["op"]) {
            "DELETE" => self.rows.remove(&id),
            _ => self.rows.insert(id, frame["record"].clone()),
        };
        let said = frame.get("old").cloned();
        assert_eq!(before, said, "{}: another row was known before {frame}", self.name);
    }
}

fn is_writers(frame: &Value) -> bool {
    number(&frame["key"]["id"]) < 0
}

fn key(row: &Value) -> i64 {
    number(&row["id"])
}

fn number(value: &Value) -> i64 {
    value.as_i64().expect("a number")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}
