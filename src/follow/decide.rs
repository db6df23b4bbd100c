//! What to do next, decided over plain values.

use std::time::Duration;

use crate::{
    chain::{BlockRef, Header},
    model::BlockPoint,
};

/// Where the node's head stands to what was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Nothing to do.
    Same,
    /// The head is the child of what was applied.
    Child,
    /// The head is higher; what lies between is not known.
    Ahead,
    /// The head is at or below what was applied: a lagging node, or another branch.
    Behind,
}

/// Compares the node's head with the newest applied block.
#[must_use]
pub fn relate(applied: &BlockRef, head: &Header) -> Relation {
    if head.at == *applied {
        Relation::Same
    } else if head.at.number <= applied.number {
        Relation::Behind
    } else if head.parent == *applied {
        Relation::Child
    } else {
        Relation::Ahead
    }
}

/// Whether `headers` are a chain that continues `from`; at the first that is not, its index.
pub fn links<'a>(
    from: &BlockRef,
    headers: impl IntoIterator<Item = &'a Header>,
) -> Result<(), usize> {
    let mut parent = *from;
    for (index, header) in headers.into_iter().enumerate() {
        if header.parent != parent || header.at.number <= parent.number {
            return Err(index);
        }
        parent = header.at;
    }
    Ok(())
}

/// What a node's word about settlement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleStep {
    /// Nothing new, or older than what settled already: final never moves back.
    Stay,
    /// Settle up to this block.
    Advance(BlockPoint),
    /// The node calls another block settled than we applied at that height: look for a reorg.
    OtherBranch,
    /// The node calls another block settled than we settled at that height: nobody may go on.
    Contradiction { number: u64 },
}

/// Judges the block that a node calls settled. `ours` is the applied block at or below its height.
#[must_use]
pub fn settle_step(
    settled: &BlockPoint,
    applied: &BlockPoint,
    said: &BlockPoint,
    ours: Option<&BlockPoint>,
) -> SettleStep {
    if said.at.number == settled.at.number && said.at.hash != settled.at.hash {
        return SettleStep::Contradiction { number: said.at.number };
    }
    if said.at.number <= settled.at.number {
        return SettleStep::Stay;
    }
    // A node that is ahead of us speaks of blocks that we have not applied: the next turn tells.
    if said.at.number > applied.at.number {
        return SettleStep::Stay;
    }
    match ours {
        Some(block) if block.at == said.at => SettleStep::Advance(*block),
        Some(block) if block.at.number == said.at.number => SettleStep::OtherBranch,
        Some(_) | None => SettleStep::Stay,
    }
}

/// How many requests to keep in flight: one more while latency holds, half on trouble.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    size: usize,
    max: usize,
    best: Option<Duration>,
}

impl Window {
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { size: 2.min(max), max, best: None }
    }

    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// An answer came after `latency`.
    pub fn answered(&mut self, latency: Duration) {
        let best = self.best.map_or(latency, |best| best.min(latency));
        self.best = Some(best);
        if latency <= best.saturating_mul(3) {
            self.size = (self.size + 1).min(self.max);
        } else {
            self.size = (self.size - 1).max(1);
        }
    }

    /// Answers wait to be taken: as many at once are not needed, and each takes memory.
    pub fn unneeded(&mut self) {
        if self.size > 2 {
            self.size -= 1;
        }
    }

    /// A request failed.
    pub fn failed(&mut self) {
        self.size = (self.size / 2).max(1);
        self.best = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chain::BlockHash, clock::Millis};

    fn at(number: u64, branch: u8) -> BlockRef {
        let mut hash = [branch; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        BlockRef { number, hash: BlockHash(hash) }
    }

    fn header(number: u64, branch: u8) -> Header {
        Header { at: at(number, branch), parent: at(number - 1, branch), time: number }
    }

    fn point(number: u64, branch: u8) -> BlockPoint {
        BlockPoint { at: at(number, branch), time: Millis(0) }
    }

    #[test]
    fn a_head_is_the_child_or_ahead_or_behind_by_hash_not_by_number() {
        assert_eq!(relate(&at(5, 0), &header(5, 0)), Relation::Same);
        assert_eq!(relate(&at(5, 0), &header(6, 0)), Relation::Child);
        assert_eq!(relate(&at(5, 0), &header(6, 1)), Relation::Ahead);
        assert_eq!(relate(&at(5, 0), &header(7, 0)), Relation::Ahead);
        assert_eq!(relate(&at(5, 0), &header(5, 1)), Relation::Behind);
        assert_eq!(relate(&at(5, 0), &header(3, 0)), Relation::Behind);
    }

    #[test]
    fn a_gap_a_fork_and_a_repeated_block_do_not_link() {
        let run = [header(6, 0), header(7, 0)];
        assert_eq!(links(&at(5, 0), &run), Ok(()));
        assert_eq!(links(&at(5, 1), &run), Err(0));
        assert_eq!(links(&at(5, 0), &[header(6, 0), header(8, 0)]), Err(1));
        assert_eq!(links(&at(5, 0), &[header(6, 0), header(6, 0)]), Err(1));
        // Skipped slots link by the parent's own number.
        let skipping = Header { at: at(9, 0), parent: at(5, 0), time: 0 };
        assert_eq!(links(&at(5, 0), &[skipping]), Ok(()));
    }

    #[test]
    fn final_never_moves_back_and_must_be_the_block_that_was_applied() {
        let (settled, applied) = (point(10, 0), point(20, 0));
        let judge = |said: BlockPoint, ours: Option<BlockPoint>| {
            settle_step(&settled, &applied, &said, ours.as_ref())
        };
        assert_eq!(judge(point(9, 0), Some(point(9, 0))), SettleStep::Stay);
        assert_eq!(judge(point(10, 0), Some(point(10, 0))), SettleStep::Stay);
        assert_eq!(judge(point(10, 1), None), SettleStep::Contradiction { number: 10 });
        assert_eq!(judge(point(15, 0), Some(point(15, 0))), SettleStep::Advance(point(15, 0)));
        assert_eq!(judge(point(15, 1), Some(point(15, 0))), SettleStep::OtherBranch);
        assert_eq!(judge(point(15, 0), Some(point(12, 0))), SettleStep::Stay);
        assert_eq!(judge(point(25, 0), None), SettleStep::Stay);
    }

    #[test]
    fn the_window_grows_while_latency_holds_shrinks_when_answers_wait_and_halves_on_trouble() {
        let mut window = Window::new(8);
        for _ in 0..20 {
            window.answered(Duration::from_millis(10));
        }
        assert_eq!(window.size(), 8);
        window.answered(Duration::from_millis(100));
        assert_eq!(window.size(), 7);
        for _ in 0..20 {
            window.unneeded();
        }
        assert_eq!(window.size(), 2);
        for _ in 0..20 {
            window.answered(Duration::from_millis(10));
        }
        assert_eq!(window.size(), 8);
        window.answered(Duration::from_millis(100));
        window.failed();
        assert_eq!(window.size(), 3);
        for _ in 0..5 {
            window.failed();
        }
        assert_eq!(window.size(), 1);
    }
}
