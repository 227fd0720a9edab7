//! Something of which every principal may hold so much, and all together so much.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Principal;

/// How much may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// By one principal.
    pub each: usize,
    /// By all together.
    pub all: usize,
    /// By all together that are not authenticated, so that the rest is kept for those who are.
    pub unauthenticated: usize,
}

/// Who holds as much as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The principal itself.
    Principal,
    /// All principals together, or all that are not authenticated.
    All,
}

/// What is held, by principal; cheap to clone. A principal that holds nothing takes no memory.
#[derive(Clone, Debug, Default)]
pub struct Shares(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    held: HashMap<Principal, usize>,
    all: usize,
    unauthenticated: usize,
}

/// What one principal holds, until it is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    principal: Principal,
    amount: usize,
}

impl Shares {
    /// Takes so much for a principal; nothing is taken when it is refused.
    ///
    /// # Errors
    /// Who holds as much as it may.
    pub fn take(
        &self,
        principal: &Principal,
        amount: usize,
        allowance: &Allowance,
    ) -> Result<Share, Full> {
        self.0.lock().add(principal, amount, allowance)?;
        Ok(Share { shares: self.clone(), principal: principal.clone(), amount })
    }

    /// What all hold together.
    pub fn total(&self) -> usize {
        self.0.lock().all
    }
}

impl State {
    fn add(
        &mut self,
        principal: &Principal,
        amount: usize,
        allowance: &Allowance,
    ) -> Result<(), Full> {
        if self.all + amount > allowance.all {
            return Err(Full::All);
        }
        if let Principal::Network(_) = principal
            && self.unauthenticated + amount > allowance.unauthenticated
        {
            return Err(Full::All);
        }
        // Without authentication there is nobody to tell apart.
        if *principal != Principal::Local {
            let held = self.held.get(principal).copied().unwrap_or(0);
            if held + amount > allowance.each {
                return Err(Full::Principal);
            }
            self.held.insert(principal.clone(), held + amount);
        }
        self.all += amount;
        self.unauthenticated += unauthenticated(principal, amount);
        Ok(())
    }

    fn remove(&mut self, principal: &Principal, amount: usize) {
        self.all -= amount;
        self.unauthenticated -= unauthenticated(principal, amount);
        if let Some(held) = self.held.get_mut(principal) {
            *held -= amount;
            if *held == 0 {
                self.held.remove(principal);
            }
        }
    }
}

fn unauthenticated(principal: &Principal, amount: usize) -> usize {
    if let Principal::Network(_) = principal { amount } else { 0 }
}

impl Share {
    /// Who holds it.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Takes so much more; nothing is taken when it is refused.
    ///
    /// # Errors
    /// Who holds as much as it may.
    pub fn grow(&mut self, amount: usize, allowance: &Allowance) -> Result<(), Full> {
        self.shares.0.lock().add(&self.principal, amount, allowance)?;
        self.amount += amount;
        Ok(())
    }

    /// Gives the share to the principal that the holder turned out to be; when that one may not
    /// have so much more, everything stays as it is.
    ///
    /// # Errors
    /// Who holds as much as it may.
    pub fn pass_to(&mut self, principal: &Principal, allowance: &Allowance) -> Result<(), Full> {
        if self.principal == *principal {
            return Ok(());
        }
        let mut state = self.shares.0.lock();
        state.remove(&self.principal, self.amount);
        if let Err(full) = state.add(principal, self.amount, allowance) {
            let back = Allowance { each: usize::MAX, all: usize::MAX, unauthenticated: usize::MAX };
            state.add(&self.principal, self.amount, &back).expect("it was there before");
            return Err(full);
        }
        drop(state);
        self.principal = principal.clone();
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.0.lock().remove(&self.principal, self.amount);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALLOWANCE: Allowance = Allowance { each: 3, all: 8, unauthenticated: 4 };

    fn network(number: u8) -> Principal {
        Principal::at(Some([192, 0, 2, number].into()))
    }

    fn subject(name: &str) -> Principal {
        Principal::Subject(name.into())
    }

    #[test]
    fn one_principal_and_all_without_a_token_leave_room_for_others() {
        let shares = Shares::default();
        let take = |principal: &Principal| shares.take(principal, 1, &ALLOWANCE);
        let held: Vec<_> = (0..3).map(|_| take(&network(1)).unwrap()).collect();
        assert_eq!(take(&network(1)).unwrap_err(), Full::Principal);
        let other = take(&network(2)).unwrap();
        assert_eq!(take(&network(3)).unwrap_err(), Full::All, "half is kept for the authenticated");
        let authenticated = take(&subject("a")).unwrap();
        drop(held);
        assert!(take(&network(1)).is_ok());
        drop((other, authenticated));
        assert_eq!(shares.total(), 0);
        assert!(shares.0.lock().held.is_empty());
    }

    #[test]
    fn a_share_is_passed_on_whole_or_not_at_all() {
        let shares = Shares::default();
        let mut first = shares.take(&network(1), 2, &ALLOWANCE).unwrap();
        let _second = shares.take(&subject("a"), 2, &ALLOWANCE).unwrap();
        assert_eq!(first.pass_to(&subject("a"), &ALLOWANCE), Err(Full::Principal));
        assert_eq!(*first.principal(), network(1));
        assert_eq!(shares.0.lock().unauthenticated, 2);
        first.pass_to(&subject("b"), &ALLOWANCE).unwrap();
        assert_eq!(shares.0.lock().unauthenticated, 0);
        assert_eq!(first.grow(2, &ALLOWANCE), Err(Full::Principal));
        first.grow(1, &ALLOWANCE).unwrap();
        assert_eq!(shares.total(), 5);
    }

    proptest! {
        #[test]
        fn what_is_held_is_never_more_than_allowed_and_ends_at_nothing(
            steps in prop::collection::vec((0u8..4, 0u8..4, 0usize..3), 0..60),
        ) {
            let shares = Shares::default();
            let mut held: Vec<Share> = Vec::new();
            for (kind, who, amount) in steps {
                let principal = if who < 2 { network(who) } else { subject(&who.to_string()) };
                match kind {
                    0 => drop(held.pop()),
                    1 => held.extend(shares.take(&principal, amount, &ALLOWANCE)),
                    2 => if let Some(share) = held.last_mut() {
                        let _ = share.grow(amount, &ALLOWANCE);
                    },
                    _ => if let Some(share) = held.last_mut() {
                        let _ = share.pass_to(&principal, &ALLOWANCE);
                    },
                }
                let state = shares.0.lock();
                prop_assert!(state.all <= ALLOWANCE.all);
                prop_assert!(state.unauthenticated <= ALLOWANCE.unauthenticated);
                prop_assert!(state.held.values().all(|&held| held <= ALLOWANCE.each));
                prop_assert_eq!(state.all, held.iter().map(|share| share.amount).sum::<usize>());
            }
            drop(held);
            prop_assert_eq!(shares.total(), 0);
        }
    }
}
