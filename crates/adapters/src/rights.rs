//! What a token's bearer may do, as written in a claim or in the configuration.
//!
//! ```json
//! { "subscribe": ["room:*"], "publish": ["room:42"], "presence": ["*"], "admin": false }
//! ```
//!
//! Each action of [`Action`] has a list of topic patterns. To subscribe to a table, or to read its
//! history, may be granted for some of its rows: `table:public.orders?customer_id=eq.{sub}` has a
//! [`RowRule`](tidewire::RowRule) after the question mark. What is malformed is an error and
//! never "nothing" or "everything": a misspelt action would otherwise be found by a customer.

use serde_json::{Map, Value};
use tidewire::{Action, Grant, Identity, Pattern};

/// Most patterns that one token or key may carry.
///
/// Each is tried for each request that the namespaces do not allow, so this bounds the work a
/// token can ask for; a token of 16 KiB could not hold many more.
pub const MAX_PATTERNS: usize = 256;

/// What stands between a table and the filter of its rows.
const ROWS: char = '?';

/// What a pattern of tables begins with.
const TABLE: &str = "table:";

/// The member that makes its bearer an administrator.
const ADMIN: &str = "admin";

/// What a bearer may do beside what the namespaces give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// One entry per pattern as written.
    pub grants: Vec<Grant>,
    /// Everything is allowed.
    pub admin: bool,
}

/// Why rights cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    /// Not an object.
    #[error("grants must be an object such as {{\"subscribe\": [\"room:*\"]}}")]
    NotAnObject,
    /// A member that is no action.
    #[error(
        "grants name an unknown action: the actions are subscribe, publish, presence, track, \
         history, and admin"
    )]
    UnknownAction,
    /// An action without a list of texts.
    #[error("the grant to {0} must be a list of topic patterns")]
    NotAList(&'static str),
    /// A text that is no pattern.
    #[error("the grant to {0} has a text that is not a topic pattern")]
    NotAPattern(&'static str),
    /// What follows a question mark is no rule.
    #[error(
        "the grant to {0} has a row filter that is not one: after the question mark stands a \
         filter such as customer_id=eq.{{sub}}, with {{sub}} as a value"
    )]
    NotARule(&'static str),
    /// A rule for an action that is not about rows.
    #[error("the grant to {0} has a row filter, which only subscribe and history can have")]
    WithoutRows(&'static str),
    /// More patterns than [`MAX_PATTERNS`].
    #[error("grants have more than {MAX_PATTERNS} topic patterns")]
    TooMany,
    /// `admin` is not true or false.
    #[error("the grant \"admin\" must be true or false")]
    NotABoolean,
}

impl Rights {
    /// Rights of an administrator.
    pub fn everything() -> Self {
        Self { admin: true, ..Self::default() }
    }

    /// The same, and to do `action` on the topics of `pattern`.
    #[must_use]
    pub fn and(mut self, action: Action, pattern: Pattern) -> Self {
        self.grants.push(Grant { pattern, actions: vec![action], rows: None });
        self
    }

    /// The same, and to do `action` on what `text` names: a pattern, of a table with a row filter
    /// after a question mark.
    ///
    /// # Errors
    /// [`RightsError`] when the text is not understood, or there are too many.
    pub fn and_written(mut self, action: Action, text: &str) -> Result<Self, RightsError> {
        self.add(action, text)?;
        Ok(self)
    }

    fn add(&mut self, action: Action, text: &str) -> Result<(), RightsError> {
        if self.grants.len() == MAX_PATTERNS {
            return Err(RightsError::TooMany);
        }
        let word = action.word();
        let (pattern, rows) = match text.split_once(ROWS) {
            Some((pattern, rows)) if pattern.starts_with(TABLE) => (pattern, Some(rows)),
            _ => (text, None),
        };
        if rows.is_some() && !matches!(action, Action::Subscribe | Action::History) {
            return Err(RightsError::WithoutRows(word));
        }
        let pattern = pattern.parse().map_err(|_| RightsError::NotAPattern(word))?;
        let rows = rows.map(str::parse).transpose().map_err(|_| RightsError::NotARule(word))?;
        self.grants.push(Grant { pattern, actions: vec![action], rows });
        Ok(())
    }

    /// Reads rights from JSON.
    ///
    /// # Errors
    /// [`RightsError`] when anything in it is not understood; texts of the input are not repeated.
    pub fn from_json(value: &Value) -> Result<Self, RightsError> {
        let members = value.as_object().ok_or(RightsError::NotAnObject)?;
        let mut rights = Self::default();
        for (name, value) in members {
            rights.read(name, value)?;
        }
        Ok(rights)
    }

    fn read(&mut self, name: &str, value: &Value) -> Result<(), RightsError> {
        if name == ADMIN {
            self.admin = value.as_bool().ok_or(RightsError::NotABoolean)?;
            return Ok(());
        }
        let action = action(name).ok_or(RightsError::UnknownAction)?;
        for pattern in value.as_array().ok_or(RightsError::NotAList(action.word()))? {
            let pattern = pattern.as_str().ok_or(RightsError::NotAList(action.word()))?;
            self.add(action, pattern)?;
        }
        Ok(())
    }

    /// Rights as JSON that [`Rights::from_json`] reads.
    pub fn to_json(&self) -> Value {
        let mut members = Map::new();
        for action in Action::ALL {
            let patterns: Vec<Value> = self
                .grants
                .iter()
                .filter(|grant| grant.actions.contains(&action))
                .map(|grant| written(grant).into())
                .collect();
            if !patterns.is_empty() {
                members.insert(action.word().to_owned(), patterns.into());
            }
        }
        if self.admin {
            members.insert(ADMIN.to_owned(), true.into());
        }
        members.into()
    }

    /// The bearer with these rights in place of any others.
    #[must_use]
    pub fn given_to(self, bearer: Identity) -> Identity {
        Identity { grants: Some(self.grants.into()), superuser: self.admin, ..bearer }
    }
}

fn written(grant: &Grant) -> String {
    match &grant.rows {
        Some(rows) => format!("{}{ROWS}{}", grant.pattern, rows.text()),
        None => grant.pattern.to_string(),
    }
}

fn action(name: &str) -> Option<Action> {
    Action::ALL.into_iter().find(|action| action.word() == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidewire::Topic;

    use super::*;

    #[test]
    fn each_action_has_its_own_patterns() {
        let claim = json!({ "subscribe": ["room:*"], "publish": ["room:42", "notify:orders"] });
        let bearer = Rights::from_json(&claim).unwrap().given_to(Identity::anonymous());
        let room = Topic::application("room:7").unwrap();
        assert!(bearer.is_granted(Action::Subscribe, &room));
        assert!(!bearer.is_granted(Action::Publish, &room));
        assert!(bearer.is_granted(Action::Publish, &Topic::notify("orders").unwrap()));
        assert!(!bearer.superuser);
    }

    #[test]
    fn of_a_table_some_rows_may_be_granted() {
        let claim = json!({ "subscribe": ["table:public.orders?customer_id=eq.{sub}"] });
        let ann = Identity { subject: Some("ann".into()), ..Identity::anonymous() };
        let bearer = Rights::from_json(&claim).unwrap().given_to(ann);
        assert_eq!(
            bearer.grants.as_ref().unwrap()[0].rows.as_ref().unwrap().text(),
            "customer_id=eq.{sub}"
        );
        assert!(bearer.is_granted(Action::Subscribe, &Topic::table("public.orders").unwrap()));
        // In other names a question mark is a character.
        let claim = json!({ "subscribe": ["what?"] });
        let bearer = Rights::from_json(&claim).unwrap().given_to(Identity::anonymous());
        assert!(bearer.is_granted(Action::Subscribe, &Topic::application("what?").unwrap()));
    }

    #[test]
    fn what_was_written_is_read_again() {
        let claim = json!({
            "subscribe": ["a", "b", "table:a.b?c=eq.{sub}"], "track": ["*"], "admin": true,
        });
        let rights = Rights::from_json(&claim).unwrap();
        assert_eq!(rights.to_json(), claim);
        assert!(rights.given_to(Identity::anonymous()).superuser);
    }

    #[test]
    fn anything_not_understood_is_an_error() {
        let many: Vec<String> = (0..=MAX_PATTERNS).map(|n| format!("room:{n}")).collect();
        for (claim, expected) in [
            (json!(null), RightsError::NotAnObject),
            (json!("*"), RightsError::NotAnObject),
            (json!({ "subscibe": ["*"] }), RightsError::UnknownAction),
            (json!({ "subscribe": "*" }), RightsError::NotAList("subscribe")),
            (json!({ "subscribe": [1] }), RightsError::NotAList("subscribe")),
            (json!({ "history": [""] }), RightsError::NotAPattern("history")),
            (json!({ "admin": "yes" }), RightsError::NotABoolean),
            (json!({ "publish": many }), RightsError::TooMany),
            (json!({ "subscribe": ["table:a.b?"] }), RightsError::NotARule("subscribe")),
            (json!({ "subscribe": ["table:a.b?c"] }), RightsError::NotARule("subscribe")),
            (json!({ "history": ["table:a.b?c=like.{sub}"] }), RightsError::NotARule("history")),
            (json!({ "presence": ["table:a.b?c=eq.1"] }), RightsError::WithoutRows("presence")),
        ] {
            assert_eq!(Rights::from_json(&claim), Err(expected), "{claim}");
        }
    }
}
