//! The open sockets, by address: who may have one more, and who must give one up for it.
//!
//! A socket is in one of three phases: *new* until its first request was read, *busy* while one is
//! answered or a session lives on it, and *idle* between requests. The registry is synchronous; a
//! socket that is cut learns it from [`Socket::cut`]. Busy sockets are never cut.
//!
//! - An address with as many new sockets as one may have loses its oldest new one for another.
//! - When all places for new sockets are taken, the address with the most loses its oldest.
//! - An address with as many sockets as one may have loses an idle one, else a new one; if all
//!   are busy, the newcomer is turned away.
//! - When all descriptors are used, idle sockets go first, then new ones, of the addresses with the
//!   most.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;
use tidewire::budget::Network;
use tokio::sync::Notify;

/// Idle sockets that are cut at once when all descriptors are used, as a part of all: finding them
/// looks at every socket, which must not happen for each newcomer.
const CUT_PART: usize = 64;

/// How many sockets there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// In all.
    pub(super) all: usize,
    /// Of one address.
    pub(super) each: usize,
    /// Without a request yet.
    pub(super) new: usize,
    /// Of one address without a request yet.
    pub(super) each_new: usize,
}

/// What a socket does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    New,
    Busy,
    Idle,
}

/// An open socket.
#[derive(Debug)]
pub(super) struct Socket {
    phase: AtomicU8,
    cut: Notify,
}

/// A socket's place in the registry, which it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketPlace {
    sockets: Sockets,
    id: u64,
    network: Network,
    socket: Arc<Socket>,
}

/// Why a socket was cut, or a newcomer turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Too many of the address, or in all.
    Sockets,
    /// Too many without a request.
    New,
}

/// What became of a newcomer.
pub(super) struct Entered {
    /// Its place, unless it is turned away.
    pub(super) place: Option<SocketPlace>,
    /// Whose sockets had to go, and why.
    pub(super) over: Vec<(Network, Over)>,
}

/// All open sockets; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    count: usize,
    networks: HashMap<Network, Held>,
    new: usize,
    /// Addresses by how many new sockets they have.
    most_new: BTreeSet<(usize, Network)>,
}

/// The sockets of one address, oldest first.
#[derive(Debug, Default)]
struct Held {
    all: BTreeMap<u64, Arc<Socket>>,
    new: BTreeSet<u64>,
    /// Sockets that do not count here: those of authenticated sessions.
    authenticated: BTreeSet<u64>,
}

impl Sockets {
    /// Takes in a socket of an address; one `of_proxy` is bounded with all others only.
    pub(super) fn enter(&self, network: Network, of_proxy: bool, bounds: &Bounds) -> Entered {
        let mut state = self.0.lock();
        let mut over = Vec::new();
        let is_in = (of_proxy || state.has_room_of(network, bounds, &mut over))
            && state.has_room(bounds, &mut over);
        if !is_in {
            over.push((network, Over::Sockets));
            return Entered { place: None, over };
        }
        if !of_proxy && state.new_of(network) >= bounds.each_new {
            state.cut_new(network);
            over.push((network, Over::New));
        }
        if state.new >= bounds.new
            && let Some((_, most)) = state.most_new.last().copied()
        {
            state.cut_new(most);
            over.push((most, Over::New));
        }
        let (id, socket) = state.add(network);
        let place = SocketPlace { sockets: self.clone(), id, network, socket };
        Entered { place: Some(place), over }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().count
    }
}

impl State {
    fn add(&mut self, network: Network) -> (u64, Arc<Socket>) {
        let (id, phase) = (self.next, AtomicU8::new(Phase::New as u8));
        let socket = Arc::new(Socket { phase, cut: Notify::new() });
        self.next += 1;
        self.count += 1;
        self.networks.entry(network).or_default().all.insert(id, Arc::clone(&socket));
        self.note_new(network, |new| new.insert(id));
        (id, socket)
    }

    fn new_of(&self, network: Network) -> usize {
        self.networks.get(&network).map_or(0, |held| held.new.len())
    }

    /// Changes which of an address's sockets are new.
    fn note_new(&mut self, network: Network, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let Some(held) = self.networks.get_mut(&network) else { return };
        let before = held.new.len();
        change(&mut held.new);
        let after = held.new.len();
        self.new = self.new + after - before;
        self.most_new.remove(&(before, network));
        if after > 0 {
            self.most_new.insert((after, network));
        }
    }

    /// Whether the address may have one more, for which one of its own may be cut.
    fn has_room_of(
        &mut self,
        network: Network,
        bounds: &Bounds,
        over: &mut Vec<(Network, Over)>,
    ) -> bool {
        let Some(held) = self.networks.get(&network) else { return true };
        if held.all.len() - held.authenticated.len() < bounds.each {
            return true;
        }
        let idle = held.all.iter().find(|(_, socket)| socket.is(Phase::Idle)).map(|(id, _)| *id);
        let Some(id) = idle.or_else(|| held.new.first().copied()) else { return false };
        self.cut(network, id);
        over.push((network, Over::Sockets));
        true
    }

    /// Whether there may be one more in all, for which others may be cut.
    fn has_room(&mut self, bounds: &Bounds, over: &mut Vec<(Network, Over)>) -> bool {
        if self.count < bounds.all {
            return true;
        }
        self.cut_idle((bounds.all / CUT_PART).max(1), over);
        if self.count >= bounds.all
            && let Some((_, most)) = self.most_new.last().copied()
        {
            self.cut_new(most);
            over.push((most, Over::New));
        }
        self.count < bounds.all
    }

    /// Cuts so many idle sockets, of the addresses with the most of them, oldest first.
    fn cut_idle(&mut self, count: usize, over: &mut Vec<(Network, Over)>) {
        let idle = self.networks.iter().map(|(network, held)| {
            let idle = held.all.iter().filter(|(_, socket)| socket.is(Phase::Idle));
            (*network, idle.map(|(id, _)| *id).collect::<Vec<_>>())
        });
        let mut idle: Vec<_> = idle.filter(|(_, ids)| !ids.is_empty()).collect();
        // Taken from the largest until it is as small as the next: by how many others the address
        // has that are newer.
        let ranked = idle.iter_mut().flat_map(|(network, ids)| {
            let most = ids.len();
            ids.iter().enumerate().map(move |(place, id)| (most - place, *id, *network))
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_unstable_by_key(|(rank, id, _)| (std::cmp::Reverse(*rank), *id));
        for (_, id, network) in ranked.into_iter().take(count) {
            self.cut(network, id);
            over.push((network, Over::Sockets));
        }
    }

    fn cut_new(&mut self, network: Network) {
        let oldest = self.networks.get(&network).and_then(|held| held.new.first().copied());
        if let Some(id) = oldest {
            self.cut(network, id);
        }
    }

    fn cut(&mut self, network: Network, id: u64) {
        if let Some(socket) = self.remove(network, id) {
            socket.cut.notify_one();
        }
    }

    fn remove(&mut self, network: Network, id: u64) -> Option<Arc<Socket>> {
        self.note_new(network, |new| new.remove(&id));
        let held = self.networks.get_mut(&network)?;
        let socket = held.all.remove(&id)?;
        held.authenticated.remove(&id);
        self.count -= 1;
        if held.all.is_empty() {
            self.networks.remove(&network);
        }
        Some(socket)
    }
}

impl Socket {
    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }
}

impl SocketPlace {
    /// A request came.
    pub(super) fn begin_request(&self) {
        let before = self.socket.phase.swap(Phase::Busy as u8, Ordering::Relaxed);
        if before == Phase::New as u8 {
            self.sockets.0.lock().note_new(self.network, |new| new.remove(&self.id));
        }
    }

    /// The last request was answered.
    pub(super) fn end_request(&self) {
        let (busy, idle) = (Phase::Busy as u8, Phase::Idle as u8);
        let phase = &self.socket.phase;
        let _ = phase.compare_exchange(busy, idle, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether no request came yet.
    pub(super) fn is_new(&self) -> bool {
        self.socket.is(Phase::New)
    }

    /// The session on it is authenticated: it counts for its subject, and its address no more.
    pub(crate) fn authenticated(&self) {
        let mut state = self.sockets.0.lock();
        if let Some(held) = state.networks.get_mut(&self.network)
            && held.all.contains_key(&self.id)
        {
            held.authenticated.insert(self.id);
        }
    }

    /// Ends when the socket must go for another.
    pub(super) async fn cut(&self) {
        self.socket.cut.notified().await;
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        self.sockets.0.lock().remove(self.network, self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { all: 10, each: 6, new: 4, each_new: 3 };

    fn network(number: u8) -> Network {
        Network::of([192, 0, 2, number].into())
    }

    fn enter(sockets: &Sockets, number: u8) -> Option<SocketPlace> {
        sockets.enter(network(number), false, &BOUNDS).place
    }

    fn is_cut(place: &SocketPlace) -> bool {
        place.cut().now_or_never().is_some()
    }

    #[test]
    fn silent_sockets_of_one_address_make_place_for_its_own_and_for_others() {
        let sockets = Sockets::default();
        let silent: Vec<_> = (0..4).map(|_| enter(&sockets, 1).unwrap()).collect();
        assert!(is_cut(&silent[0]) && !is_cut(&silent[1]), "the oldest of three is cut");
        let others: Vec<_> = (0..2).map(|_| enter(&sockets, 2).unwrap()).collect();
        assert!(is_cut(&silent[1]), "the address with the most loses its oldest");
        assert!(!others.iter().any(is_cut));
    }

    #[test]
    fn idle_sockets_go_before_new_ones_and_busy_ones_never() {
        let sockets = Sockets::default();
        let asked = |number| {
            let place = enter(&sockets, number).unwrap();
            place.begin_request();
            place
        };
        let held: Vec<_> = (0..6).map(|_| asked(1)).collect();
        assert!(enter(&sockets, 1).is_none(), "all are busy");
        held[3].end_request();
        let seventh = asked(1);
        assert!(is_cut(&held[3]));
        let mut others: Vec<_> = (2..6).map(asked).collect();
        assert_eq!(sockets.len(), BOUNDS.all);
        assert!(enter(&sockets, 9).is_none(), "all are busy");
        for place in [&held[1], &held[2], &others[0]] {
            place.end_request();
        }
        others.push(asked(9));
        assert!(is_cut(&held[1]), "of the address with the most idle ones");
        seventh.authenticated();
        assert_eq!(others.iter().filter(|place| is_cut(place)).count(), 0);
    }

    #[test]
    fn sockets_of_authenticated_sessions_do_not_count_for_their_address() {
        let sockets = Sockets::default();
        let held: Vec<_> = (0..8)
            .map(|_| {
                let place = enter(&sockets, 1).unwrap();
                place.begin_request();
                place.authenticated();
                place
            })
            .collect();
        assert_eq!(held.iter().filter(|place| is_cut(place)).count(), 0);
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_allowed_and_none_is_left(
            steps in prop::collection::vec((0u8..5, 0u8..3), 0..80),
        ) {
            let sockets = Sockets::default();
            let mut held: Vec<SocketPlace> = Vec::new();
            for (step, who) in steps {
                match (step, held.last()) {
                    (0 | 1, _) => held.extend(enter(&sockets, who)),
                    (2, Some(last)) => last.begin_request(),
                    (3, Some(last)) => last.end_request(),
                    _ => drop(held.pop()),
                }
                // One that was cut ends soon.
                held.retain(|place| !is_cut(place));
                let state = sockets.0.lock();
                prop_assert_eq!(state.count, held.len());
                prop_assert!(state.count <= BOUNDS.all && state.new <= BOUNDS.new);
                prop_assert_eq!(state.new, held.iter().filter(|place| place.is_new()).count());
            }
            held.clear();
            let state = sockets.0.lock();
            prop_assert!(state.networks.is_empty() && state.most_new.is_empty() && state.new == 0);
        }
    }
}
