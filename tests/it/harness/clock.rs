//! A wrong clock for a process, by libfaketime, as Debian has it.

use std::path::PathBuf;

/// Makes a process believe that it is so many seconds later than it is. Durations are not touched.
pub fn wrong_by(seconds: i64) -> Vec<(String, String)> {
    [
        ("LD_PRELOAD", library().to_str().unwrap().to_owned()),
        ("FAKETIME", format!("{seconds:+}")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        // The same for older versions.
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// The variant for processes with threads, in the folder of the machine's own kind.
fn library() -> PathBuf {
    std::fs::read_dir("/usr/lib")
        .unwrap()
        .map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
        .expect("libfaketime is missing: run tests/run")
}
