//! `tidemark dev`, as a newcomer runs it.

use std::{process::Stdio, time::Duration};

use tidemark::dev::anvil::terminate;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::harness::tidemark;

async fn once_shows(arguments: &[&str], everything: &[&str]) {
    let usual = ["deposit.pending", "deposit.available", "tmk_", "curl"];
    let run = tidemark().args(arguments).output();
    let output = tokio::time::timeout(Duration::from_secs(150), run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    for needed in usual.iter().chain(everything) {
        assert!(said.contains(needed), "no {needed} in:\n{said}");
    }
}

#[tokio::test]
async fn dev_once_shows_everything_and_ends_with_0() {
    once_shows(&["dev", "--once"], &["safe_deployment.completed"]).await;
}

#[tokio::test]
async fn dev_once_on_solana_shows_everything_and_ends_with_0() {
    once_shows(&["dev", "--solana", "--once"], &["withdrawal.settled"]).await;
}

#[tokio::test]
async fn dev_with_three_daemons_replaces_the_one_that_is_killed_and_every_balance_is_exact() {
    let shown =
        ["kill -9 of daemon", "are followed again after", "again", "every balance is exact"];
    once_shows(&["dev", "--daemons", "3", "--once"], &shown).await;
}

#[tokio::test]
async fn the_printed_curl_lines_work_as_pasted_and_sigterm_ends_dev_with_0() {
    try_curl_lines(&["dev"]).await;
}

#[tokio::test]
async fn on_solana_the_printed_curl_lines_work_as_pasted_too() {
    try_curl_lines(&["dev", "--solana"]).await;
}

async fn try_curl_lines(arguments: &[&str]) {
    let mut child = tidemark().args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut commands: Vec<String> = Vec::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let line = line.trim();
            match commands.last_mut() {
                Some(last) if last.ends_with('\\') => {
                    last.pop();
                    last.push_str(line);
                }
                _ if line.starts_with("curl ") => commands.push(line.to_owned()),
                _ => {}
            }
            if line.contains("deposit.pending") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(2), reading).await.unwrap();
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        let failing = command.replacen("curl ", "curl --fail-with-body ", 1);
        let output =
            tokio::process::Command::new("sh").args(["-c", &failing]).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.is_empty(), "{command}\n{said}");
    }
    let drain = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    terminate(&child).await.unwrap();
    let status =
        tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    drain.await.unwrap();
}
