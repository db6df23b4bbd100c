//! `tidemark dev`, as a newcomer runs it.

use std::{process::Stdio, time::Duration};

use tidemark::dev::anvil::terminate;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::harness::tidemark;

#[tokio::test]
async fn dev_once_shows_everything_and_ends_with_0() {
    let run = tidemark().args(["dev", "--once"]).output();
    let output = tokio::time::timeout(Duration::from_secs(150), run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    for needed in
        ["deposit.pending", "deposit.available", "safe_deployment.completed", "tmk_", "curl"]
    {
        assert!(said.contains(needed), "no {needed} in:\n{said}");
    }
}

#[tokio::test]
async fn the_printed_curl_lines_work_as_pasted_and_sigterm_ends_dev_with_0() {
    let mut child = tidemark().arg("dev").stdout(Stdio::piped()).spawn().unwrap();
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
