//! What happens next, as the random numbers have it.

use alloy::{
    eips::eip7702::Authorization,
    hex,
    primitives::{Address, B256, Bytes, Signature, U64, U256, b256},
    sol_types::SolCall as _,
};
use k256::ecdsa::SigningKey;
use rand::{Rng as _, rngs::StdRng};
use serde_json::{Value, json};
use tidemark::dev::anvil::Request;

use super::world::{FEW, GAS, World};
use crate::harness::{
    contracts::{Elastic, Mover, Tether},
    safes::Execution,
};

/// The key of the node's fourth account, which is the same on every Anvil.
const AUTHORITY: usize = 3;
const KEY: B256 = b256!("0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6");
/// More than the base fee ever is here.
const GAS_PRICE: u64 = 3_000_000_000;
/// The commitment to a blob of zeros is the point at infinity, and so is each proof of it.
const BLOB_BYTES: usize = 131_072;
const BLOB_HASH: &str = "0x010657f37554c781402a22917dee2f75def7ab966d7b770905398eba3c444014";
const CELLS: usize = 128;

impl World {
    /// A block's worth of transactions, of which some fail.
    pub fn anything(&self, random: &mut StdRng) -> Vec<Request> {
        let mut requests = Vec::new();
        for _ in 0..random.random_range(0..7) {
            let request = match random.random_range(0..16) {
                0 | 1 => {
                    let (from, to) = (self.sender(random), self.anyone(random));
                    Request::pay(from, to, amount(random))
                }
                2 => {
                    let code = if random.random() { vec![0x00] } else { vec![0xfe] };
                    Request { value: amount(random), ..Request::create(self.sender(random), code) }
                }
                3..=7 => self.inside(random),
                8..=11 => self.token(random),
                _ => self.safe(random),
            };
            // Some have too little for what they do, and fail on the way.
            let gas = if random.random_range(0..16) == 0 { 70_000 } else { GAS };
            requests.push(request.with_gas(gas));
        }
        requests
    }

    fn sender(&self, random: &mut StdRng) -> Address {
        self.node.accounts[random.random_range(0..6)]
    }

    /// Whoever is watched, or will be, or never is.
    fn anyone(&self, random: &mut StdRng) -> Address {
        match random.random_range(0..8) {
            0 => self.node.accounts[random.random_range(5..8)],
            _ => self.everybody[random.random_range(0..self.everybody.len())],
        }
    }

    /// A call of a contract that moves the coin from inside, or of somebody who runs its code.
    fn inside(&self, random: &mut StdRng) -> Request {
        let from = self.sender(random);
        let contract = match random.random_range(0..6) {
            0 => self.proxy,
            1 => self.node.accounts[AUTHORITY],
            _ => self.mover,
        };
        let call = self.moving(random);
        // A call that takes no coin fails with some of it.
        let value = if random.random_range(0..3) == 0 { U256::ZERO } else { amount(random) };
        if random.random_range(0..10) == 0 {
            let destroy = Mover::destroyCall { to: self.anyone(random) }.abi_encode();
            let place = self.places[random.random_range(0..self.places.len())];
            return Request::call(from, place, destroy);
        }
        Request { value, ..Request::call(from, contract, call) }
    }

    fn moving(&self, random: &mut StdRng) -> Vec<u8> {
        let [to, other] = [0, 0].map(|_| self.anyone(random));
        let amount = amount(random);
        let place = random.random_range(0..self.places.len());
        let salt = U256::from(place);
        match random.random_range(0..13) {
            0 | 1 => Mover::payCall { to: vec![to, other, to], amount }.abi_encode(),
            2 => {
                let depth = U256::from(random.random_range(0..4));
                Mover::nestCall { to, amount, depth }.abi_encode()
            }
            3 => Mover::pretendCall { to, amount }.abi_encode(),
            4 => Mover::makeCall { amount }.abi_encode(),
            5 => Mover::destroyCall { to }.abi_encode(),
            6 => Mover::flashCall { to, amount }.abi_encode(),
            7 => Mover::makeAtCall { amount, salt }.abi_encode(),
            // What a contract has when it ends in the transaction that made it is lost to everybody.
            8 => {
                let wasted = U256::from(random.random_range(0..3));
                let salt = U256::from(self.places.len());
                Mover::flashAtCall { to, amount, salt, wasted }.abi_encode()
            }
            9 if to != self.places[place] => {
                Mover::flashAtCall { to, amount, salt, wasted: U256::ZERO }.abi_encode()
            }
            9..=11 => Mover::depositCall {}.abi_encode(),
            // Often more than there is: it fails.
            _ => Mover::withdrawCall { amount }.abi_encode(),
        }
    }

    /// Tokens move, or change what everybody has of them.
    fn token(&self, random: &mut StdRng) -> Request {
        let (from, to) = (self.sender(random), self.anyone(random));
        let units = random.random_range(0..5000);
        let value = U256::from(units);
        let (issuer, elastic) = (self.node.accounts[0], self.elastic);
        let of_tether = |from: Address, call: Vec<u8>| Request::call(from, self.tether, call);
        match random.random_range(0..16) {
            0..=2 => self.node.token_transfer(from, to, units),
            3 => self.node.minting(to, units),
            4..=6 => of_tether(from, Tether::transferCall { to, value }.abi_encode()),
            7 => of_tether(issuer, Tether::transferCall { to, value }.abi_encode()),
            8 => {
                let points = U256::from(random.random_range(0..300));
                of_tether(issuer, Tether::setFeeCall { points }.abi_encode())
            }
            9 => of_tether(issuer, Tether::issueCall { amount: value }.abi_encode()),
            10 => of_tether(issuer, Tether::destroyBlackFundsCall { user: to }.abi_encode()),
            11 | 12 => {
                Request::call(from, elastic, Elastic::transferCall { to, value }.abi_encode())
            }
            13 => Request::call(from, elastic, Elastic::mintCall { to, value }.abi_encode()),
            14 => {
                let index = U256::from(random.random_range(900_000..1_100_000));
                let per_mille = U256::from(random.random_range(0..20));
                let rebase = Elastic::rebaseCall { index, perMille: per_mille };
                Request::call(issuer, elastic, rebase.abi_encode())
            }
            _ => Request::call(
                from,
                self.mover,
                Mover::withdrawCall { amount: U256::from(units) }.abi_encode(),
            ),
        }
    }

    /// A Safe is deployed, or moves what it has, and sometimes pays for the gas.
    fn safe(&self, random: &mut StdRng) -> Request {
        let safe = &self.safes[random.random_range(0..self.safes.len())];
        if random.random_range(0..6) == 0 {
            return safe.deployment.clone();
        }
        let to = self.anyone(random);
        let units = U256::from(random.random_range(0..3000));
        let amount = amount(random);
        let token = |contract: Address| {
            let data: Bytes = Elastic::transferCall { to, value: units }.abi_encode().into();
            Execution { to: contract, data, ..Execution::default() }
        };
        let call = |data: Vec<u8>, value: U256, by_delegation: bool| Execution {
            to: self.mover,
            value,
            data: data.into(),
            by_delegation,
            ..Execution::default()
        };
        let what = match random.random_range(0..10) {
            0..=2 => Execution { to, value: amount, ..Execution::default() },
            3 => token(self.node.token),
            4 => token(self.tether),
            5 => token(self.elastic),
            6 => call(Mover::depositCall {}.abi_encode(), amount, false),
            7 => call(Mover::withdrawCall { amount: units }.abi_encode(), U256::ZERO, false),
            8 => call(self.moving(random), units, false),
            _ => {
                let pay = Mover::payCall { to: vec![to, to], amount: units };
                call(pay.abi_encode(), U256::ZERO, true)
            }
        };
        let gas = if random.random() { U256::ZERO } else { U256::from(150_000) };
        let pays = random.random_range(0..3) == 0;
        let gas_token = if random.random() { Address::ZERO } else { self.node.token };
        let refund_receiver = if random.random() { Address::ZERO } else { self.anyone(random) };
        Execution { gas, gas_price: U256::from(u8::from(pays)), gas_token, refund_receiver, ..what }
            .by(self.node.accounts[1], safe.address)
    }

    /// A transaction of any type that does this.
    pub async fn in_an_envelope(&self, request: &Request, random: &mut StdRng) -> Value {
        let price = U64::from(GAS_PRICE + random.random_range(0..FEW));
        let dynamic = json!({
            "maxFeePerGas": price,
            "maxPriorityFeePerGas": U64::from(random.random_range(0..FEW)),
        });
        let more = match random.random_range(0..10) {
            0 | 1 => json!({"gasPrice": price}),
            2 | 3 => {
                let list =
                    json!([{"address": self.mover, "storageKeys": [B256::with_last_byte(1)]}]);
                json!({"gasPrice": price, "accessList": list})
            }
            4 if request.to.is_some() => {
                let authorization = self.authorization(random).await;
                with(dynamic, &json!({"authorizationList": [authorization]}))
            }
            5 if request.to.is_some() => with(
                dynamic,
                &json!({
                    "maxFeePerBlobGas": U64::from(GAS_PRICE),
                    "blobVersionedHashes": [BLOB_HASH],
                    "blobs": [hex::encode_prefixed(vec![0; BLOB_BYTES])],
                    "commitments": [infinity()],
                    "cellProofs": vec![infinity(); CELLS],
                }),
            ),
            _ => dynamic,
        };
        with(as_it_is(request), &more)
    }

    /// One of the accounts runs the mover's code from now on, or none any more.
    async fn authorization(&self, random: &mut StdRng) -> Value {
        let authority = self.node.accounts[AUTHORITY];
        let nonce = json!([authority, "pending"]);
        let nonce: U64 = self.node.call("eth_getTransactionCount", nonce).await.unwrap();
        let address = if random.random_range(0..4) == 0 { Address::ZERO } else { self.mover };
        // The number counts the transaction itself where the account sends it: then it must be the next one.
        let nonce = nonce.to::<u64>() + u64::from(random.random::<bool>());
        let authorization = Authorization { chain_id: U256::from(31_337), address, nonce };
        let key = SigningKey::from_slice(KEY.as_slice()).unwrap();
        let hash = authorization.signature_hash();
        let (signature, id) = key.sign_prehash_recoverable(hash.as_slice()).unwrap();
        let (r, s) = signature.split_bytes();
        let [r, s] = [r, s].map(|scalar| U256::from_be_slice(&scalar));
        let signed = authorization.into_signed(Signature::new(r, s, id.is_y_odd()));
        serde_json::to_value(signed).unwrap()
    }
}

/// A transaction of the type that the node chooses.
pub fn as_it_is(request: &Request) -> Value {
    serde_json::to_value(request).unwrap()
}

fn amount(random: &mut StdRng) -> U256 {
    U256::from(random.random_range(0..FEW))
}

fn infinity() -> String {
    format!("0xc0{}", "00".repeat(47))
}

fn with(mut fields: Value, more: &Value) -> Value {
    let more = more.as_object().unwrap().clone();
    fields.as_object_mut().unwrap().extend(more);
    fields
}
