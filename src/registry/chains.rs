//! Which chains watch the addresses of one page.

/// One bit per chain.
pub type Mask = u32;

/// One bit per position in a page.
type Positions = u128;

/// How many positions a page has at most.
pub const POSITIONS: usize = Positions::BITS as usize;

/// For each position of a page, the chains that watch the address there.
///
/// Most wallets are watched on the same chains, so one mask does for the whole page. A chain that watches
/// only some of its addresses has a bit for each position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    /// The chains that watch every position.
    all: Mask,
    /// The chains that watch some positions but not all, each once.
    some: Vec<(Mask, Positions)>,
}

/// The first `len` positions.
fn first(len: usize) -> Positions {
    if len >= POSITIONS { Positions::MAX } else { (1 << len) - 1 }
}

/// The positions from `at` on move up by one, and the one that opens is empty.
fn open(set: Positions, at: usize) -> Positions {
    let below = set & first(at);
    below | ((set & !first(at)) << 1)
}

/// The position `at` is dropped, and those above move down by one.
fn close(set: Positions, at: usize) -> Positions {
    let below = set & first(at);
    below | ((set >> 1) & !first(at))
}

impl Chains {
    /// Every position is watched on `chain` alone.
    pub fn only(chain: Mask) -> Self {
        Self { all: chain, some: Vec::new() }
    }

    pub fn has(&self, at: usize, chain: Mask) -> bool {
        self.all & chain != 0
            || self.some.iter().any(|(one, set)| one & chain != 0 && (set >> at) & 1 == 1)
    }

    /// Whether any chain watches the position.
    pub fn any(&self, at: usize) -> bool {
        self.has(at, Mask::MAX)
    }

    /// Puts a new position in before `at`, watched on `chain` alone. There were `len` before.
    pub fn insert(&mut self, at: usize, chain: Mask, len: usize) {
        if *self == Self::only(chain) {
            return;
        }
        self.spread(len);
        for (_, set) in &mut self.some {
            *set = open(*set, at);
        }
        self.mark(at, chain);
        self.gather(len + 1);
    }

    /// Watches a position on one more chain; `false` if it was already.
    pub fn set(&mut self, at: usize, chain: Mask, len: usize) -> bool {
        if self.has(at, chain) {
            return false;
        }
        self.mark(at, chain);
        self.gather(len);
        true
    }

    /// Watches a position on one chain less; `false` if it was not watched there.
    pub fn clear(&mut self, at: usize, chain: Mask, len: usize) -> bool {
        if !self.has(at, chain) {
            return false;
        }
        self.spread(len);
        for (one, set) in &mut self.some {
            if *one == chain {
                *set &= !(1 << at);
            }
        }
        self.gather(len);
        true
    }

    /// Watches no position on `chain` any more; gives those of `len` that no other chain watches.
    pub fn forget(&mut self, chain: Mask, len: usize) -> Vec<usize> {
        self.all &= !chain;
        self.some.retain(|(one, _)| *one != chain);
        if self.all != 0 {
            return Vec::new();
        }
        let watched = self.some.iter().fold(0, |all, (_, set)| all | set);
        (0..len).filter(|at| (watched >> at) & 1 == 0).collect()
    }

    /// Drops a position. There were `len` before.
    pub fn remove(&mut self, at: usize, len: usize) {
        self.spread(len);
        for (_, set) in &mut self.some {
            *set = close(*set, at);
        }
        self.gather(len - 1);
    }

    /// Keeps the positions below `at` and gives those from there on. There were `len` before.
    pub fn split_off(&mut self, at: usize, len: usize) -> Self {
        let mut upper = self.clone();
        for (_, set) in &mut upper.some {
            *set >>= at;
        }
        upper.gather(len - at);
        for (_, set) in &mut self.some {
            *set &= first(at);
        }
        self.gather(at);
        upper
    }

    fn mark(&mut self, at: usize, chain: Mask) {
        match self.some.iter_mut().find(|(one, _)| *one == chain) {
            Some((_, set)) => *set |= 1 << at,
            None => self.some.push((chain, 1 << at)),
        }
    }

    /// Writes out by position what is said for all.
    fn spread(&mut self, len: usize) {
        while self.all != 0 {
            let chain = 1 << self.all.trailing_zeros();
            self.all &= !chain;
            self.some.push((chain, first(len)));
        }
    }

    /// Says for all what holds for all, and forgets chains that watch no position.
    fn gather(&mut self, len: usize) {
        let all = &mut self.all;
        self.some.retain(|(chain, set)| {
            if *set == first(len) {
                *all |= chain;
            }
            *set != first(len) && *set != 0
        });
        if self.some.is_empty() {
            self.some.shrink_to_fit();
        }
    }
}

#[cfg(test)]
impl Chains {
    /// What it has taken of memory beside itself.
    pub fn bytes(&self) -> usize {
        self.some.capacity() * size_of::<(Mask, Positions)>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHAINS: [Mask; 3] = [1, 1 << 7, 1 << 31];

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, usize),
        Set(usize, usize),
        Clear(usize, usize),
        Remove(usize),
        Split(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = any::<prop::sample::Index>().prop_map(|index| index.index(POSITIONS));
        let chain = 0..CHAINS.len();
        prop_oneof![
            4 => (at.clone(), chain.clone()).prop_map(|(at, chain)| Step::Insert(at, chain)),
            3 => (at.clone(), chain.clone()).prop_map(|(at, chain)| Step::Set(at, chain)),
            2 => (at.clone(), chain).prop_map(|(at, chain)| Step::Clear(at, chain)),
            1 => at.clone().prop_map(Step::Remove),
            1 => at.prop_map(Step::Split),
        ]
    }

    proptest! {
        #[test]
        fn each_position_keeps_its_own_chains(steps in prop::collection::vec(step(), 1..400)) {
            let mut model: Vec<Mask> = Vec::new();
            let mut chains = Chains::default();
            for step in steps {
                let len = model.len();
                match step {
                    Step::Insert(at, chain) if len < POSITIONS => {
                        let at = at % (len + 1);
                        chains.insert(at, CHAINS[chain], len);
                        model.insert(at, CHAINS[chain]);
                    }
                    Step::Set(at, chain) if len > 0 => {
                        let (at, chain) = (at % len, CHAINS[chain]);
                        prop_assert_eq!(chains.set(at, chain, len), model[at] & chain == 0);
                        model[at] |= chain;
                    }
                    Step::Clear(at, chain) if len > 0 => {
                        let (at, chain) = (at % len, CHAINS[chain]);
                        prop_assert_eq!(chains.clear(at, chain, len), model[at] & chain != 0);
                        model[at] &= !chain;
                    }
                    Step::Remove(at) if len > 0 => {
                        chains.remove(at % len, len);
                        model.remove(at % len);
                    }
                    Step::Split(at) if len > 1 => {
                        let at = 1 + at % (len - 1);
                        let upper = chains.split_off(at, len);
                        for (position, mask) in model.split_off(at).into_iter().enumerate() {
                            for chain in CHAINS {
                                prop_assert_eq!(upper.has(position, chain), mask & chain != 0);
                            }
                        }
                    }
                    _ => {}
                }
                for (position, mask) in model.iter().enumerate() {
                    prop_assert_eq!(chains.any(position), *mask != 0);
                    for chain in CHAINS {
                        prop_assert_eq!(chains.has(position, chain), mask & chain != 0);
                    }
                }
            }
        }
    }
}
