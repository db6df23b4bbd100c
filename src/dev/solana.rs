//! A Solana node as its customers use it: transactions, signed, sent and waited for.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use solana_client::{
    nonblocking::rpc_client::RpcClient, rpc_config::RpcSendTransactionConfig,
    rpc_request::RpcRequest,
};
use solana_commitment_config::CommitmentConfig;
use solana_instruction::Instruction;
use solana_keypair::Keypair;
use solana_message::{AddressLookupTableAccount, Message, VersionedMessage, v0};
use solana_pubkey::Pubkey;
use solana_signature::Signature;
use solana_signer::Signer as _;
use solana_system_interface::instruction as system;
use solana_transaction::versioned::VersionedTransaction;
use tokio::time::{sleep, timeout};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The library's own waiting asks twice a second, four slots of a fast local chain.
const STATUS_POLL: Duration = Duration::from_millis(20);
const LANDING_TIMEOUT: Duration = Duration::from_secs(30);
/// Final is what has 31 more slots upon it: 13 seconds even with slots as long as on the public chain.
const FINALITY_TIMEOUT: Duration = Duration::from_mins(1);

/// JSON-RPC to a local node, and all the coins of its genesis block. Cloning shares the connections.
#[derive(Clone)]
pub struct Rpc {
    client: Arc<RpcClient>,
    bank: Arc<Keypair>,
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rpc").field(&self.url()).finish()
    }
}

/// A transaction in a confirmed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    pub signature: String,
    pub slot: u64,
    /// Why it failed; it has cost its fee all the same.
    pub error: Option<String>,
}

impl Rpc {
    #[must_use]
    pub fn new(url: String, bank: &Keypair) -> Self {
        // An error means that there is a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sure = CommitmentConfig::confirmed();
        let client = RpcClient::new_with_timeout_and_commitment(url, REQUEST_TIMEOUT, sure);
        Self { client: Arc::new(client), bank: Arc::new(bank.insecure_clone()) }
    }

    #[must_use]
    pub fn url(&self) -> String {
        self.client.url()
    }

    /// Everything else that a node can be asked.
    #[must_use]
    pub fn client(&self) -> &RpcClient {
        &self.client
    }

    /// Who pays where nobody else does; mints and freezes every [`super::mint::Mint`].
    #[must_use]
    pub fn bank(&self) -> &Keypair {
        &self.bank
    }

    pub async fn is_healthy(&self) -> bool {
        self.client.get_health().await.is_ok()
    }

    /// The text that names the chain.
    ///
    /// # Errors
    /// If the node does not answer, here and below.
    pub async fn genesis_hash(&self) -> anyhow::Result<String> {
        Ok(self.client.get_genesis_hash().await?.to_string())
    }

    /// The lamports that make an account of so many bytes exempt from rent.
    pub async fn rent(&self, space: usize) -> anyhow::Result<u64> {
        Ok(self.client.get_minimum_balance_for_rent_exemption(space).await?)
    }

    /// Hands a transaction to the node, whether or not it will succeed. The first to sign pays.
    pub async fn send(
        &self,
        instructions: &[Instruction],
        signers: &[&Keypair],
    ) -> anyhow::Result<Signature> {
        self.send_with(instructions, &[], signers).await
    }

    /// The same, with accounts looked up in tables.
    pub async fn send_with(
        &self,
        instructions: &[Instruction],
        tables: &[AddressLookupTableAccount],
        signers: &[&Keypair],
    ) -> anyhow::Result<Signature> {
        let payer = signers.first().context("nobody pays")?.pubkey();
        let recent = self.client.get_latest_blockhash().await?;
        let message = if tables.is_empty() {
            let message = Message::new_with_blockhash(instructions, Some(&payer), &recent);
            VersionedMessage::Legacy(message)
        } else {
            VersionedMessage::V0(v0::Message::try_compile(&payer, instructions, tables, recent)?)
        };
        let transaction = VersionedTransaction::try_new(message, signers)?;
        let config = RpcSendTransactionConfig { skip_preflight: true, ..Default::default() };
        Ok(self.client.send_transaction_with_config(&transaction, config).await?)
    }

    /// Waits until a block with the transaction is confirmed.
    pub async fn landed(&self, signature: Signature) -> anyhow::Result<Landed> {
        let poll = async {
            loop {
                let answer = self.client.get_signature_statuses(&[signature]).await?;
                let known = answer.value.into_iter().next().flatten();
                if let Some(status) = known
                    && status.satisfies_commitment(CommitmentConfig::confirmed())
                {
                    return anyhow::Ok(Landed {
                        signature: signature.to_string(),
                        slot: status.slot,
                        error: status.err.map(|error| error.to_string()),
                    });
                }
                sleep(STATUS_POLL).await;
            }
        };
        timeout(LANDING_TIMEOUT, poll)
            .await
            .with_context(|| format!("no block took in the transaction {signature}"))?
    }

    /// Sends a transaction and demands that it succeeds.
    pub async fn run(
        &self,
        instructions: &[Instruction],
        signers: &[&Keypair],
    ) -> anyhow::Result<Landed> {
        let landed = self.landed(self.send(instructions, signers).await?).await?;
        if let Some(error) = &landed.error {
            bail!("the transaction {} failed: {error}", landed.signature);
        }
        Ok(landed)
    }

    /// Gives lamports of the genesis block, as a faucet does.
    pub async fn fund(&self, to: &Pubkey, lamports: u64) -> anyhow::Result<Landed> {
        let pay = system::transfer(&self.bank.pubkey(), to, lamports);
        self.run(&[pay], &[&self.bank]).await
    }

    /// Waits until that slot is final.
    pub async fn finalized(&self, slot: u64) -> anyhow::Result<()> {
        let poll = async {
            while self.client.get_slot_with_commitment(CommitmentConfig::finalized()).await? < slot
            {
                sleep(STATUS_POLL).await;
            }
            anyhow::Ok(())
        };
        timeout(FINALITY_TIMEOUT, poll)
            .await
            .with_context(|| format!("slot {slot} did not become final"))?
    }

    /// The lamports of an account, and the slot of that state.
    pub async fn lamports(
        &self,
        of: &Pubkey,
        sure: CommitmentConfig,
    ) -> anyhow::Result<(u64, u64)> {
        let answer = self.client.get_balance_with_commitment(of, sure).await?;
        Ok((answer.value, answer.context.slot))
    }

    /// What an owner holds of a mint over all their accounts, and the slot of that state.
    pub async fn tokens(
        &self,
        owner: &Pubkey,
        mint: &Pubkey,
        sure: CommitmentConfig,
    ) -> anyhow::Result<(u64, u64)> {
        let parameters = json!([
            owner.to_string(),
            {"mint": mint.to_string()},
            {"encoding": "jsonParsed", "commitment": sure.commitment},
        ]);
        let answer: Value =
            self.client.send(RpcRequest::GetTokenAccountsByOwner, parameters).await?;
        let mut sum = 0;
        for held in answer["value"].as_array().context("no list of accounts")? {
            let amount = &held["account"]["data"]["parsed"]["info"]["tokenAmount"]["amount"];
            sum += amount.as_str().context("an account without an amount")?.parse::<u64>()?;
        }
        Ok((sum, answer["context"]["slot"].as_u64().context("a state without a slot")?))
    }

    /// A new look-up table of these addresses, ready to be used.
    pub async fn look_up_table(
        &self,
        addresses: &[Pubkey],
    ) -> anyhow::Result<AddressLookupTableAccount> {
        use solana_address_lookup_table_interface::instruction as table;
        // Of the same owner and slot it would be the same table.
        let (bank, owner) = (self.bank.pubkey(), Keypair::new());
        let recent = self.client.get_slot_with_commitment(CommitmentConfig::finalized()).await?;
        let (create, key) = table::create_lookup_table(owner.pubkey(), bank, recent);
        let extend =
            table::extend_lookup_table(key, owner.pubkey(), Some(bank), addresses.to_vec());
        let landed = self.run(&[create, extend], &[&self.bank, &owner]).await?;
        // What was added counts from the next slot on.
        while self.client.get_slot().await? <= landed.slot {
            sleep(STATUS_POLL).await;
        }
        Ok(AddressLookupTableAccount { key, addresses: addresses.to_vec() })
    }
}
