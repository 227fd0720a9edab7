//! Which of many intervals contain a value, without looking at those that do not.
//!
//! A treap: a search tree in the order of the intervals, balanced by random priorities, in which
//! every node knows how far the intervals below it reach. What ends before the value is left out
//! as a whole, and so is what begins after it. Finding costs the depth of the tree for each hit at
//! worst, and usually little more than the hits.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use tidewire_protocol::filter::{Edge, Interval, Point};

use crate::hub::live_topic::MemberId;

/// Members by the intervals that they want.
#[derive(Default)]
pub(super) struct Ranges {
    root: Tree,
    /// Nobody outside knows the priorities, so nobody can make the tree deep.
    random: RandomState,
    grown: u64,
}

type Tree = Option<Box<Node>>;

struct Node {
    interval: Interval,
    members: Vec<MemberId>,
    priority: u64,
    /// The last end of all intervals here and below.
    reach: Edge,
    left: Tree,
    right: Tree,
}

impl Ranges {
    pub(super) fn insert(&mut self, interval: &Interval, id: MemberId) {
        if let Some(node) = find(&mut self.root, interval) {
            return node.members.push(id);
        }
        self.grown += 1;
        let node = Box::new(Node {
            interval: interval.clone(),
            members: vec![id],
            priority: self.random.hash_one(self.grown),
            reach: interval.to.clone(),
            left: None,
            right: None,
        });
        self.root = Some(grown(self.root.take(), node));
    }

    pub(super) fn remove(&mut self, interval: &Interval, id: MemberId) {
        let Some(node) = find(&mut self.root, interval) else { return };
        node.members.retain(|held| *held != id);
        if node.members.is_empty() {
            self.root = without(self.root.take(), interval);
        }
    }

    /// Adds the members that want the value; one that wants it in several intervals of its own,
    /// which do not touch, cannot.
    pub(super) fn find(&self, value: &Point<'_>, found: &mut Vec<MemberId>) {
        stab(self.root.as_deref(), value, found);
    }
}

/// The node of just this interval.
fn find<'t>(tree: &'t mut Tree, interval: &Interval) -> Option<&'t mut Node> {
    let mut next = tree.as_deref_mut();
    while let Some(node) = next {
        next = match interval.cmp(&node.interval) {
            std::cmp::Ordering::Equal => return Some(node),
            std::cmp::Ordering::Less => node.left.as_deref_mut(),
            std::cmp::Ordering::Greater => node.right.as_deref_mut(),
        };
    }
    None
}

fn stab(tree: Option<&Node>, value: &Point<'_>, found: &mut Vec<MemberId>) {
    let Some(node) = tree else { return };
    if node.reach.is_before(value) {
        return;
    }
    stab(node.left.as_deref(), value, found);
    // What is to the right begins here or later.
    if node.interval.from.is_before(value) {
        if !node.interval.to.is_before(value) {
            found.extend_from_slice(&node.members);
        }
        stab(node.right.as_deref(), value, found);
    }
}

/// The tree with a node more, whose interval it does not have.
fn grown(tree: Tree, mut new: Box<Node>) -> Box<Node> {
    let Some(mut node) = tree else { return new };
    if node.priority < new.priority {
        let (left, right) = split(Some(node), &new.interval);
        (new.left, new.right) = (left, right);
        return measured(new);
    }
    let side = if new.interval < node.interval { &mut node.left } else { &mut node.right };
    *side = Some(grown(side.take(), new));
    measured(node)
}

/// What is before the interval, and what is after it.
fn split(tree: Tree, interval: &Interval) -> (Tree, Tree) {
    let Some(mut node) = tree else { return (None, None) };
    if node.interval < *interval {
        let (left, right) = split(node.right.take(), interval);
        node.right = left;
        (Some(measured(node)), right)
    } else {
        let (left, right) = split(node.left.take(), interval);
        node.left = right;
        (left, Some(measured(node)))
    }
}

/// The tree without the node of the interval.
fn without(tree: Tree, interval: &Interval) -> Tree {
    let mut node = tree?;
    if node.interval == *interval {
        return joined(node.left, node.right);
    }
    let side = if *interval < node.interval { &mut node.left } else { &mut node.right };
    *side = without(side.take(), interval);
    Some(measured(node))
}

/// One tree of two, all of the left one being before the right one.
fn joined(left: Tree, right: Tree) -> Tree {
    let (mut left, mut right) = match (left, right) {
        (Some(left), Some(right)) => (left, right),
        (only, None) | (None, only) => return only,
    };
    if left.priority >= right.priority {
        left.right = joined(left.right.take(), Some(right));
        Some(measured(left))
    } else {
        right.left = joined(Some(left), right.left.take());
        Some(measured(right))
    }
}

/// The node, knowing again how far it reaches.
fn measured(mut node: Box<Node>) -> Box<Node> {
    let below = [&node.left, &node.right].into_iter().flatten().map(|child| &child.reach);
    let reach = below.fold(&node.interval.to, Ord::max).clone();
    node.reach = reach;
    node
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewire_protocol::SessionId;
    use tidewire_protocol::filter::{Edge, Kind, Scale};

    use super::*;
    use crate::mailbox::SubscriptionKey;

    fn number(value: i64) -> String {
        value.to_string()
    }

    /// From one number or nothing to another, with or without the ends.
    fn interval(from: Option<(i64, bool)>, to: Option<(i64, bool)>) -> Interval {
        let scale = Scale::of(&Kind::Integer).expect("numbers have a scale");
        let edge = |value: i64, after: bool| {
            let text = number(value);
            let point = scale.read(&text).expect("a number").into_owned().into();
            if after { Edge::After(point) } else { Edge::Before(point) }
        };
        Interval {
            from: from.map_or(Edge::Bottom, |(value, with)| edge(value, !with)),
            to: to.map_or(Edge::Top, |(value, with)| edge(value, with)),
        }
    }

    fn any_interval() -> impl Strategy<Value = Interval> {
        let end = || prop::option::weighted(0.8, (-20_i64..20, any::<bool>()));
        (end(), end())
            .prop_map(|(from, to)| interval(from, to))
            .prop_filter("an interval ends after it begins", |it| it.from < it.to)
    }

    fn found(ranges: &Ranges, value: i64) -> Vec<MemberId> {
        let scale = Scale::of(&Kind::Integer).expect("numbers have a scale");
        let mut found = Vec::new();
        ranges.find(&scale.read(&number(value)).expect("a number"), &mut found);
        found.sort_unstable();
        found
    }

    fn depth(tree: &Tree) -> usize {
        tree.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    fn member(number: usize) -> MemberId {
        (SessionId(number as u64), SubscriptionKey(0))
    }

    proptest! {
        #[test]
        fn what_contains_a_value_is_found_as_by_looking_at_all(
            actions in prop::collection::vec((any::<bool>(), any_interval(), any::<prop::sample::Index>()), 1..80),
        ) {
            let mut ranges = Ranges::default();
            let mut held: Vec<(MemberId, Interval)> = Vec::new();
            for (number, (removes, interval, which)) in actions.into_iter().enumerate() {
                if removes && !held.is_empty() {
                    let (id, interval) = held.swap_remove(which.index(held.len()));
                    ranges.remove(&interval, id);
                } else {
                    ranges.insert(&interval, member(number));
                    held.push((member(number), interval));
                }
                for value in -21..=21 {
                    let text = value.to_string();
                    let scale = Scale::of(&Kind::Integer).expect("numbers have a scale");
                    let point = scale.read(&text).expect("a number");
                    let mut expected: Vec<_> =
                        held.iter().filter(|(_, it)| it.contains(&point)).map(|(id, _)| *id).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found(&ranges, value), expected);
                }
            }
        }
    }

    #[test]
    fn intervals_that_come_in_order_do_not_make_it_deep() {
        let mut ranges = Ranges::default();
        for number in 0..10_000 {
            let (from, to) = (10 * number as i64, 10 * number as i64 + 10);
            ranges.insert(&interval(Some((from, true)), Some((to, false))), member(number));
        }
        // Twice the logarithm is usual, thrice is already rare.
        assert!(depth(&ranges.root) < 60, "{} deep", depth(&ranges.root));
        assert_eq!(found(&ranges, 55_555), [member(5_555)]);
        for number in 0..10_000 {
            let (from, to) = (10 * number as i64, 10 * number as i64 + 10);
            ranges.remove(&interval(Some((from, true)), Some((to, false))), member(number));
        }
        assert!(ranges.root.is_none());
    }
}
