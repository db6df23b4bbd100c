//! Whom the sweep looks at next, and what it may spend.
//!
//! Three walks share the budget: over the wallets that were found wrong lately, over those that hold money, and over
//! everybody. Of each four pages one is for everybody; what the first two leave is theirs as well.

use std::collections::VecDeque;

use crate::{
    clock::{Clock, Millis},
    model::{AssetNo, WalletNo},
    store::watch::Watched,
};

/// Addresses looked at in one go at most.
pub(super) const PAGE: u64 = 100;
/// What one address costs; a budget of N addresses per minute earns N each millisecond.
const COST: u64 = 60_000;
/// Wallets that are remembered as wrong.
const SUSPECTS: usize = 1_000;
/// How long a suspect rests before it is looked at again, in milliseconds.
const REST: i64 = 10 * 60 * 1_000;
/// One page for everybody among so many.
const TURNS: u64 = 4;
/// In one round among so many, everybody is asked for tokens that they never had, too.
const FULL_ROUNDS: u64 = 4;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Those that were wrong.
    Suspects,
    Holders,
    Everybody,
}

/// How far the walks are, and what they may spend.
#[derive(Debug)]
pub(super) struct Walk {
    per_minute: u64,
    saved: u64,
    since: Option<Millis>,
    turn: u64,
    /// Behind which balance the walk over the holders goes on.
    pub holder: (WalletNo, AssetNo),
    /// Behind whom the walk over everybody goes on.
    pub after: Option<Watched>,
    /// How often everybody was looked at.
    rounds: u64,
    suspects: VecDeque<(WalletNo, Option<Millis>)>,
}

impl Walk {
    pub fn new(per_minute: u64) -> Self {
        Self {
            per_minute,
            saved: 0,
            since: None,
            turn: 0,
            holder: (WalletNo(0), AssetNo(0)),
            after: None,
            rounds: 0,
            suspects: VecDeque::new(),
        }
    }

    /// How many addresses are due. What a long catch-up has saved is not made up for.
    pub fn due(&mut self, now: Millis) -> u64 {
        let since = self.since.replace(now).unwrap_or(now);
        let elapsed = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(self.per_minute);
        self.saved = self.saved.saturating_add(earned).min(PAGE * COST);
        self.saved / COST
    }

    /// Whether an address is due already.
    pub fn rich(&self) -> bool {
        self.saved >= COST
    }

    pub fn spend(&mut self, addresses: u64) {
        self.saved = self.saved.saturating_sub(addresses.saturating_mul(COST));
    }

    /// Whose page is next.
    pub fn lane(&mut self, clock: &Clock) -> Lane {
        self.turn += 1;
        if self.turn.is_multiple_of(TURNS) {
            return Lane::Everybody;
        }
        let rested = |at: Option<Millis>| at.is_none_or(|at| clock.now().0 - at.0 >= REST);
        match self.suspects.front() {
            Some((_, at)) if rested(*at) => Lane::Suspects,
            _ => Lane::Holders,
        }
    }

    /// A wallet was wrong: it is looked at sooner than others.
    pub fn suspect(&mut self, wallet: WalletNo, now: Millis) {
        self.suspects.retain(|(known, _)| *known != wallet);
        if self.suspects.len() >= SUSPECTS {
            self.suspects.pop_front();
        }
        self.suspects.push_back((wallet, Some(now)));
    }

    /// The suspects that have rested longest. They rest from now on.
    pub fn suspects(&mut self, limit: u64, now: Millis) -> Vec<WalletNo> {
        let rested = |at: Option<Millis>| at.is_none_or(|at| now.0 - at.0 >= REST);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        while taken.len() < limit && self.suspects.front().is_some_and(|(_, at)| rested(*at)) {
            let Some((wallet, _)) = self.suspects.pop_front() else { break };
            taken.push(wallet);
        }
        self.suspects.extend(taken.iter().map(|wallet| (*wallet, Some(now))));
        taken
    }

    /// Everybody was looked at once more.
    pub fn came_round(&mut self) {
        self.rounds += 1;
        self.after = None;
    }

    /// Whether everybody is asked for every token in this round.
    pub fn is_full(&self) -> bool {
        self.rounds.is_multiple_of(FULL_ROUNDS)
    }

    /// How long a round over so many addresses takes at most, in seconds; 0 for a walk that stands still.
    pub fn round_seconds(&self, addresses: usize) -> u64 {
        let addresses = u64::try_from(addresses).unwrap_or(u64::MAX);
        let seconds = addresses.saturating_mul(60).saturating_mul(TURNS);
        seconds.checked_div(self.per_minute).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: i64) -> Millis {
        Millis(1_768_469_400_000 + seconds * 1000)
    }

    #[test]
    fn the_budget_is_earned_by_the_minute_and_saved_for_one_page_only() {
        let mut walk = Walk::new(30);
        assert_eq!(walk.due(after(0)), 0, "nothing is due at the start");
        assert_eq!(walk.due(after(1)), 0);
        assert_eq!(walk.due(after(5)), 2);
        walk.spend(2);
        assert_eq!(walk.due(after(5)), 0);
        assert_eq!(walk.due(after(7)), 1, "the half address of before is not lost");
        assert_eq!(walk.due(after(3)), 1, "a clock that is set back earns nothing");
        assert_eq!(walk.due(after(100_000)), PAGE);
    }

    #[test]
    fn a_budget_of_nothing_is_never_due() {
        let mut walk = Walk::new(0);
        assert_eq!(walk.due(after(0)), 0);
        assert_eq!(walk.due(after(1_000_000)), 0);
        assert_eq!(walk.round_seconds(1_000_000), 0);
    }

    #[test]
    fn everybody_has_one_page_in_four_and_suspects_come_before_holders_when_they_have_rested() {
        let clock = Clock::manual(after(0));
        let mut walk = Walk::new(60);
        let lanes: Vec<Lane> = (0..4).map(|_| walk.lane(&clock)).collect();
        assert_eq!(lanes, [Lane::Holders, Lane::Holders, Lane::Holders, Lane::Everybody]);
        walk.suspect(WalletNo(7), clock.now());
        assert_eq!(walk.lane(&clock), Lane::Holders, "it was just looked at");
        clock.set(after(700));
        assert_eq!(walk.lane(&clock), Lane::Suspects);
        assert_eq!(walk.suspects(10, clock.now()), [WalletNo(7)]);
        assert!(walk.suspects(10, clock.now()).is_empty());
        for wallet in 0..5_000 {
            walk.suspect(WalletNo(wallet), clock.now());
        }
        assert_eq!(walk.suspects.len(), SUSPECTS);
        assert_eq!(walk.round_seconds(900), 3600, "900 addresses, one page in four, 60 a minute");
    }
}
