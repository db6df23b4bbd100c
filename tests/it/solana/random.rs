//! Anything at all, as fast as it comes.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use solana_instruction::Instruction;
use solana_keypair::Keypair;
use solana_pubkey::Pubkey;
use solana_signer::Signer as _;
use solana_system_interface::instruction as system;
use tidemark::dev::mint::{Mint, WRAPPED, memo};

use crate::harness::{
    on_both_stores,
    solana::{SOL, Solana, Witness},
};

const TRANSACTIONS: usize = 80;

/// A transaction's worth of anything that may happen between these people, failures included.
fn anything(
    random: &mut StdRng,
    mints: &[Mint],
    bank: Pubkey,
    people: &[Pubkey],
) -> Vec<Instruction> {
    let count = random.random_range(1..4);
    let one = |random: &mut StdRng| {
        let from = people[0];
        let to = people[random.random_range(0..people.len())];
        let mint = mints[random.random_range(0..mints.len())];
        let (own, theirs) = (mint.account_of(&from), mint.account_of(&to));
        // Often more than there is.
        let amount = random.random_range(1..400_000);
        match random.random_range(0..7) {
            0 => system::transfer(&from, &to, amount),
            1 => mint.burn(&from, &own, amount / 4),
            2 => mint.issue(&bank, &theirs, amount),
            // Wrapped SOL appears with the next instruction that looks at the account.
            3 => system::transfer(&from, &WRAPPED.account_of(&to), amount),
            4 => WRAPPED.sync_native(&WRAPPED.account_of(&to)),
            _ => mint.transfer(&from, &own, &theirs, amount),
        }
    };
    let mut instructions: Vec<Instruction> = (0..count).map(|_| one(random)).collect();
    // Makes it another transaction than any before.
    instructions.push(memo(&random.random::<u64>().to_string()));
    instructions
}

on_both_stores! {
    async fn balances_equal_the_validators_own_at_every_slot(store) {
        let seed = rand::random();
        eprintln!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let chain = Solana::shared().await;
        let (daemon, api) = chain.daemon(&store).await;
        let (rpc, bank) = (&chain.rpc, chain.rpc.bank());
        let mut keys: Vec<Keypair> = Vec::new();
        for _ in 0..3 {
            let key = chain.somebody(SOL).await;
            let owner = key.pubkey();
            let open = [chain.token, chain.fee_token, WRAPPED].map(|mint| mint.open(&owner, &owner));
            rpc.run(&open, &[&key]).await.unwrap();
            api.watch(owner).await;
            keys.push(key);
        }
        let mut people: Vec<Pubkey> = keys.iter().map(Keypair::pubkey).collect();
        let witness = Witness::of(&chain, rpc, &people);
        let mut sent = Vec::new();
        for index in 0..TRANSACTIONS {
            let key = &keys[index % keys.len()];
            people.sort_by_key(|person| *person != key.pubkey());
            let mints = [chain.token, chain.fee_token];
            let instructions = anything(&mut random, &mints, bank.pubkey(), &people);
            let banks = instructions
                .iter()
                .any(|call| call.accounts.iter().any(|meta| meta.is_signer && meta.pubkey == bank.pubkey()));
            let signers: Vec<&Keypair> = if banks { vec![key, bank] } else { vec![key] };
            sent.push(rpc.send(&instructions, &signers).await.unwrap());
        }
        let (mut last, mut failed) = (0, 0);
        for signature in sent {
            let landed = rpc.landed(signature).await.unwrap();
            last = last.max(landed.slot);
            failed += usize::from(landed.error.is_some());
        }
        eprintln!("{failed} of {TRANSACTIONS} failed");
        assert!((1..TRANSACTIONS).contains(&failed), "some fail, some do not");
        witness.agrees(&api, last).await;
        assert!(!daemon.log().contains("WARN"), "nothing was doubted or asked for twice:\n{}", daemon.log());
    }
}
