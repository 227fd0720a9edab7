//! Something that every principal may do a few times at once, in the order in which it asked.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::Principal;

/// The lines of all principals; one that nobody stands in takes no memory.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Principal, Line>>);

#[derive(Debug)]
struct Line {
    turns: Arc<Semaphore>,
    /// Who stands in it, those whose turn it is among them.
    standing: usize,
    /// Those who stand for the same thing and have their turn together, by what it is.
    together: HashMap<u64, Arc<Group>>,
}

/// Those who have one turn together: the permit of the first whose turn it is.
type Group = OnceCell<OwnedSemaphorePermit>;

/// How many have a turn at once, and how many stand in a line, at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) at_once: usize,
    pub(crate) standing: usize,
}

/// A place in a line, and then the principal's turn, until this is dropped.
pub(crate) struct Turn<'turns> {
    turns: &'turns Turns,
    principal: &'turns Principal,
    thing: Option<u64>,
    group: Option<Arc<Group>>,
}

impl Turns {
    /// Waits for a turn; `None` when the principal's line is full. Who asks for the same `thing`
    /// has its turn together with others that do. Cancel safe.
    pub(crate) async fn turn<'turns>(
        &'turns self,
        principal: &'turns Principal,
        thing: Option<u64>,
        room: Room,
    ) -> Option<Turn<'turns>> {
        let (turn, permits) = self.stand(principal, thing, room)?;
        let group = turn.group.as_ref().expect("it is taken at the end only");
        // Where the one that waits for the permit gives up, another of the group does.
        group
            .get_or_init(|| async { permits.acquire_owned().await.expect("it is never closed") })
            .await;
        Some(turn)
    }

    fn stand<'turns>(
        &'turns self,
        principal: &'turns Principal,
        thing: Option<u64>,
        room: Room,
    ) -> Option<(Turn<'turns>, Arc<Semaphore>)> {
        let mut lines = self.0.lock();
        let line = lines.entry(principal.clone()).or_insert_with(|| Line {
            turns: Arc::new(Semaphore::new(room.at_once)),
            standing: 0,
            together: HashMap::new(),
        });
        if line.standing >= room.standing {
            return None;
        }
        line.standing += 1;
        let group = match thing {
            Some(thing) => Arc::clone(line.together.entry(thing).or_default()),
            None => Arc::default(),
        };
        let permits = Arc::clone(&line.turns);
        Some((Turn { turns: self, principal, thing, group: Some(group) }, permits))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut lines = self.turns.0.lock();
        let Some(line) = lines.get_mut(self.principal) else { return };
        self.group = None;
        if let Some(thing) = self.thing
            && line.together.get(&thing).is_some_and(|group| Arc::strong_count(group) == 1)
        {
            line.together.remove(&thing);
        }
        line.standing -= 1;
        if line.standing == 0 {
            lines.remove(self.principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROOM: Room = Room { at_once: 1, standing: 3 };

    async fn waits<T>(turn: impl Future<Output = T>) -> bool {
        tokio::time::timeout(Duration::from_secs(1), turn).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_of_one_principal_holds_up_no_other() {
        let turns = Turns::default();
        let (one, other) = (Principal::Subject("a".into()), Principal::Subject("b".into()));
        let first = turns.turn(&one, None, ROOM).await.unwrap();
        let mut second = Box::pin(turns.turn(&one, None, ROOM));
        let mut third = Box::pin(turns.turn(&one, None, ROOM));
        assert!(waits(&mut second).await && waits(&mut third).await);
        assert!(turns.turn(&one, None, ROOM).await.is_none(), "the line is full");
        assert!(turns.turn(&other, None, ROOM).await.is_some());
        drop(first);
        drop(second.await.unwrap());
        drop(third);
        assert!(turns.0.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_for_the_same_have_one_turn() {
        let turns = Turns::default();
        let one = Principal::Subject("a".into());
        let first = turns.turn(&one, Some(1), ROOM).await.unwrap();
        let same = turns.turn(&one, Some(1), ROOM).await.unwrap();
        let mut another = Box::pin(turns.turn(&one, Some(2), ROOM));
        assert!(waits(&mut another).await);
        drop(first);
        assert!(waits(&mut another).await, "one of them still has it");
        drop(same);
        drop(another.await.unwrap());
        assert!(turns.0.lock().is_empty());
    }
}
