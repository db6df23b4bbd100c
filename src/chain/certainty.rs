//! How sure a figure is that nodes tell.

use super::ChainBalance;

/// How sure a figure of the chain is, the least sure first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// Endpoints contradict each other.
    Disputed,
    /// One endpoint's word.
    Told,
    /// Two endpoints say the same.
    Agreed,
    /// Proven against the state root of the block's own header.
    Proven,
}

/// What several endpoints say of the same balances, each of all of them: for every balance the figure that two of
/// them share, or else the first.
pub(super) fn agreed(opinions: &[Vec<ChainBalance>]) -> Vec<(ChainBalance, Certainty)> {
    let balances = opinions.iter().map(Vec::len).min().unwrap_or(0);
    let one = |n: usize| {
        let told: Vec<ChainBalance> =
            opinions.iter().map(|figures| figures[n]).filter(|told| !told.unreadable).collect();
        let same = |a: &&ChainBalance| told.iter().filter(|b| a.total == b.total).count() > 1;
        match (told.iter().find(same), told.as_slice()) {
            (Some(figure), _) => (*figure, Certainty::Agreed),
            (None, [figure]) => (*figure, Certainty::Told),
            (None, [figure, ..]) => (*figure, Certainty::Disputed),
            (None, []) => (opinions[0][n], Certainty::Disputed),
        }
    };
    (0..balances).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Amount;

    fn told(units: u64) -> ChainBalance {
        Amount::from(units).into()
    }

    #[test]
    fn a_figure_is_agreed_upon_when_two_endpoints_say_it_and_disputed_when_none_do() {
        let silent = ChainBalance { unreadable: true, ..ChainBalance::default() };
        let says = |opinions: &[ChainBalance]| {
            let opinions: Vec<_> = opinions.iter().map(|figure| vec![*figure]).collect();
            agreed(&opinions)[0]
        };
        assert_eq!(says(&[told(5)]), (told(5), Certainty::Told));
        assert_eq!(says(&[told(5), told(5)]), (told(5), Certainty::Agreed));
        assert_eq!(says(&[told(5), told(6)]).1, Certainty::Disputed);
        assert_eq!(says(&[told(0), told(6), told(6)]), (told(6), Certainty::Agreed));
        assert_eq!(says(&[silent, told(6)]), (told(6), Certainty::Told));
        assert_eq!(says(&[silent, silent]), (silent, Certainty::Disputed));
    }
}
