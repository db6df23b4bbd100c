//! What the chain says of the configured tokens, before the first block is followed.

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::chain::{TokenFacts, TokenSource};

/// What endpoints say of every token, the first one first. None say anything unless a test wants it.
#[derive(Default)]
pub(super) struct Tokens(Mutex<Vec<TokenFacts>>);

impl Tokens {
    fn say(&self, decimals: &[Option<u8>]) {
        let symbol = Some("\u{fffd}<!--".to_owned());
        let said = decimals.iter().map(|&decimals| TokenFacts {
            decimals,
            symbol: symbol.clone(),
            name: None,
        });
        *self.0.lock() = said.collect();
    }
}

#[async_trait]
impl TokenSource for Tokens {
    async fn token_facts(&self, tokens: &[Address]) -> Result<Vec<TokenFacts>, SourceError> {
        let first = self.0.lock().first().cloned().unwrap_or_default();
        Ok(vec![first; tokens.len()])
    }

    async fn opinions_of(&self, _token: Address) -> Result<Vec<TokenFacts>, SourceError> {
        Ok(self.0.lock().clone())
    }
}

#[tokio::test]
async fn decimals_that_differ_from_the_configuration_stop_the_start_and_say_what_to_do() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.chain.tokens.say(&[Some(18), Some(18)]);
        let why = rig.follow().await.expect_err("no start");
        for word in
            ["USD", "(0xEeeee", " 6 decimals", "says 18", "chains.scripted.tokens", "start again"]
        {
            assert!(why.contains(word), "{word:?} is not in {why:?}");
        }
        rig.chain.mine(&[]);
        rig.restart(&store);
        rig.follow().await.expect_err("however often it is tried");
        let cursor = rig.follower.committer.cursor().await.unwrap().expect("it has begun");
        assert_eq!(cursor.head.at.number, 0, "nothing is followed");
        rig.chain.tokens.say(&[Some(6)]);
        rig.follow().await.expect("corrected");
        store.close().await;
    }
}

#[tokio::test]
async fn one_endpoint_alone_stops_no_start_and_nothing_said_later_stops_a_running_chain() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.chain.tokens.say(&[Some(18), Some(6)]);
        rig.follow().await.expect("the second endpoint knows better");
        rig.chain.tokens.say(&[Some(18), Some(18)]);
        rig.chain.mine(&[]);
        // As after another daemon had the chain for a while.
        rig.follower.cursor = None;
        rig.follow().await.expect("it was asked once");
        store.close().await;
    }
}

#[tokio::test]
async fn a_token_that_does_not_say_its_decimals_is_followed_all_the_same() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.chain.tokens.say(&[None]);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[Payment { asset: token(), ..pay(1, None, who(9), 50) }]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}
