//! Documents changed so that they keep most of their shape: JSON, TOML, HTTP and plain words alike.

use std::{ops::Range, time::Instant};

use rand::{Rng as _, rngs::SmallRng, seq::IndexedRandom as _};

/// Bytes of a document at most: most of them are short, so that there are many.
const LONG: usize = 16 * 1024;
const LONGEST: usize = 256 * 1024;
/// One document in so many may be as long as the longest.
const SHORT_TO_LONG: u32 = 200;
/// Brackets around a value at most: deeper than any recursion goes well.
const DEEPEST: usize = 20_000;
/// Changes of one document at most.
const MOST_CHANGES: u32 = 5;

/// What a decoder is likely not to expect, bare or in quotes.
const EXTREMES: &[&str] = &[
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "",
    "0",
    "-0",
    "1",
    "-1",
    "0.1",
    "1e400",
    "nan",
    "255",
    "256",
    "4294967295",
    "4294967296",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "115792089237316195423570985008687907853269984665640564039457584007913129639935",
    "115792089237316195423570985008687907853269984665640564039457584007913129639936",
    "0x",
    "0x0",
    "0x1",
    "0x01",
    "0x20000000000000",
    "0x20000000000001",
    "0x7fffffffffffffff",
    "0x8000000000000000",
    "0xffffffffffffffff",
    "0x10000000000000000",
    "0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0x10000000000000000000000000000000000000000000000000000000000000000",
    "11111111111111111111111111111111",
    "1111111111111111111111111111111111111111111111111111111111111111",
    "\\u0000",
    "\\ud800",
    "\\",
    "é",
    "𝟘",
    " ",
    "\r\n",
    ":",
    "%00",
    "+1",
    "99999999999-12-31T23:59:59Z",
];

/// Words of the ABI: lengths, offsets and amounts that do not fit.
const WORDS: &[&str] = &[
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000001",
    "0000000000000000000000000000000000000000000000000000000000000020",
    "0000000000000000000000000000000000000000000000000000000000000040",
    "0000000000000000000000000000000000000000000000007fffffffffffffff",
    "0000000000000000000000000000000000000000000000008000000000000000",
    "000000000000000000000000000000000000000000000000ffffffffffffffe0",
    "000000000000000000000000000000000000000000000000ffffffffffffffff",
    "0000000000000000000000000000000000000000000000010000000000000000",
    "000000000000000000000000ffffffffffffffffffffffffffffffffffffffff",
    "8000000000000000000000000000000000000000000000000000000000000000",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

/// Where the parts of a document are, as far as it has any.
#[derive(Default)]
struct Parts {
    /// Texts in quotes, numbers and words.
    scalars: Vec<Range<usize>>,
    /// What brackets hold, with them.
    groups: Vec<Range<usize>>,
    /// What stands between two commas, and lines.
    members: Vec<Range<usize>>,
}

impl Parts {
    fn of(text: &[u8]) -> Self {
        let mut parts = Self::default();
        // Where a group begins, and its member.
        let mut open: Vec<(usize, usize)> = Vec::new();
        let (mut line, mut at) = (0, 0);
        while at < text.len() {
            let begin = at;
            at += 1;
            match text[begin] {
                quote @ (b'"' | b'\'') => {
                    while at < text.len() && text[at] != quote && text[at] != b'\n' {
                        at += if text[at] == b'\\' { 2 } else { 1 };
                    }
                    at = (at + 1).min(text.len());
                    parts.scalars.push(begin..at);
                }
                b'[' | b'{' => open.push((begin, at)),
                b']' | b'}' => {
                    if let Some((group, member)) = open.pop() {
                        parts.members.push(member..begin);
                        parts.groups.push(group..at);
                    }
                }
                b',' => {
                    if let Some((_, member)) = open.last_mut() {
                        parts.members.push(*member..begin);
                        *member = at;
                    }
                }
                b'\n' if open.is_empty() => {
                    parts.members.push(line..begin);
                    line = at;
                }
                byte if is_word(byte) => {
                    while at < text.len() && is_word(text[at]) {
                        at += 1;
                    }
                    parts.scalars.push(begin..at);
                }
                _ => {}
            }
        }
        parts.members.retain(|member| !member.is_empty());
        parts
    }

    fn value(&self, rng: &mut SmallRng) -> Option<Range<usize>> {
        let groups = rng.random_bool(0.3) && !self.groups.is_empty();
        if groups { &self.groups } else { &self.scalars }.choose(rng).cloned()
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_')
}

/// A document made by a few changes from one of `pool`, of which the first `given` are the corpus. Every other
/// one is made from that: most of what was found since is broken somewhere.
pub(super) fn document(pool: &[Vec<u8>], given: usize, rng: &mut SmallRng) -> Vec<u8> {
    let from = if rng.random_bool(0.5) { &pool[..given] } else { pool };
    let mut text = from.choose(rng).cloned().unwrap_or_default();
    let longest = if rng.random_ratio(1, SHORT_TO_LONG) { LONGEST } else { LONG };
    for _ in 0..rng.random_range(1..=MOST_CHANGES) {
        let longest = longest.max(text.len());
        change(&mut text, pool, longest, rng);
    }
    text
}

/// Changes `text` once. Parts of the documents in `pool` may come into it.
fn change(text: &mut Vec<u8>, pool: &[Vec<u8>], longest: usize, rng: &mut SmallRng) {
    let parts = Parts::of(text);
    let changed = match rng.random_range(0..16) {
        0 => bytes(text, rng),
        1..=3 => extreme(text, &parts, rng),
        4 | 5 => splice(text, &parts, pool, rng),
        6 | 7 => leave_out(text, &parts, rng),
        8 => repeat(text, &parts, longest, rng),
        9 => nest(text, &parts, longest, rng),
        10 | 11 => swap(text, &parts, rng),
        12..=14 => digits(text, &parts, rng),
        _ => escape(text, &parts, rng),
    };
    if changed.is_none() {
        // It has no such part.
        bytes(text, rng);
    }
    text.truncate(longest);
}

/// Without regard to any parts.
fn bytes(text: &mut Vec<u8>, rng: &mut SmallRng) -> Option<()> {
    let at = rng.random_range(0..=text.len());
    let end = (at + rng.random_range(0..=16)).min(text.len());
    match rng.random_range(0..6) {
        0 => {
            let byte = text.get_mut(at)?;
            *byte ^= 1 << rng.random_range(0..8);
        }
        1 => *text.get_mut(at)? = *b"\0\x7f\x80\xc0\xff\"\\,:[]{}0f- \n".choose(rng)?,
        2 => drop(text.drain(at..end)),
        3 => {
            let copy = text[at..end].to_vec();
            text.splice(at..at, copy);
        }
        4 => text.truncate(at),
        _ => text.insert(at, rng.random()),
    }
    Some(())
}

fn extreme(text: &mut Vec<u8>, parts: &Parts, rng: &mut SmallRng) -> Option<()> {
    let mut place = parts.value(rng)?;
    let value = EXTREMES.choose(rng)?;
    let quoted = matches!(text[place.start], b'"' | b'\'') && place.len() >= 2;
    if quoted && rng.random_bool(0.7) {
        place = place.start + 1..place.end - 1;
    }
    text.splice(place, value.bytes());
    Some(())
}

/// A value of another document, or of another place in this one, in place of a value.
fn splice(text: &mut Vec<u8>, parts: &Parts, pool: &[Vec<u8>], rng: &mut SmallRng) -> Option<()> {
    let place = parts.value(rng)?;
    let value = if rng.random_bool(0.7) {
        text[parts.value(rng)?].to_vec()
    } else {
        let other = pool.choose(rng)?;
        other[Parts::of(other).value(rng)?].to_vec()
    };
    text.splice(place, value);
    Some(())
}

fn leave_out(text: &mut Vec<u8>, parts: &Parts, rng: &mut SmallRng) -> Option<()> {
    let member = parts.members.choose(rng)?.clone();
    without(text, member);
    Some(())
}

/// Takes a member out, with one of the commas around it.
fn without(text: &mut Vec<u8>, Range { mut start, mut end }: Range<usize>) {
    if text.get(end).is_some_and(|byte| matches!(byte, b',' | b'\n')) {
        end += 1;
    } else if start > 0 && text[start - 1] == b',' {
        start -= 1;
    }
    text.drain(start..end);
}

/// A member, again and again: keys that stand twice, and long lists.
fn repeat(text: &mut Vec<u8>, parts: &Parts, longest: usize, rng: &mut SmallRng) -> Option<()> {
    let member = parts.members.choose(rng)?.clone();
    let times = *[1, 1, 2, 17, 257, 4000].choose(rng)?;
    let separator = text.get(member.end).filter(|byte| **byte == b'\n').copied().unwrap_or(b',');
    let mut copy = text[member.clone()].to_vec();
    copy.push(separator);
    let room = longest.saturating_sub(text.len()) / copy.len();
    let times = times.min(room);
    text.splice(member.start..member.start, copy.repeat(times));
    Some(())
}

fn nest(text: &mut Vec<u8>, parts: &Parts, longest: usize, rng: &mut SmallRng) -> Option<()> {
    let place = parts.value(rng)?;
    let deep = (*[1, 2, 130, DEEPEST].choose(rng)?).min(longest / 8);
    let (before, after) = *[("[", "]"), ("{\"a\":", "}")].choose(rng)?;
    let inner = text[place.clone()].to_vec();
    let nested =
        [before.repeat(deep).into_bytes(), inner, after.repeat(deep).into_bytes()].concat();
    text.splice(place, nested);
    Some(())
}

/// Two values, or two members, in each other's place.
fn swap(text: &mut Vec<u8>, parts: &Parts, rng: &mut SmallRng) -> Option<()> {
    let places = if rng.random_bool(0.5) { &parts.scalars } else { &parts.members };
    let (one, other) = (places.choose(rng)?, places.choose(rng)?);
    let (first, second) = if one.start <= other.start { (one, other) } else { (other, one) };
    if first.end > second.start {
        return None;
    }
    let (head, tail) = (text[first.clone()].to_vec(), text[second.clone()].to_vec());
    text.splice(second.clone(), head);
    text.splice(first.clone(), tail);
    Some(())
}

/// Inside a number or a text of digits: one digit, one word of the ABI, the length.
fn digits(text: &mut Vec<u8>, parts: &Parts, rng: &mut SmallRng) -> Option<()> {
    let Range { mut start, mut end } = parts.scalars.choose(rng)?.clone();
    if matches!(text[start], b'"' | b'\'') && end - start >= 2 {
        (start, end) = (start + 1, end - 1);
    }
    if text[start..end].starts_with(b"0x") {
        start += 2;
    }
    let length = end - start;
    if length == 0 {
        return None;
    }
    let at = start + rng.random_range(0..length);
    match rng.random_range(0..5) {
        0 | 1 => text[at] = *b"0123456789abcdefABCDEFz".choose(rng)?,
        2 if length >= 64 => {
            // Words begin after a selector of four bytes, or at once.
            let first = if length % 64 == 8 { 8 } else { 0 };
            let at = start + first + 64 * rng.random_range(0..(length - first) / 64);
            text.splice(at..at + 64, WORDS.choose(rng)?.bytes());
        }
        3 => {
            let more = *[1, 2, 40, 64, 6400].choose(rng)?;
            let some: Vec<u8> = text[start..end].iter().copied().cycle().take(more).collect();
            text.splice(at..at, some);
        }
        _ => {
            let fewer = *[1, 2, 40, 64].choose(rng)?;
            text.drain(at..(at + fewer).min(end));
        }
    }
    Some(())
}

/// One character of a text in another way of writing it.
fn escape(text: &mut Vec<u8>, parts: &Parts, rng: &mut SmallRng) -> Option<()> {
    let place = parts.scalars.choose(rng)?;
    let at = rng.random_range(place.clone());
    let byte = text[at];
    let other = match rng.random_range(0..4) {
        0 => format!("\\u{:04x}", u32::from(byte)),
        1 => format!("%{byte:02x}"),
        2 => char::from(byte).to_uppercase().to_string(),
        _ => char::from(byte).to_lowercase().to_string(),
    };
    text.splice(at..=at, other.into_bytes());
    Some(())
}

/// A smaller input that `fails` as well: without members, values and bytes that do not matter.
pub(super) fn minimise(input: &[u8], until: Instant, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut small = input.to_vec();
    let late = || Instant::now() >= until;
    loop {
        let before = small.len();
        // The last first: what lies before stays where it is.
        let mut members = Parts::of(&small).members;
        members.sort_by_key(|member| member.start);
        for member in members.into_iter().rev().filter(|_| !late()) {
            if member.end > small.len() {
                continue;
            }
            let mut smaller = small.clone();
            without(&mut smaller, member);
            if fails(&smaller) {
                small = smaller;
            }
        }
        let mut width = small.len() / 2;
        while width > 0 && !late() {
            let mut at = small.len().saturating_sub(width);
            while !late() {
                let mut smaller = small.clone();
                smaller.drain(at..(at + width).min(small.len()));
                if fails(&smaller) {
                    small = smaller;
                }
                if at == 0 {
                    break;
                }
                at = at.saturating_sub(width);
            }
            width /= 2;
        }
        if small.len() == before || late() {
            return small;
        }
    }
}
