//! Taking a node's answers apart: on threads that may be busy for a while, and so that a panic in it is told
//! as what it is, a bug of ours. The node is not blamed, and what it said is kept for the bug report.

use std::{
    any::Any,
    collections::HashSet,
    fs,
    io::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use alloy::primitives::Keccak256;
use futures::FutureExt as _;
use parking_lot::Mutex;

use super::{Answer, Failure};
use crate::{chain::ChainName, metrics::Metrics};

/// Below the data folder.
const FOLDER: &str = "decoder-panics";
/// Files that are kept; the first ones, until somebody takes them away.
const MAX_FILES: usize = 20;
/// Bytes of answers in one file.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Different panics that are remembered as told.
const MAX_TOLD: usize = 1024;

/// Takes the answers of one chain's nodes apart.
pub(in crate::chain) struct Decoder {
    chain: ChainName,
    metrics: Metrics,
    /// Where answers are kept, if anywhere.
    folder: OnceLock<PathBuf>,
    /// What was told already, so that a block that is tried again and again is told once.
    told: Mutex<HashSet<String>>,
    /// Where it panics, and how often yet.
    #[cfg(test)]
    broken: Mutex<(&'static str, u32)>,
}

impl Decoder {
    pub fn new(chain: ChainName, metrics: Metrics) -> Self {
        // That nothing has panicked is to be seen as well: an alert needs the step from 0 to 1.
        metrics.decoder_panics_total.with_label_values(&[chain.as_str()]).inc_by(0);
        Self {
            chain,
            metrics,
            folder: OnceLock::new(),
            told: Mutex::default(),
            #[cfg(test)]
            broken: Mutex::default(),
        }
    }

    /// Keeps from now on, below the data folder, what it fails to read.
    pub fn keep_in(&self, data: &Path) {
        // The first folder stays.
        let _ = self.folder.set(data.join(FOLDER));
    }

    /// Runs `work` on a thread for work that keeps a processor busy. `what` says what the answers are of.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        what: String,
        answers: Vec<Answer>,
        work: impl FnOnce(&[Answer]) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let decoder = Arc::clone(self);
        let done =
            tokio::task::spawn_blocking(move || decoder.here(&what, &answers, || work(&answers)));
        // It cannot panic: it ends like this only with the runtime.
        done.await.unwrap_or_else(|error| Err(Failure::Refused(error.to_string())))
    }

    /// Runs `work` at once.
    pub fn here<T>(
        &self,
        what: &str,
        answers: &[Answer],
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.attempt(what, work).unwrap_or_else(|panic| Err(self.report(what, answers, &panic)))
    }

    /// Runs `work` at once; a panic is for the caller to look into: nothing is told of it.
    pub fn attempt<T>(&self, what: &str, work: impl FnOnce() -> T) -> Result<T, String> {
        // What `work` borrows is read only, or behind locks that are not held while it runs.
        let guarded = AssertUnwindSafe(|| {
            self.break_down(what);
            work()
        });
        catch_unwind(guarded).map_err(|panic| message(&*panic))
    }

    /// Lets no panic out of what talks with a node and takes other things than blocks apart.
    pub async fn guarded<T>(
        &self,
        what: &str,
        talk: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        // What panicked is not polled again, and what it shares is behind locks.
        let done = AssertUnwindSafe(talk).catch_unwind().await;
        done.map_err(|panic| self.report(what, &[], &message(&*panic)))
    }

    fn report(&self, what: &str, answers: &[Answer], panic: &str) -> Failure {
        let chain = &self.chain;
        self.metrics.decoder_panics_total.with_label_values(&[chain.as_str()]).inc();
        let failure = Failure::Bug(format!("{what}: {panic}"));
        let name = format!("{chain}-{}.json", digest(what, panic, answers));
        {
            let mut told = self.told.lock();
            if told.contains(&name) {
                tracing::debug!(%chain, what, panic, "tidemark failed again to read what a node says");
                return failure;
            }
            if told.len() < MAX_TOLD {
                told.insert(name.clone());
            }
        }
        let saved = match self.folder.get() {
            Some(folder) if !answers.is_empty() => {
                match self.save(folder, &name, what, panic, answers) {
                    Ok(path) => path.display().to_string(),
                    Err(error) => format!("not saved: {error}"),
                }
            }
            _ => "not saved".to_owned(),
        };
        tracing::error!(
            %chain,
            what,
            panic,
            saved,
            "tidemark failed to read what a node says: a bug of its own, not the node's. It is tried again, and \
             a block is not passed over: report it with the saved file"
        );
        failure
    }

    fn save(
        &self,
        folder: &Path,
        name: &str,
        what: &str,
        panic: &str,
        answers: &[Answer],
    ) -> io::Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let path = folder.join(name);
        if path.exists() {
            return Ok(path);
        }
        if fs::read_dir(folder)?.count() >= MAX_FILES {
            return Err(io::Error::other(format!(
                "there are {MAX_FILES} files in {} already",
                folder.display()
            )));
        }
        let mut left = MAX_BYTES;
        let fits = |answer: &&Answer| {
            let fits = answer.as_bytes().len() <= left;
            left -= if fits { answer.as_bytes().len() } else { 0 };
            fits
        };
        let kept: Vec<&Answer> = answers.iter().filter(fits).collect();
        let text = |text: &str| serde_json::to_string(text).map_err(io::Error::other);
        let mut file = fs::File::create_new(&path)?;
        write!(
            file,
            r#"{{"version":"{}","chain":"{}","what":{},"panic":{},"left_out":{},"answers":["#,
            env!("CARGO_PKG_VERSION"),
            self.chain,
            text(what)?,
            text(panic)?,
            answers.len() - kept.len(),
        )?;
        for (n, answer) in kept.into_iter().enumerate() {
            file.write_all(if n == 0 { b"\n" } else { b",\n" })?;
            file.write_all(answer.as_bytes())?;
        }
        file.write_all(b"\n]}\n")?;
        Ok(path)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "in the tests it breaks down where it is told to")]
    fn break_down(&self, _what: &str) {}

    #[cfg(test)]
    fn break_down(&self, what: &str) {
        let (at, left) = *self.broken.lock();
        if at == what && left > 0 {
            *self.broken.lock() = (at, left - 1);
            panic!("told to panic at {what}");
        }
    }

    /// It panics so often where it is to read that.
    #[cfg(test)]
    pub fn break_at(&self, what: &'static str, times: u32) {
        *self.broken.lock() = (what, times);
    }
}

/// What was said in a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    said.or_else(|| panic.downcast_ref().copied()).unwrap_or("no message").to_owned()
}

/// Tells one panic from another.
fn digest(what: &str, panic: &str, answers: &[Answer]) -> String {
    let mut hash = Keccak256::new();
    for text in [what, panic] {
        hash.update(text);
        hash.update([0]);
    }
    for answer in answers {
        hash.update(answer.as_bytes());
    }
    hex::encode(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use alloy::primitives::bytes::Bytes;

    use super::*;

    fn decoder(data: Option<&Path>) -> Decoder {
        let decoder = Decoder::new(ChainName::new("anvil"), Metrics::new());
        if let Some(data) = data {
            decoder.keep_in(data);
        }
        decoder
    }

    fn panics(decoder: &Decoder) -> u64 {
        decoder.metrics.decoder_panics_total.with_label_values(&["anvil"]).get()
    }

    fn answer(text: impl Into<Bytes>) -> Answer {
        Answer(text.into())
    }

    fn fail(decoder: &Decoder, what: &str, answers: &[Answer]) -> Failure {
        let work = || -> Result<(), Failure> { panic!("index {} is out of range", 7) };
        decoder.here(what, answers, work).expect_err("a panic")
    }

    fn files(data: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(data.join(FOLDER)).expect("a folder");
        entries.map(|entry| entry.expect("a file").path()).collect()
    }

    #[test]
    fn a_panic_is_counted_and_what_was_read_is_kept_once() {
        let data = tempfile::tempdir().expect("a folder");
        let decoder = decoder(Some(data.path()));
        assert_eq!(decoder.here("block 1", &[], || Ok(5)), Ok(5));
        let answers = [answer(r#"{"number":"0x1"}"#), answer("[]")];
        for n in 1..=3 {
            let failure = fail(&decoder, "block 1", &answers);
            assert_eq!(failure, Failure::Bug("block 1: index 7 is out of range".to_owned()));
            assert_eq!(panics(&decoder), n);
        }
        let files = files(data.path());
        assert_eq!(files.len(), 1);
        let text = fs::read_to_string(&files[0]).expect("a text");
        let kept: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(kept["what"], "block 1");
        assert_eq!(kept["panic"], "index 7 is out of range");
        assert_eq!(kept["answers"], serde_json::json!([{"number": "0x1"}, []]));
    }

    #[test]
    fn files_are_few_and_small() {
        let data = tempfile::tempdir().expect("a folder");
        let decoder = decoder(Some(data.path()));
        let long = format!("\"{}\"", "x".repeat(MAX_BYTES));
        fail(&decoder, "a long one", &[answer(long), answer("7")]);
        let kept = fs::read_to_string(&files(data.path())[0]).expect("a text");
        assert!(kept.contains(r#""left_out":1,"#) && kept.ends_with("[\n7\n]}\n"), "{kept:.300}");
        for n in 0..2 * MAX_FILES {
            fail(&decoder, &format!("block {n}"), &[answer("7")]);
        }
        assert_eq!(files(data.path()).len(), MAX_FILES);
        assert_eq!(panics(&decoder), 2 * MAX_FILES as u64 + 1);
    }

    #[test]
    fn without_a_folder_a_panic_is_told_all_the_same() {
        let decoder = decoder(None);
        assert!(matches!(fail(&decoder, "block 1", &[answer("7")]), Failure::Bug(_)));
        assert_eq!(panics(&decoder), 1);
    }

    #[tokio::test]
    async fn a_question_that_panics_is_a_failure_of_ours() {
        let decoder = decoder(None);
        let answers: Vec<u8> = Vec::new();
        let question = decoder.guarded("an answer", async { answers[0] }).await;
        assert!(matches!(question, Err(Failure::Bug(_))), "{question:?}");
        assert_eq!(panics(&decoder), 1);
    }
}
