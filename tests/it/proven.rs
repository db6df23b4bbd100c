//! What a balance is, shown to somebody who believes neither the daemon nor its node.

use std::{path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Api, Daemon, Node, Settings, on_both_stores, tidemark};

/// The exit code of `tidemark verify-proof`, and all that it says.
async fn verify(arguments: &[&str], input: &str) -> (i32, String) {
    let mut command = tidemark();
    command.arg("verify-proof").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads a file leaves it alone.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), format!("{out}{err}"))
}

async fn proof(api: &Api, wallet: &str, query: &str) -> Value {
    api.get(&format!("/v1/wallets/{wallet}/proof?{query}")).await.ok()
}

/// Flips a digit in the middle of every text of a proof that is part of it, one after the other.
fn changed(proof: &Value) -> Vec<(String, Value)> {
    let mut places: Vec<String> =
        ["/address", "/balance/raw", "/block/hash", "/block/time", "/header", "/account"]
            .map(str::to_owned)
            .to_vec();
    let list = |of: &str| proof.pointer(of).and_then(Value::as_array).map_or(0, Vec::len);
    places.extend((0..list("/accountProof")).map(|n| format!("/accountProof/{n}")));
    if list("/storageProof") > 0 {
        places.extend(["slot"].map(|of| format!("/place/{of}")));
        places.extend(["key", "value"].map(|of| format!("/storageProof/0/{of}")));
        places.extend(
            (0..list("/storageProof/0/proof")).map(|n| format!("/storageProof/0/proof/{n}")),
        );
    }
    let other = |place: String| {
        let mut proof = proof.clone();
        let text = proof.pointer(&place).and_then(Value::as_str).unwrap().to_owned();
        let at =
            text.len() / 2 + text[text.len() / 2..].find(|c: char| c.is_ascii_digit()).unwrap_or(0);
        let digit = if &text[at..=at] == "7" { "8" } else { "7" };
        let text = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
        *proof.pointer_mut(&place).unwrap() = json!(text);
        (place, proof)
    };
    places.into_iter().map(other).collect()
}

on_both_stores! {
    async fn a_balance_is_proven_to_whoever_knows_the_block_and_to_nobody_by_anything_else(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let address = Node::stranger();
        let wallet = api.watch(address).await["id"].as_str().unwrap().to_owned();
        node.mint(address, 1_500_000).await;
        node.mint(Node::stranger(), 77).await;
        node.pay(node.accounts[0], address, 12).await;
        node.settle().await;
        api.balances_settled(address, &node).await;
        let settled = api.balances(address).await["asOf"][0]["settled"].clone();
        let folder = tempfile::tempdir().unwrap();
        for (asset, raw) in [("dusd", "1500000"), ("eth", "12")] {
            let proof = proof(&api, &wallet, &format!("asset={asset}&chain=local")).await;
            assert_eq!(proof["balance"]["raw"], raw);
            assert_eq!(proof["block"], settled);
            assert_eq!((&proof["settled"], &proof["anchored"]), (&json!(true), &json!(true)));
            let text = proof.to_string();
            let file = folder.path().join(format!("{asset}.json"));
            std::fs::write(&file, &text).unwrap();
            if let Some(folder) = std::env::var_os("TIDEMARK_RECORD_PROOFS") {
                std::fs::write(Path::new(&folder).join(format!("{asset}.json")), &text).unwrap();
            }
            let hash = proof["block"]["hash"].as_str().unwrap();
            let file = file.to_str().unwrap();
            for arguments in [&[file][..], &["-"], &[], &[file, "--block-hash", hash]] {
                let (code, said) = verify(arguments, &text).await;
                assert_eq!(code, 0, "{arguments:?}: {said}");
                let holds = format!("{} has {raw} base units", address.to_checksum(None));
                assert!(said.contains(&holds), "{said}");
            }
            let (code, said) = verify(&["--block-hash", &format!("0x{}", "5a".repeat(32))], &text).await;
            assert_eq!(code, 1, "{said}");
            for (place, other) in changed(&proof) {
                let (code, said) = verify(&[], &other.to_string()).await;
                assert_eq!(code, 1, "{place}: {said}");
            }
        }
        let missing = folder.path().join("missing.json");
        assert_eq!(verify(&[missing.to_str().unwrap()], "").await.0, 2);
        assert_eq!(verify(&[], "no proof").await.0, 1);
    }

    async fn any_block_whose_state_a_node_has_is_proven_and_which_are_followed_is_said(store) {
        let node = Node::start().await;
        let mut settings = Settings::new(&node, &store);
        settings.chain.push_str("sweep_per_minute = 0");
        let daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let address = Node::stranger();
        node.mint(address, 5).await;
        let first = node.head().await.unwrap().number.to::<u64>();
        let wallet = api.watch(address).await["id"].as_str().unwrap().to_owned();
        node.mine(80).await.unwrap();
        node.mint(address, 6).await;
        let head = node.head().await.unwrap().number.to::<u64>();
        api.balances_at_head(address, &node).await;
        // Older blocks are forgotten with it.
        api.balances_settled(address, &node).await;
        for (block, raw, anchored) in [(first - 1, "0", false), (first, "5", false), (head, "11", true)] {
            let proof = proof(&api, &wallet, &format!("asset=dusd&block={block}")).await;
            assert_eq!(proof["balance"]["raw"], raw, "after block {block}");
            assert_eq!(proof["block"]["number"], block);
            assert_eq!(proof["anchored"], anchored, "block {block}");
            assert_eq!(proof["settled"], block != head);
            let (code, said) = verify(&[], &proof.to_string()).await;
            assert_eq!(code, 0, "{said}");
        }
        let path = format!("/v1/wallets/{wallet}/proof?asset=dusd&block={}", head + 1);
        api.get(&path).await.is_error(409, "not_covered");
    }
}
