//! What the chain says of the configured tokens, compared with what the configuration says: once, before the first
//! block is followed.

use super::{Follower, TurnError};
use crate::{
    chain::{TokenFacts, TokenSource},
    config::TokenConfig,
};

impl Follower {
    /// Stops the start where the configuration gives a token other decimals than its contract.
    pub(super) async fn check_tokens(&mut self) -> Result<(), TurnError> {
        if self.tokens_checked {
            return Ok(());
        }
        if let Some(source) = self.source.tokens() {
            let contracts: Vec<_> = self.config.tokens.iter().map(|token| token.contract).collect();
            let told = source.token_facts(&contracts).await?;
            for (token, told) in self.config.tokens.iter().zip(told) {
                self.check_token(source, token, &told).await?;
            }
        }
        self.tokens_checked = true;
        Ok(())
    }

    async fn check_token(
        &self,
        source: &dyn TokenSource,
        token: &TokenConfig,
        told: &TokenFacts,
    ) -> Result<(), TurnError> {
        let contract = self.config.family.format_address(&token.contract);
        let (chain, symbol, decimals) = (&self.config.name, &token.symbol, token.decimals);
        match told.decimals {
            Some(said) if said != decimals => {
                // One endpoint alone stops nothing that another one can tell better.
                let opinions = source.opinions_of(token.contract).await?;
                if opinions.iter().all(|told| told.decimals != Some(decimals)) {
                    return Err(TurnError::Misconfigured(format!(
                        "the configuration gives the token {symbol} ({contract}) {decimals} decimals, its contract \
                         says {said}: correct decimals in [[chains.{chain}.tokens]], or take the token out, and start \
                         again"
                    )));
                }
                tracing::warn!(
                    %chain, symbol, contract, said,
                    "the endpoints tell differently of a token's decimals: the configuration stays as it is"
                );
            }
            Some(_) => {}
            None => tracing::warn!(
                %chain, symbol, contract, decimals,
                "a token does not say how many decimals it has: nothing shows whether the configuration is right"
            ),
        }
        let said = told.symbol.as_deref().unwrap_or_default();
        if !said.is_empty() && said != symbol {
            let name = told.name.as_deref().unwrap_or_default();
            tracing::info!(%chain, symbol, contract, said, name, "a token calls itself by another symbol");
        }
        Ok(())
    }
}
