//! Which daemon should follow which chain: each follows as many as any other that could, or one more.
//!
//! All daemons see the same rows and come to the same plan. What is even stays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::chain::ChainName;

/// A daemon that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    /// The chains that it can follow.
    pub chains: BTreeSet<ChainName>,
}

/// The daemon that each chain should be followed by; a chain that nobody can follow has none. `held` says who
/// follows it now.
#[must_use]
pub fn plan<'a>(
    members: &'a [Member],
    held: &BTreeMap<ChainName, String>,
) -> BTreeMap<&'a ChainName, &'a str> {
    let mut plan = Plan { members, owners: BTreeMap::new() };
    let chains: BTreeSet<&ChainName> = members.iter().flat_map(|member| &member.chains).collect();
    let (followed, free): (Vec<&ChainName>, Vec<&ChainName>) =
        chains.into_iter().partition(|chain| plan.owner(held, chain).is_some());
    for chain in followed {
        if let Some(owner) = plan.owner(held, chain) {
            plan.owners.insert(chain, owner);
        }
    }
    for chain in free {
        let able = (0..members.len()).filter(|&at| members[at].chains.contains(chain));
        if let Some(idlest) = able.min_by_key(|&at| plan.load(at)) {
            plan.owners.insert(chain, idlest);
        }
    }
    while plan.improve() {}
    plan.owners.into_iter().map(|(chain, owner)| (chain, members[owner].id.as_str())).collect()
}

struct Plan<'a> {
    members: &'a [Member],
    /// By the members' places.
    owners: BTreeMap<&'a ChainName, usize>,
}

impl<'a> Plan<'a> {
    /// The member that follows a chain now, and can.
    fn owner(&self, held: &BTreeMap<ChainName, String>, chain: &ChainName) -> Option<usize> {
        let holder = held.get(chain)?;
        self.members.iter().position(|member| member.id == *holder && member.chains.contains(chain))
    }

    fn load(&self, member: usize) -> usize {
        self.owners.values().filter(|&&owner| owner == member).count()
    }

    /// Moves chains along the way from a member to the idlest that can be reached, if that has at least two fewer;
    /// `false` if there is none: then it is as even as can be.
    fn improve(&mut self) -> bool {
        let mut from: Vec<usize> = (0..self.members.len()).collect();
        from.sort_by_key(|&member| std::cmp::Reverse(self.load(member)));
        for member in from {
            if let Some(way) = self.way_from(member) {
                self.owners.extend(way);
                return true;
            }
        }
        false
    }

    /// The chains to move, and to whom. A member on the way passes one on for the one that it gets.
    fn way_from(&self, source: usize) -> Option<Vec<(&'a ChainName, usize)>> {
        let most = self.load(source).checked_sub(2)?;
        // How each member was reached: from whom, and with which chain.
        let mut reached: BTreeMap<usize, (usize, &'a ChainName)> = BTreeMap::new();
        let mut queue = VecDeque::from([source]);
        while let Some(at) = queue.pop_front() {
            for (&chain, _) in self.owners.iter().filter(|&(_, &owner)| owner == at) {
                for next in 0..self.members.len() {
                    let is_new = next != source && !reached.contains_key(&next);
                    if !is_new || !self.members[next].chains.contains(chain) {
                        continue;
                    }
                    reached.insert(next, (at, chain));
                    queue.push_back(next);
                }
            }
        }
        let idlest = reached.keys().copied().min_by_key(|&member| self.load(member))?;
        (self.load(idlest) <= most).then(|| way_to(&reached, source, idlest))
    }
}

fn way_to<'a>(
    reached: &BTreeMap<usize, (usize, &'a ChainName)>,
    source: usize,
    target: usize,
) -> Vec<(&'a ChainName, usize)> {
    let mut way = Vec::new();
    let mut to = target;
    while to != source {
        let Some(&(from, chain)) = reached.get(&to) else { break };
        way.push((chain, to));
        to = from;
    }
    way
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn name(number: usize) -> ChainName {
        ChainName::new(&format!("chain-{number}"))
    }

    fn member(id: usize, chains: impl IntoIterator<Item = usize>) -> Member {
        Member { id: format!("daemon-{id}"), chains: chains.into_iter().map(name).collect() }
    }

    /// How many chains each member has by a plan.
    fn loads(members: &[Member], plan: &BTreeMap<&ChainName, &str>) -> Vec<usize> {
        let load = |member: &Member| plan.values().filter(|&&id| id == member.id).count();
        members.iter().map(load).collect()
    }

    fn as_held(plan: &BTreeMap<&ChainName, &str>) -> BTreeMap<ChainName, String> {
        plan.iter().map(|(&chain, &id)| (chain.clone(), id.to_owned())).collect()
    }

    #[test]
    fn chains_are_shared_out_evenly_and_a_newcomer_gets_its_share() {
        let mut members = vec![member(0, 0..4), member(1, 0..4)];
        let first = plan(&members, &BTreeMap::new());
        assert_eq!(loads(&members, &first), [2, 2]);
        let held = as_held(&first);
        members.push(member(2, 0..4));
        let second = plan(&members, &held);
        assert_eq!(loads(&members, &second).iter().max(), Some(&2));
        assert_eq!(loads(&members, &second)[2], 1);
        let moved = second.iter().filter(|&(chain, id)| held[*chain] != *id).count();
        assert_eq!(moved, 1, "no more than must be moves");
    }

    #[test]
    fn a_pinned_daemon_is_made_room_for_by_way_of_another() {
        // The first holds what only it and the second can follow; the third can take only the second's.
        let members = [member(0, [0, 1, 2]), member(1, [0, 1, 2, 3]), member(2, [3])];
        let held = [(0, 0), (1, 0), (2, 0), (3, 1)];
        let held = held.map(|(chain, id)| (name(chain), format!("daemon-{id}"))).into();
        let plan = plan(&members, &held);
        assert_eq!(loads(&members, &plan), [2, 1, 1]);
    }

    #[test]
    fn nobody_follows_what_nobody_can() {
        let members = [member(0, []), member(1, [1])];
        let held = BTreeMap::from([(name(0), "daemon-0".to_owned()), (name(1), "gone".to_owned())]);
        let plan = plan(&members, &held);
        assert_eq!(as_held(&plan), BTreeMap::from([(name(1), "daemon-1".to_owned())]));
    }

    proptest! {
        #[test]
        fn every_chain_has_a_follower_that_can_and_what_is_even_stays(
            able in vec(vec(any::<bool>(), 8), 1..6),
            held in vec(0_usize..7, 8),
        ) {
            let chains_of = |row: &Vec<bool>| {
                row.iter().enumerate().filter(|&(_, &can)| can).map(|(chain, _)| chain).collect::<Vec<_>>()
            };
            let members: Vec<Member> =
                able.iter().enumerate().map(|(id, row)| member(id, chains_of(row))).collect();
            let held: BTreeMap<ChainName, String> =
                held.iter().enumerate().map(|(chain, id)| (name(chain), format!("daemon-{id}"))).collect();
            let planned = plan(&members, &held);
            for chain in (0..8).map(name) {
                let can = members.iter().any(|member| member.chains.contains(&chain));
                prop_assert_eq!(planned.contains_key(&chain), can);
            }
            for (&chain, &id) in &planned {
                let owner = members.iter().find(|member| member.id == id).expect("a member");
                prop_assert!(owner.chains.contains(chain));
                // Nobody who could follow it has two fewer.
                let load = |id: &str| planned.values().filter(|&&other| other == id).count();
                for other in members.iter().filter(|member| member.chains.contains(chain)) {
                    prop_assert!(load(&other.id) + 2 > load(id), "{} and {}", other.id, id);
                }
            }
            prop_assert_eq!(&plan(&members, &as_held(&planned)), &planned, "it stays");
            let able_for_all = members.iter().all(|member| member.chains.len() == 8);
            if able_for_all {
                let loads = loads(&members, &planned);
                prop_assert!(loads.iter().max() <= loads.iter().min().map(|least| least + 1).as_ref());
            }
        }
    }
}
