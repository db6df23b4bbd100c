//! A Safe on its way to being deployed.

use super::TenantNo;
use crate::{
    chain::{Address, BlockRef, ChainName, SafeState, TxId},
    clock::Millis,
    id::{SafeDeploymentId, TenantId, WalletId},
    string_enum::string_enum,
};

string_enum! {
    /// Where a deployment stands.
    DeploymentStatus {
        /// Not seen in a block.
        Pending = "pending",
        /// In a block that could still vanish.
        Processing = "processing",
        /// Proven at a settled block.
        Completed = "completed",
        Failed = "failed",
    }
}

/// A Safe on its way to being deployed, as one tenant tracks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    pub id: SafeDeploymentId,
    pub tenant: TenantNo,
    pub tenant_id: TenantId,
    pub chain: ChainName,
    pub tx: TxId,
    pub found_by_owner: bool,
    pub status: DeploymentStatus,
    /// In a word, why it failed.
    pub reason: Option<String>,
    pub address: Option<Address>,
    pub wallet_id: Option<WalletId>,
    /// The registered owner's wallet that led to it.
    pub owner_wallet: Option<WalletId>,
    pub version: Option<String>,
    pub singleton: Option<Address>,
    pub owners: Vec<Address>,
    pub threshold: Option<u64>,
    pub block: Option<BlockRef>,
    pub sender: Option<Address>,
    pub nonce: Option<u64>,
    /// Since when no node knows the transaction.
    pub missing_since: Option<Millis>,
    /// When a node is asked for it next, while it is not decided; see [`Deployment::WHEN_SETTLED`].
    pub look_at: Millis,
    /// How often a node was asked for it in vain.
    pub looks: u32,
    /// Counts writes: a writer that read an older one writes nothing. Its events are named by it.
    pub revision: i64,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl Deployment {
    /// It is looked at when its block has settled.
    pub const WHEN_SETTLED: Millis = Millis(i64::MAX);

    /// Whether nothing is to be learned of it any more.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        matches!(self.status, DeploymentStatus::Completed | DeploymentStatus::Failed)
    }

    /// Takes over what the chain's state proved.
    pub fn prove(&mut self, address: Address, proof: &SafeState) {
        self.address = Some(address);
        self.version = Some(proof.version.to_owned());
        self.singleton = Some(proof.singleton);
        self.owners.clone_from(&proof.owners);
        self.threshold = Some(proof.threshold);
    }
}
