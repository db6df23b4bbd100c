//! Fuzzing of every decoder of a stranger's bytes, by `cargo test` on the stable toolchain.
//!
//! A target is a test in a module named `fuzz`: it hands [`run`] the name of its corpus, a folder below
//! `src/fuzz/corpus`, and a function that decodes an input, checks what it promises, and says in a word what
//! came of it. Inputs are the documents of the corpus and what [`mutate`] makes of them; one with an outcome
//! that was not seen before is mutated further, so that the way leads past the first parse.
//!
//! - `cargo test --lib fuzz`: each target for some seconds.
//! - `TIDEMARK_FUZZ_SECONDS=3600 cargo test --lib fuzz`: each for an hour, as many at once as there are cores.
//! - `TIDEMARK_FUZZ_SEED=7 …`: the inputs of that seed again.
//! - `TIDEMARK_FUZZ_INPUT=path …`: that file alone.
//!
//! What a target fails on is made smaller and kept in a file, whose path is told with the seed. With the cure it
//! goes into the corpus.

mod mutate;

use std::{
    any::Any,
    cell::Cell,
    collections::HashSet,
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Once,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

const SECONDS: &str = "TIDEMARK_FUZZ_SECONDS";
const SEED: &str = "TIDEMARK_FUZZ_SEED";
const INPUT: &str = "TIDEMARK_FUZZ_INPUT";

/// How long a target runs where nobody says otherwise.
const USUAL: Duration = Duration::from_secs(2);
/// How long the smaller forms of what failed are looked for.
const TO_MINIMISE: Duration = Duration::from_secs(10);
/// Time on a processor that decoding takes at most, in a build for tests: so much, and so much per byte of the
/// input. What grows with the square of the input is beyond it.
const AT_MOST: Duration = Duration::from_millis(250);
const AT_MOST_PER_BYTE: Duration = Duration::from_micros(1);
/// Inputs with new outcomes that are mutated further.
const MOST_FOUND: usize = 2048;
/// Bytes of such an input at most.
const LONGEST_FOUND: usize = 32 * 1024;

thread_local! {
    /// Whether this thread's panics are expected, and said by nobody but [`run`].
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `check` on the corpus of that name, on `more`, and on mutations of both, until the time is over.
///
/// # Panics
/// If `check` panics, or takes too long, with what it panicked on made small.
pub(crate) fn run(name: &str, more: Vec<Vec<u8>>, check: impl Fn(&[u8]) -> String) {
    be_quiet_on_purpose();
    if let Some(path) = env::var_os(INPUT) {
        let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("{name}: {}", check(&input));
        return;
    }
    let seed = number(SEED).unwrap_or_else(|| rand::rng().random());
    let seconds = number(SECONDS).map_or(USUAL, Duration::from_secs);
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut pool = corpus(name);
    pool.extend(more);
    assert!(!pool.is_empty(), "{name} has no corpus");
    let mut outcomes = HashSet::new();
    for input in &pool {
        let outcome =
            attempt(&check, input).unwrap_or_else(|why| fail(name, None, input, &why, &check));
        outcomes.insert(word(&outcome));
    }
    let (given, began, mut inputs) = (pool.len(), Instant::now(), 0_u64);
    while began.elapsed() < seconds {
        let input = mutate::document(&pool, given, &mut rng);
        inputs += 1;
        let outcome = attempt(&check, &input)
            .unwrap_or_else(|why| fail(name, Some(seed), &input, &why, &check));
        let new = outcomes.insert(word(&outcome));
        if new && input.len() <= LONGEST_FOUND && pool.len() < given + MOST_FOUND {
            pool.push(input);
        }
    }
    println!("{name}: {inputs} inputs, {} outcomes, seed {seed}", outcomes.len());
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a number")))
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/fuzz/corpus").join(name);
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a readable file")).collect()
}

/// What came of an input, or why that is not allowed.
fn attempt(check: &impl Fn(&[u8]) -> String, input: &[u8]) -> Result<String, String> {
    let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
    let at_most = AT_MOST + AT_MOST_PER_BYTE * length;
    let mut took = Duration::MAX;
    // Whatever else runs on the machine can be slow once, not each time.
    for _ in 0..3 {
        let began = spent();
        QUIET.set(true);
        let done = catch_unwind(AssertUnwindSafe(|| check(input)));
        QUIET.set(false);
        let outcome = done.map_err(|panic| said(&*panic))?;
        took = took.min(spent().saturating_sub(began));
        if took <= at_most {
            return Ok(outcome);
        }
    }
    Err(format!("{took:?} for {length} bytes, where {at_most:?} are allowed"))
}

/// The time that this thread had a processor.
fn spent() -> Duration {
    thread_local! {
        static BEGAN: Instant = Instant::now();
    }
    // Nanoseconds come first.
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    nanoseconds.map_or_else(|| BEGAN.with(Instant::elapsed), Duration::from_nanos)
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("no message").to_owned()
}

/// Leaves the panics that are caught here to whoever catches them.
fn be_quiet_on_purpose() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
}

/// One failure told from another: its text without figures, as far as it is likely to stay the same.
fn kind(why: &str) -> String {
    why.chars().filter(|character| character.is_alphabetic()).take(24).collect()
}

/// Ends the target with the smallest input that is found to fail in the same way.
fn fail(
    name: &str,
    seed: Option<u64>,
    input: &[u8],
    why: &str,
    check: &impl Fn(&[u8]) -> String,
) -> ! {
    let wanted = kind(why);
    let fails = |input: &[u8]| attempt(check, input).is_err_and(|why| kind(&why) == wanted);
    let small = mutate::minimise(input, Instant::now() + TO_MINIMISE, fails);
    let mut hasher = DefaultHasher::new();
    small.hash(&mut hasher);
    let folder = env::temp_dir().join("tidemark-fuzz");
    let path = folder.join(format!("{name}-{:016x}", hasher.finish()));
    let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &small));
    let kept =
        kept.map_or_else(|error| format!("not kept: {error}"), |()| path.display().to_string());
    let shown: String = String::from_utf8_lossy(&small).chars().take(2000).collect();
    let from = seed.map_or_else(|| "the corpus".to_owned(), |seed| format!("{SEED}={seed}"));
    panic!(
        "{name} ({from}): {why}\n{} bytes, made smaller from {}: {INPUT}={kept} runs them again, and \
         src/fuzz/corpus/{name} is their place with the cure\n{shown}",
        small.len(),
        input.len(),
    );
}

/// An outcome without figures, and without what it quotes: of those there are too many.
fn word(outcome: &str) -> String {
    let said = outcome.split(['"', '`']).step_by(2).flat_map(str::chars);
    said.filter(|character| !character.is_ascii_digit()).take(100).collect()
}

/// The order of magnitude of a number, as a word in an outcome.
pub(crate) fn about(number: usize) -> &'static str {
    ["none", "one", "few", "some", "many"]
        [number.min(1) + number.checked_ilog(8).unwrap_or(0).min(3) as usize]
}

#[test]
fn what_a_target_fails_on_is_found_made_small_and_told() {
    let document = br#"{"a":{"b":[1,2,3],"number":"0x10"},"c":"text"}"#.to_vec();
    let check = |input: &[u8]| {
        let value: Result<serde_json::Value, _> = serde_json::from_slice(input);
        let Ok(value) = value else { return "no JSON".to_owned() };
        assert!(value["a"]["number"] != "0xffffffffffffffff", "too large a number");
        "JSON".to_owned()
    };
    // In two seconds of a busy machine it may not be.
    let begin = || catch_unwind(AssertUnwindSafe(|| run("itself", vec![document.clone()], check)));
    let failed = (0..30).find_map(|_| begin().err()).expect("it is found");
    let text = said(&*failed);
    assert!(text.contains("too large a number") && text.contains(SEED), "{text}");
    // However it is written: a letter may stand there as its number.
    let small = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let smallest = serde_json::json!({"a": {"number": "0xffffffffffffffff"}});
    assert_eq!(small, Some(smallest), "{text}");
}

#[test]
fn what_takes_too_long_for_its_length_is_a_failure() {
    let slow = |input: &[u8]| {
        let count = input.iter().flat_map(|a| input.iter().filter(move |b| a == *b)).count();
        count.to_string()
    };
    assert!(attempt(&slow, &[7; 100]).is_ok());
    let why = attempt(&slow, &vec![7; 20_000]).expect_err("its square");
    assert!(why.contains("for 20000 bytes"), "{why}");
}
