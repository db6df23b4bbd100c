use alloy::primitives::{Address as EvmAddress, eip191_hash_message};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};

use super::*;
use crate::{chain::TxId, ledger::changes::SafeProof, store::ownership};

const CHALLENGES: &str = "/v1/ownership/challenges";

fn evm_key(seed: u8) -> (k256::ecdsa::SigningKey, String) {
    let key = k256::ecdsa::SigningKey::from_slice(&[seed; 32]).expect("a key");
    let point = key.verifying_key().to_encoded_point(false);
    let address = EvmAddress::from_raw_public_key(&point.as_bytes()[1..]).to_checksum(None);
    (key, address)
}

fn evm_sign(key: &k256::ecdsa::SigningKey, message: &Value) -> String {
    let hash = eip191_hash_message(message.as_str().expect("a message"));
    let (signature, id) = key.sign_prehash_recoverable(hash.as_slice()).expect("a signature");
    format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + id.to_byte())
}

fn base58(bytes: [u8; 32]) -> String {
    Family::Solana.format_address(&Address::from(bytes))
}

fn solana_key(seed: u8) -> (SigningKey, String) {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let address = base58(key.verifying_key().to_bytes());
    (key, address)
}

fn solana_sign(key: &SigningKey, message: &Value) -> [u8; 64] {
    key.sign(message.as_str().expect("a message").as_bytes()).to_bytes()
}

/// With the main network of Solana.
async fn world() -> World {
    let mut config = config();
    let solana = config.chains.get_mut("solana").expect("a chain");
    "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp".clone_into(&mut solana.caip2);
    World::with(config).await
}

impl World {
    async fn challenge(&self, address: &str, chain: &str) -> Value {
        let body = json!({ "address": address, "chain": chain, "domain": "app.example" });
        self.post(CHALLENGES, body).await.ok(201)
    }

    async fn verify_as(&self, key: &str, challenge: &Value, signature: &str) -> Reply {
        let id = challenge["id"].as_str().expect("an id");
        let body = json!({ "signature": signature });
        self.write_as(key, "POST", &format!("{CHALLENGES}/{id}/verify"), &body).await
    }

    async fn verify(&self, challenge: &Value, signature: &str) -> Reply {
        self.verify_as(&self.acme, challenge, signature).await
    }
}

#[tokio::test]
async fn a_signed_message_proves_an_evm_address_and_names_its_wallet() {
    let world = world().await;
    let (key, address) = evm_key(7);
    let body = json!({ "address": address.to_lowercase(), "chain": "base", "domain": "app.example:8443",
                       "uri": "https://app.example:8443/login", "statement": "I accept.",
                       "expiresInSeconds": 60 });
    let challenge = world.post(CHALLENGES, body).await.ok(201);
    let nonce = challenge["signIn"]["nonce"].as_str().expect("a nonce");
    assert_eq!(nonce.len(), 22);
    assert_eq!(
        challenge["message"],
        format!(
            "app.example:8443 wants you to sign in with your Ethereum account:\n{address}\n\nI accept.\n\n\
             URI: https://app.example:8443/login\nVersion: 1\nChain ID: 8453\nNonce: {nonce}\n\
             Issued At: 2026-01-15T09:30:00.000Z\nExpiration Time: 2026-01-15T09:31:00.000Z"
        )
    );
    assert!(challenge["id"].as_str().expect("an id").starts_with("own_"));
    assert_eq!(challenge["address"], address);
    assert_eq!(challenge["expiresAt"], "2026-01-15T09:31:00.000Z");

    let ethereum = json!({ "address": address, "chains": ["ethereum"] });
    let elsewhere = world.post("/v1/wallets", ethereum).await.ok(201);
    let wallet = world.wallet(&address).await;
    world.api.clock.set(Millis(NOW.0 + 1000));
    let signature = evm_sign(&key, &challenge["message"]);
    let proof = world.verify(&challenge, &signature).await.ok(200);
    let expected = json!({ "id": challenge["id"], "address": address, "chain": "base", "verified": true,
                           "verifiedAt": "2026-01-15T09:30:01.000Z", "walletId": wallet["id"] });
    assert_eq!(proof, expected);

    let challenge = world.challenge(&address, "ethereum").await;
    let signature = evm_sign(&key, &challenge["message"]);
    let proof = world.verify(&challenge, &signature).await.ok(200);
    assert_eq!(proof["walletId"], elsewhere["id"], "the one on the challenge's chain");
}

#[tokio::test]
async fn a_signed_message_proves_a_solana_address_in_base58_and_in_base64() {
    let world = world().await;
    let (key, address) = solana_key(7);
    for encode in [
        |bytes: [u8; 64]| Family::Solana.format_tx(&TxId::from(bytes)),
        |bytes: [u8; 64]| STANDARD.encode(bytes),
    ] {
        let challenge = world.challenge(&address, "solana").await;
        let said = &challenge["signIn"];
        let nonce = said["nonce"].as_str().expect("a nonce");
        assert_eq!(
            challenge["message"],
            format!(
                "app.example wants you to sign in with your Solana account:\n{address}\n\n\
                 URI: https://app.example\nVersion: 1\nChain ID: mainnet\nNonce: {nonce}\n\
                 Issued At: 2026-01-15T09:30:00.000Z\nExpiration Time: 2026-01-15T09:40:00.000Z"
            )
        );
        let fields = json!({ "domain": "app.example", "address": address, "uri": "https://app.example",
                             "version": "1", "chainId": "mainnet", "nonce": nonce,
                             "issuedAt": "2026-01-15T09:30:00.000Z",
                             "expirationTime": "2026-01-15T09:40:00.000Z" });
        assert_eq!(*said, fields, "no statement: a wallet takes null for a text");
        let signature = encode(solana_sign(&key, &challenge["message"]));
        let proof = world.verify(&challenge, &signature).await.ok(200);
        assert_eq!((&proof["verified"], &proof["walletId"]), (&json!(true), &Value::Null));
    }
}

#[tokio::test]
async fn another_keys_signature_or_one_over_another_message_is_refused_and_uses_nothing_up() {
    let world = world().await;
    let ((key, address), (thief, _)) = (evm_key(7), evm_key(8));
    let challenge = world.challenge(&address, "base").await;
    let other = world.challenge(&address, "base").await;
    assert_ne!(challenge["message"], other["message"]);
    let wrong = evm_sign(&thief, &challenge["message"]);
    let reply = world.verify(&challenge, &wrong).await;
    let detail = reply.is_problem(422, "signature_invalid")["detail"].to_string();
    assert!(detail.contains(&address) && detail.contains("EIP-1271"), "{detail}");
    let replayed = evm_sign(&key, &other["message"]);
    world.verify(&challenge, &replayed).await.is_problem(422, "signature_invalid");
    for bad in ["", "0x", "0x12", "nothing", &wrong[..wrong.len() - 2]] {
        let reply = world.verify(&challenge, bad).await;
        reply.is_problem(400, "invalid_request");
        assert!(reply.field("signature").contains("65 bytes"));
    }
    world.verify(&challenge, &evm_sign(&key, &challenge["message"])).await.ok(200);

    let ((key, address), (thief, _)) = (solana_key(7), solana_key(8));
    let challenge = world.challenge(&address, "solana").await;
    let wrong = STANDARD.encode(solana_sign(&thief, &challenge["message"]));
    world.verify(&challenge, &wrong).await.is_problem(422, "signature_invalid");
    let reply = world.verify(&challenge, "1111").await;
    reply.is_problem(400, "invalid_request");
    assert!(reply.field("signature").contains("64 bytes"));
    let signature = STANDARD.encode(solana_sign(&key, &challenge["message"]));
    world.verify(&challenge, &signature).await.ok(200);
}

#[tokio::test]
async fn a_challenge_serves_once_but_its_answer_can_be_had_again() {
    let world = Arc::new(world().await);
    let (key, address) = evm_key(7);
    let challenge = world.challenge(&address, "base").await;
    let path = format!("{CHALLENGES}/{}/verify", challenge["id"].as_str().expect("an id"));
    let body = json!({ "signature": evm_sign(&key, &challenge["message"]) });
    let send = async || world.repeat(&world.acme, "POST", &path, &body, "once").await;
    let first = send().await.ok(200);
    let again = send().await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.ok(200), first);
    world.post(&path, body.clone()).await.is_problem(409, "challenge_used");
    let wrong = json!({ "signature": "0x12" });
    world.post(&path, wrong).await.is_problem(409, "challenge_used");

    let challenge = world.challenge(&address, "base").await;
    let signature = evm_sign(&key, &challenge["message"]);
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let (world, challenge) = (Arc::clone(&world), challenge.clone());
            let signature = signature.clone();
            tokio::spawn(async move { world.verify(&challenge, &signature).await })
        })
        .collect();
    let mut verified = 0;
    for one in tries {
        let reply = one.await.expect("no panic");
        if reply.status == 200 {
            verified += 1;
        } else {
            reply.is_problem(409, "challenge_used");
        }
    }
    assert_eq!(verified, 1);
}

#[tokio::test]
async fn a_challenge_that_has_expired_says_so() {
    let world = world().await;
    let (key, address) = solana_key(7);
    let challenge = world.challenge(&address, "solana").await;
    let signature = STANDARD.encode(solana_sign(&key, &challenge["message"]));
    world.api.clock.set(NOW.plus(Duration::from_mins(10)));
    let reply = world.verify(&challenge, &signature).await;
    let detail = reply.is_problem(410, "challenge_expired")["detail"].to_string();
    assert!(detail.contains("2026-01-15T09:40:00.000Z"), "{detail}");
    world.challenge(&address, "solana").await;
    world.verify(&challenge, &signature).await.is_problem(410, "challenge_expired");
}

#[tokio::test]
async fn a_challenge_belongs_to_its_tenant_and_needs_the_scope() {
    let world = world().await;
    let (key, address) = evm_key(7);
    world.wallet(&address).await;
    let challenge = world.challenge(&address, "base").await;
    let signature = evm_sign(&key, &challenge["message"]);
    let reply = world.verify_as(&world.other, &challenge, &signature).await;
    reply.is_problem(404, "challenge_not_found");
    let unknown = json!({ "id": "own_x" });
    world.verify(&unknown, &signature).await.is_problem(404, "challenge_not_found");
    let body = json!({ "address": address, "chain": "base", "domain": "app.example" });
    let theirs = world.write_as(&world.other, "POST", CHALLENGES, &body).await.ok(201);
    let signature = evm_sign(&key, &theirs["message"]);
    let proof = world.verify_as(&world.other, &theirs, &signature).await.ok(200);
    assert_eq!(proof["walletId"], Value::Null, "the wallet is another tenant's");

    let (db, ids) = (&world.api.db, &world.api.ids);
    let reader = key::create(db, ids, &Random::System, NOW, "acme", &[Scope::WalletsRead])
        .await
        .expect("a key")
        .1;
    world.write_as(&reader, "POST", CHALLENGES, &body).await.is_problem(403, "forbidden");
    let reply = world.verify_as(&reader, &challenge, &signature).await;
    reply.is_problem(403, "forbidden");
}

#[tokio::test]
async fn nothing_that_is_sent_can_add_a_line_to_the_message() {
    let world = world().await;
    let (_, address) = evm_key(7);
    let send = async |changes: Value| {
        let mut body = json!({ "address": address, "chain": "base", "domain": "app.example" });
        for (name, value) in changes.as_object().expect("fields") {
            body[name] = value.clone();
        }
        world.post(CHALLENGES, body).await
    };
    let lines =
        ["a\nURI: https://thief.example", "a\r\nb", "a\rb", "a\u{2028}b", "a\u{85}b", "a\u{0}b"];
    for text in lines {
        for (field, value) in [
            ("domain", text.to_owned()),
            ("statement", text.to_owned()),
            ("uri", format!("https://app.example/{text}")),
        ] {
            let mut changes = json!({});
            changes[field] = json!(value);
            let reply = send(changes).await;
            reply.is_problem(400, "invalid_request");
            reply.field(field);
        }
        let reply = send(json!({ "address": format!("{address}\n{text}") })).await;
        reply.is_problem(400, "invalid_address");
        send(json!({ "chain": format!("base{text}") })).await.is_problem(400, "unknown_chain");
    }
    let reply = send(json!({ "domain": "https://a", "uri": "a", "statement": "",
                             "expiresInSeconds": 86_401 }))
    .await;
    for field in ["domain", "uri", "statement", "expiresInSeconds"] {
        reply.field(field);
    }
    for (changes, field) in [
        (json!({ "expiresInSeconds": 0 }), "expiresInSeconds"),
        (json!({ "expiresInSeconds": -1 }), "expiresInSeconds"),
        (json!({ "domain": null }), "domain"),
        (json!({ "resources": [] }), "resources"),
    ] {
        let reply = send(changes).await;
        reply.is_problem(400, "invalid_request");
        reply.field(field);
    }
    let plain = send(json!({ "statement": "URI: https://thief.example" })).await.ok(201);
    let message = plain["message"].as_str().expect("a message");
    assert_eq!(message.lines().count(), 11, "a statement stays one: {message}");
}

#[tokio::test]
async fn whoever_has_no_key_is_told_so() {
    let world = world().await;
    let refused = async |address: &str, chain: &str| {
        let body = json!({ "address": address, "chain": chain, "domain": "app.example" });
        world.post(CHALLENGES, body).await
    };
    // The neutral element is a point, but proves nothing; what a program derives is no point at all.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let derived = (2..=255)
        .map(|n| [n; 32])
        .find(|bytes| ed25519_dalek::VerifyingKey::from_bytes(bytes).is_err())
        .expect("half of all texts are no points");
    for address in [neutral, derived] {
        let reply = refused(&base58(address), "solana").await;
        reply.is_problem(400, "invalid_address");
        assert!(reply.field("address").contains("no key"));
    }
    refused("0x12", "base").await.is_problem(400, "invalid_address");
    refused(ALICE, "solana").await.is_problem(400, "invalid_address");

    let wallet = world.wallet(ALICE).await;
    let id = wallet["id"].as_str().expect("an id").parse().expect("an id");
    let state = crate::model::SafeOnChain {
        version: "1.4.1".to_owned(),
        singleton: Address::from([1; 20]),
        trusted: true,
        owners: vec![Address::from([2; 20])],
        threshold: 1,
        plugs: crate::chain::SafePlugs::default(),
        at: crate::chain::BlockRef { number: 1, hash: crate::chain::BlockHash([1; 32]) },
    };
    let tenant = crate::model::TenantNo(1);
    let proof = SafeProof { wallet: id, tenant, state, found_by_owner: false };
    let mut tx = world.api.db.begin().await.expect("a transaction");
    crate::store::safe::write_proof(&mut tx.conn(), &proof, NOW).await.expect("a Safe");
    tx.commit().await.expect("a commit");
    let reply = refused(ALICE, "base").await;
    let detail = reply.is_problem(422, "contract_wallet_unsupported")["detail"].to_string();
    assert!(detail.contains("EIP-1271"), "{detail}");

    let challenge = world.challenge(BOB, "base").await;
    let wrapped = format!("0x{}", "ab".repeat(320));
    world.verify(&challenge, &wrapped).await.is_problem(422, "contract_wallet_unsupported");
}

#[tokio::test]
async fn the_store_refuses_a_proof_that_came_too_late() {
    let world = world().await;
    let (_, address) = evm_key(7);
    let challenge = world.challenge(&address, "base").await;
    let id = challenge["id"].as_str().expect("an id").parse().expect("an id");
    let use_up = async |now: Millis| {
        let mut session = world.api.db.begin().await.expect("a transaction");
        let row = crate::store::key::valid_key(&mut session.conn(), &key::hash(&world.acme)).await;
        let tenant = row.expect("a row").expect("a key").tenant_id;
        ownership::use_up(&mut session.conn(), tenant, id, now).await
    };
    let late = use_up(NOW.plus(Duration::from_mins(10))).await;
    assert!(late.expect_err("a constraint").is_conflict());
    assert!(use_up(NOW).await.expect("in time"));
}
