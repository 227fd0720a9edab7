//! Which relation a name stands for.
//!
//! A relation is its oid; its name is only what it is called at the moment. A [`Naming`] is the name
//! of a relation together with a stamp that changes whenever the name was changed, even to what it
//! was before: two looks that give an equal `Naming` prove that the relation had this name all the
//! time between them. Both sources remember the `Naming` with which a table began to be delivered
//! and compare it, so rows of one relation never come under the name of another.

use tidewire_protocol::Topic;

/// A relation and its name at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Naming {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) table: String,
    /// Another text once the relation or its schema was renamed, or it was moved to another schema,
    /// or became a partition or stopped to be one.
    pub(crate) stamp: String,
}

/// The stamp of table `c` of schema `n`, whose row type is `t`.
///
/// Each rename of a table and each SET SCHEMA writes the row of `pg_type` of its row type anew, and
/// hardly anything else does (OWNER TO, GRANT ON TYPE), while that of `pg_class` is also written by
/// TRUNCATE, ADD COLUMN and others that leave the name alone.
macro_rules! naming_stamp {
    () => {
        "pg_catalog.concat_ws('.', t.xmin::pg_catalog.text, n.oid::pg_catalog.text,
           n.xmin::pg_catalog.text, c.relispartition::pg_catalog.text)"
    };
}

pub(crate) use naming_stamp;

impl Naming {
    /// Whether the topic is that of this name.
    pub(crate) fn is_of(&self, topic: &Topic) -> bool {
        let name = topic.name().split_once('.');
        name == Some((self.schema.as_str(), self.table.as_str()))
    }
}

/// The topic of a table; `None` when its name cannot be one.
pub(crate) fn topic(schema: &str, table: &str) -> Option<Topic> {
    // The first dot of a topic ends the schema.
    let named = !schema.contains('.');
    named.then(|| Topic::table(&format!("{schema}.{table}")).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_that_of_one_schema_and_one_table() {
        let naming = |schema: &str, table: &str| Naming {
            oid: 1,
            schema: schema.to_owned(),
            table: table.to_owned(),
            stamp: String::new(),
        };
        let orders = Topic::table("public.orders").unwrap();
        assert!(naming("public", "orders").is_of(&orders));
        assert_eq!(topic("public", "orders"), Some(orders.clone()));
        assert!(!naming("public", "order").is_of(&orders));
        let dotted = Topic::table("public.hidden.salaries").unwrap();
        assert!(!naming("public.hidden", "salaries").is_of(&dotted));
        assert_eq!(topic("public.hidden", "salaries"), None);
    }
}
