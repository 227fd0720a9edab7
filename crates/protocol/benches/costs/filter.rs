//! One filter against one change. An index over many filters is measured with the engine.

use tidewire_measure::Case;
use tidewire_protocol::filter::{Filter, Predicate};

use crate::orders;

pub(crate) fn cases() -> Vec<Case> {
    let list = (1_200..1_220).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let judged = [
        ("eq", "customer_id=eq.1234".to_owned()),
        ("eq-of-another", "customer_id=eq.1235".to_owned()),
        ("in-of-20", format!("customer_id=in.({list})")),
        ("range", "total=gte.100,total=lt.200".to_owned()),
        ("moment", "created_at=gte.2026-01-01T00:00:00+00:00".to_owned()),
        ("like", "note=like.*door*bell*".to_owned()),
        ("ilike", "note=ilike.*DOOR*".to_owned()),
        ("match", "note=match.^leave.+door".to_owned()),
        ("composite", "status=in.(open,paid),or=(total.gt.100,note.like.urgent*)".to_owned()),
    ];
    let mut cases: Vec<_> = judged.map(|(name, filter)| judge(name, filter)).into();
    cases.push(Case::new("filter/parse/composite", || {
        || Filter::parse("status=in.(open,paid),or=(total.gt.100,note.like.urgent*)")
    }));
    cases
}

fn judge(name: &str, filter: String) -> Case {
    Case::new(format!("filter/judge/{name}"), move || {
        let filter = Filter::parse(&filter).expect("a filter");
        let predicate = Predicate::new(&filter, orders::types).expect("a filter for the table");
        let change = orders::update();
        move || predicate.admits(&change).expect("the table is as it was")
    })
}
