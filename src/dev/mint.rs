//! Tokens on a local Solana cluster: the instructions that make, move and end them.
//!
//! Token-2022 understands the instructions of the Token program, so one set of them serves both.

use solana_instruction::{AccountMeta, Instruction};
use solana_keypair::Keypair;
use solana_pubkey::Pubkey;
use solana_signer::Signer as _;
use solana_system_interface::instruction as system;
use spl_associated_token_account_interface::{
    address::get_associated_token_address_with_program_id,
    instruction::create_associated_token_account_idempotent,
};
use spl_token_2022_interface::{
    extension::{ExtensionType, transfer_fee::instruction::initialize_transfer_fee_config},
    instruction::{AuthorityType, TokenInstruction},
    state::{Account, Mint as State},
};

use super::solana::Rpc;
use crate::chain::solana::{MEMO, TOKEN, TOKEN_2022, WRAPPED_SOL};

const TOKEN_PROGRAM: Pubkey = Pubkey::from_str_const(TOKEN);
const TOKEN_2022_PROGRAM: Pubkey = Pubkey::from_str_const(TOKEN_2022);
const MEMO_PROGRAM: Pubkey = Pubkey::from_str_const(MEMO[1]);
/// Wrapped SOL, which every cluster has.
pub const WRAPPED: Mint = Mint {
    address: Pubkey::from_str_const(WRAPPED_SOL),
    program: TOKEN_PROGRAM,
    decimals: 9,
    fee: false,
};
/// The greatest fee that a mint with fees withholds of one transfer.
const MAXIMUM_FEE: u64 = 1_000_000_000;

/// A mint. Who may issue and freeze is the bank of [`Rpc`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mint {
    pub address: Pubkey,
    pub program: Pubkey,
    pub decimals: u8,
    fee: bool,
}

/// What a mint of Token-2022 can do besides.
#[derive(Clone, Copy, Debug)]
enum Extension {
    /// Withholds hundredths of a percent of each transfer.
    Fee(u16),
    /// Can be closed by whoever that is.
    CloseAuthority(Pubkey),
}

impl Mint {
    /// A new mint of the Token program.
    ///
    /// # Errors
    /// If the node refuses, here and below.
    pub async fn create(rpc: &Rpc, decimals: u8) -> anyhow::Result<Self> {
        Self::create_with(rpc, TOKEN_PROGRAM, decimals, None).await
    }

    /// A new mint of Token-2022 that withholds `fee` hundredths of a percent of each transfer.
    pub async fn create_with_fee(rpc: &Rpc, decimals: u8, fee: u16) -> anyhow::Result<Self> {
        Self::create_with(rpc, TOKEN_2022_PROGRAM, decimals, Some(Extension::Fee(fee))).await
    }

    /// A new mint of Token-2022 that `authority` can close while it has no tokens.
    pub async fn create_closable(
        rpc: &Rpc,
        decimals: u8,
        authority: &Pubkey,
    ) -> anyhow::Result<Self> {
        let extension = Extension::CloseAuthority(*authority);
        Self::create_with(rpc, TOKEN_2022_PROGRAM, decimals, Some(extension)).await
    }

    async fn create_with(
        rpc: &Rpc,
        program: Pubkey,
        decimals: u8,
        extension: Option<Extension>,
    ) -> anyhow::Result<Self> {
        let (key, bank) = (Keypair::new(), rpc.bank().pubkey());
        let fee = matches!(extension, Some(Extension::Fee(_)));
        let mint = Self { address: key.pubkey(), program, decimals, fee };
        let extensions: &[ExtensionType] = match extension {
            None => &[],
            Some(Extension::Fee(_)) => &[ExtensionType::TransferFeeConfig],
            Some(Extension::CloseAuthority(_)) => &[ExtensionType::MintCloseAuthority],
        };
        let space = ExtensionType::try_calculate_account_len::<State>(extensions)?;
        let rent = rpc.rent(space).await?;
        let space = u64::try_from(space)?;
        let mut instructions =
            vec![system::create_account(&bank, &mint.address, rent, space, &program)];
        match extension {
            None => {}
            Some(Extension::Fee(fee)) => instructions.push(initialize_transfer_fee_config(
                &program,
                &mint.address,
                Some(&bank),
                Some(&bank),
                fee,
                MAXIMUM_FEE,
            )?),
            Some(Extension::CloseAuthority(authority)) => {
                let what = TokenInstruction::InitializeMintCloseAuthority {
                    close_authority: Some(authority).into(),
                };
                instructions.push(mint.instruction(&what, vec![writable(mint.address)]));
            }
        }
        let initialize = TokenInstruction::InitializeMint2 {
            decimals,
            mint_authority: bank,
            freeze_authority: Some(bank).into(),
        };
        instructions.push(mint.instruction(&initialize, vec![writable(mint.address)]));
        rpc.run(&instructions, &[rpc.bank(), &key]).await?;
        Ok(mint)
    }

    fn instruction(&self, what: &TokenInstruction<'_>, accounts: Vec<AccountMeta>) -> Instruction {
        Instruction { program_id: self.program, accounts, data: what.pack() }
    }

    /// The associated token account of an owner: where their tokens usually are.
    #[must_use]
    pub fn account_of(&self, owner: &Pubkey) -> Pubkey {
        get_associated_token_address_with_program_id(owner, &self.address, &self.program)
    }

    /// Opens the associated token account of `owner` unless it is open; `payer` signs, and pays its rent.
    #[must_use]
    pub fn open(&self, payer: &Pubkey, owner: &Pubkey) -> Instruction {
        create_associated_token_account_idempotent(payer, owner, &self.address, &self.program)
    }

    /// Opens `account` for `owner`; `payer` and `account` sign.
    pub async fn open_at(
        &self,
        rpc: &Rpc,
        payer: &Pubkey,
        account: &Pubkey,
        owner: &Pubkey,
    ) -> anyhow::Result<[Instruction; 2]> {
        let extensions: &[ExtensionType] =
            if self.fee { &[ExtensionType::TransferFeeAmount] } else { &[] };
        let space = ExtensionType::try_calculate_account_len::<Account>(extensions)?;
        let rent = rpc.rent(space).await?;
        let space = u64::try_from(space)?;
        let initialize = TokenInstruction::InitializeAccount3 { owner: *owner };
        let accounts = vec![writable(*account), readonly(self.address)];
        Ok([
            system::create_account(payer, account, rent, space, &self.program),
            self.instruction(&initialize, accounts),
        ])
    }

    /// New tokens; the bank signs.
    #[must_use]
    pub fn issue(&self, bank: &Pubkey, account: &Pubkey, amount: u64) -> Instruction {
        let accounts = vec![writable(self.address), writable(*account), signer(*bank)];
        self.instruction(&TokenInstruction::MintTo { amount }, accounts)
    }

    /// From one token account to another; the first one's owner signs.
    #[must_use]
    pub fn transfer(&self, owner: &Pubkey, from: &Pubkey, to: &Pubkey, amount: u64) -> Instruction {
        let accounts = vec![writable(*from), readonly(self.address), writable(*to), signer(*owner)];
        let what = TokenInstruction::TransferChecked { amount, decimals: self.decimals };
        self.instruction(&what, accounts)
    }

    /// The owner signs, here and below.
    #[must_use]
    pub fn burn(&self, owner: &Pubkey, account: &Pubkey, amount: u64) -> Instruction {
        let accounts = vec![writable(*account), writable(self.address), signer(*owner)];
        self.instruction(&TokenInstruction::Burn { amount }, accounts)
    }

    /// Ends an account without tokens; what lamports it has go to `to`.
    #[must_use]
    pub fn close(&self, owner: &Pubkey, account: &Pubkey, to: &Pubkey) -> Instruction {
        let accounts = vec![writable(*account), writable(*to), signer(*owner)];
        self.instruction(&TokenInstruction::CloseAccount, accounts)
    }

    /// Ends the mint itself, which has no tokens; its lamports go to `authority`, who signs.
    #[must_use]
    pub fn close_mint(&self, authority: &Pubkey) -> Instruction {
        self.close(authority, &self.address, authority)
    }

    /// Lets somebody else spend from an account, up to an amount.
    #[must_use]
    pub fn approve(
        &self,
        owner: &Pubkey,
        account: &Pubkey,
        delegate: &Pubkey,
        amount: u64,
    ) -> Instruction {
        let accounts = vec![writable(*account), readonly(*delegate), signer(*owner)];
        self.instruction(&TokenInstruction::Approve { amount }, accounts)
    }

    #[must_use]
    pub fn revoke(&self, owner: &Pubkey, account: &Pubkey) -> Instruction {
        let accounts = vec![writable(*account), signer(*owner)];
        self.instruction(&TokenInstruction::Revoke, accounts)
    }

    /// Gives an account, with what is in it, to another owner.
    #[must_use]
    pub fn hand_over(&self, owner: &Pubkey, account: &Pubkey, to: &Pubkey) -> Instruction {
        let what = TokenInstruction::SetAuthority {
            authority_type: AuthorityType::AccountOwner,
            new_authority: Some(*to).into(),
        };
        self.instruction(&what, vec![writable(*account), signer(*owner)])
    }

    /// The bank signs.
    #[must_use]
    pub fn freeze(&self, bank: &Pubkey, account: &Pubkey) -> Instruction {
        let accounts = vec![writable(*account), readonly(self.address), signer(*bank)];
        self.instruction(&TokenInstruction::FreezeAccount, accounts)
    }

    /// The bank signs.
    #[must_use]
    pub fn thaw(&self, bank: &Pubkey, account: &Pubkey) -> Instruction {
        let accounts = vec![writable(*account), readonly(self.address), signer(*bank)];
        self.instruction(&TokenInstruction::ThawAccount, accounts)
    }

    /// Makes tokens of the lamports that an account of wrapped SOL was given.
    #[must_use]
    pub fn sync_native(&self, account: &Pubkey) -> Instruction {
        self.instruction(&TokenInstruction::SyncNative, vec![writable(*account)])
    }
}

/// A text beside whatever else a transaction does.
#[must_use]
pub fn memo(text: &str) -> Instruction {
    let data = text.as_bytes().to_vec();
    Instruction { program_id: MEMO_PROGRAM, accounts: Vec::new(), data }
}

fn writable(account: Pubkey) -> AccountMeta {
    AccountMeta::new(account, false)
}

fn readonly(account: Pubkey) -> AccountMeta {
    AccountMeta::new_readonly(account, false)
}

fn signer(account: Pubkey) -> AccountMeta {
    AccountMeta::new_readonly(account, true)
}
