//! An answer that is too large to be kept as it is: taken in as it streams, without the fields that nobody reads.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    io::{self, BufReader, Read},
    sync::Arc,
};

use alloy::primitives::bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor, value::Error,
    },
    forward_to_deserialize_any,
};
use tokio::sync::mpsc;

use super::{Decoder, Failure, http::transport};

/// How much of a streamed answer is kept, in `max_response_bytes`.
pub(super) const KEPT: usize = 4;
/// How much of it is read. A log without topics and data is some 400 bytes of JSON, and 95 of what is read of it.
const READ: usize = 16;
/// Pieces of an answer that wait for being read.
const CHUNKS_AHEAD: usize = 8;
/// The fields that a JSON-RPC answer itself is made of.
const ENVELOPE: [&str; 5] = ["id", "result", "error", "code", "message"];

type Fields = HashSet<&'static str>;

/// What of large answers is kept, by the names of fields.
pub(in crate::chain) struct Slim {
    fields: Fields,
    /// Other fields inside the values of some.
    inside: HashMap<&'static str, Fields>,
    decoder: Arc<Decoder>,
}

/// The names of a structure's fields, as they are in JSON.
pub(in crate::chain) fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It gives nothing but its names.
    let _ = T::deserialize(Names(&mut names));
    names
}

struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a structure"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("only its names are wanted"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl Slim {
    /// Keeps these fields, at whatever depth, but for the values of those that are named with their own.
    pub fn new(
        decoder: &Arc<Decoder>,
        fields: &[&[&'static str]],
        inside: &[(&'static str, &[&'static str])],
    ) -> Self {
        let fields = ENVELOPE.into_iter().chain(fields.iter().copied().flatten().copied());
        let inside = inside.iter().map(|(name, fields)| (*name, fields.iter().copied().collect()));
        Self { fields: fields.collect(), inside: inside.collect(), decoder: Arc::clone(decoder) }
    }

    /// The body without what nobody reads. Never more than [`KEPT`] times `max` bytes of it in memory, and one
    /// text of at most `max`.
    pub(super) async fn take_in(
        self: &Arc<Self>,
        mut response: reqwest::Response,
        max: usize,
    ) -> Result<Bytes, Failure> {
        let announced = response.content_length();
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let slim = Arc::clone(self);
        let read = move |_: &[_]| {
            slim.copy(Stream::new(receiver, max), max, announced.unwrap_or_default())
        };
        let read = self.decoder.run("a large answer".to_owned(), Vec::new(), read);
        let fed = async move {
            while let Some(chunk) = response.chunk().await.map_err(transport)? {
                if sender.send(chunk).await.is_err() {
                    // Whoever reads has had enough.
                    break;
                }
            }
            Ok(())
        };
        let (fed, read) = tokio::join!(fed, read);
        fed?;
        read
    }

    fn copy(&self, stream: Stream, max: usize, announced: u64) -> Result<Bytes, Failure> {
        let mut kept = Kept { text: Vec::new(), most: max.saturating_mul(KEPT), full: false };
        let mut reader = BufReader::new(stream);
        let mut json = serde_json::Deserializer::from_reader(&mut reader);
        let copied = Copy { slim: self, fields: &self.fields, kept: &mut kept }
            .deserialize(&mut json)
            .and_then(|()| json.end());
        let stream = reader.into_inner();
        match copied {
            Ok(()) => Ok(Bytes::from(kept.text)),
            Err(_) if kept.full || stream.full => {
                Err(Failure::oversized(announced.max(stream.read), max))
            }
            Err(error) => Err(Failure::Invalid(format!("not JSON-RPC: {error}"))),
        }
    }
}

/// A body as it comes, up to a limit.
struct Stream {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    read: u64,
    most: u64,
    /// Whether more came than is read.
    full: bool,
    text: Text,
}

/// Where in a JSON text one is. A text within it is put together before it is looked at: it must not be endless.
struct Text {
    most: usize,
    inside: bool,
    escaped: bool,
    length: usize,
}

impl Stream {
    fn new(chunks: mpsc::Receiver<Bytes>, max: usize) -> Self {
        let most = u64::try_from(max.saturating_mul(READ)).unwrap_or(u64::MAX);
        let text = Text { most: max, inside: false, escaped: false, length: 0 };
        Self { chunks, chunk: Bytes::new(), read: 0, most, full: false, text }
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let Some(chunk) = self.chunks.blocking_recv() else { return Ok(0) };
            self.read = self.read.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if self.read > self.most || !self.text.goes_on(&chunk) {
                self.full = true;
                return Err(io::Error::other("too large"));
            }
            self.chunk = chunk;
        }
        let some = self.chunk.split_to(out.len().min(self.chunk.len()));
        out[..some.len()].copy_from_slice(&some);
        Ok(some.len())
    }
}

impl Text {
    /// Whether no text is longer than allowed.
    fn goes_on(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.inside => self.escaped = true,
                b'"' => {
                    self.inside = !self.inside;
                    self.length = 0;
                }
                _ => {}
            }
            self.length += usize::from(self.inside);
            if self.length > self.most {
                return false;
            }
        }
        true
    }
}

/// JSON written anew, up to a limit.
struct Kept {
    text: Vec<u8>,
    most: usize,
    full: bool,
}

impl Kept {
    fn push<E: de::Error>(&mut self, bytes: &[u8]) -> Result<(), E> {
        if bytes.len() > self.most - self.text.len() {
            self.full = true;
            return Err(E::custom("too large"));
        }
        self.text.extend_from_slice(bytes);
        Ok(())
    }

    fn json<E: de::Error>(&mut self, value: impl serde::Serialize) -> Result<(), E> {
        self.push(&serde_json::to_vec(&value).map_err(E::custom)?)
    }
}

/// Copies one value.
struct Copy<'a> {
    slim: &'a Slim,
    fields: &'a Fields,
    kept: &'a mut Kept,
}

impl<'de> DeserializeSeed<'de> for Copy<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Copy<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.kept.push(b"null")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.kept.json(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.kept.json(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.kept.json(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.kept.json(value)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.kept.json(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { slim, fields, kept } = self;
        kept.push(b"[")?;
        let mut first = true;
        loop {
            let start = kept.text.len();
            if !first {
                kept.push(b",")?;
            }
            if seq.next_element_seed(Copy { slim, fields, kept: &mut *kept })?.is_none() {
                kept.text.truncate(start);
                return kept.push(b"]");
            }
            first = false;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { slim, fields, kept } = self;
        kept.push(b"{")?;
        let mut first = true;
        while let Some(name) = map.next_key_seed(Name(fields))? {
            let Some(name) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if !first {
                kept.push(b",")?;
            }
            first = false;
            kept.json(name)?;
            kept.push(b":")?;
            let fields = slim.inside.get(name).unwrap_or(fields);
            map.next_value_seed(Copy { slim, fields, kept: &mut *kept })?;
        }
        kept.push(b"}")
    }
}

/// A field's name, if it is one that is kept.
struct Name<'a>(&'a Fields);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.get(name).copied())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{chain::ChainName, metrics::Metrics};

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only its names are looked at")]
    struct Receipt {
        block_hash: String,
        topics: Vec<String>,
        logs: Vec<u64>,
        #[serde(rename = "logIndex")]
        index: u64,
    }

    fn slim() -> Slim {
        let decoder = Arc::new(Decoder::new(ChainName::new("anvil"), Metrics::new()));
        Slim::new(&decoder, &[fields_of::<Receipt>()], &[("logs", &["logIndex"])])
    }

    /// What is kept of a body that comes in pieces of some bytes.
    fn copied(body: &str, piece: usize, max: usize) -> Result<String, Failure> {
        let (sender, receiver) = mpsc::channel(body.len() / piece + 1);
        for piece in body.as_bytes().chunks(piece) {
            sender.try_send(Bytes::copy_from_slice(piece)).expect("room");
        }
        drop(sender);
        let kept = slim().copy(Stream::new(receiver, max), max, 0)?;
        Ok(String::from_utf8(kept.to_vec()).expect("a text"))
    }

    #[test]
    fn what_is_read_is_kept_as_it_is_and_the_rest_is_dropped() {
        assert_eq!(fields_of::<Receipt>(), ["blockHash", "topics", "logs", "logIndex"]);
        assert_eq!(fields_of::<u64>(), [""; 0]);
        let body = json!([{
            "jsonrpc": "2.0", "id": 0,
            "result": {"blockHash": "0x\"\\\u{e9}1", "topics": ["0x1", null, true, -3, 1.5, {}], "logIndex": u64::MAX,
                "input": {"blockHash": [1, 2, {"topics": "}"}]}, "data": "\\\""},
        }, {"id": 1, "error": {"code": -1, "message": "no"}}, {"id": 2, "result": []}]);
        for piece in [1, 7, 10_000] {
            let kept = copied(&body.to_string(), piece, 1000).expect("JSON");
            assert_eq!(
                serde_json::from_str::<Value>(&kept).expect("JSON"),
                json!([{
                    "id": 0,
                    "result": {"blockHash": "0x\"\\\u{e9}1", "topics": ["0x1", null, true, -3, 1.5, {}],
                        "logIndex": u64::MAX},
                }, {"id": 1, "error": {"code": -1, "message": "no"}}, {"id": 2, "result": []}])
            );
        }
        let nested = r#"{"id":0,"topics":{"blockHash":1,"x":2},"logs":[{"blockHash":1,"logIndex":2,"id":3}]}"#;
        let kept = r#"{"id":0,"topics":{"blockHash":1},"logs":[{"logIndex":2}]}"#;
        assert_eq!(copied(nested, 9, 1000).expect("JSON"), kept);
        // A field that is there twice is for whoever reads it to refuse.
        let twice = r#"{"id":0,"result":{"logIndex":1,"logIndex":2}}"#;
        assert_eq!(copied(twice, 5, 1000).expect("JSON"), twice);
    }

    #[test]
    fn no_more_is_kept_read_or_put_together_than_allowed() {
        let oversized = |body: String, max| {
            let failure = copied(&body, 100, max).expect_err("too large");
            assert!(matches!(failure, Failure::Oversized { .. }), "{failure:?}");
        };
        let dropped = |times| format!(r#"{{"id":0,"input":[{}1]}}"#, r#""0123456","#.repeat(times));
        assert_eq!(copied(&dropped(100), 100, 100).expect("it fits"), r#"{"id":0}"#);
        oversized(dropped(200), 100);
        oversized(format!(r#"{{"id":0,"result":[{}1]}}"#, "12345,".repeat(80)), 100);
        // A text that is dropped is as long as any.
        for text in ["x".repeat(150), "\\\"".repeat(75)] {
            oversized(format!(r#"{{"input":"{text}"}}"#), 100);
        }
        let fitting = format!(r#"{{"id":"{}","input":"{}"}}"#, "x".repeat(90), "\\\"".repeat(45));
        assert!(copied(&fitting, 100, 100).is_ok());
    }

    #[test]
    fn what_breaks_off_or_is_no_json_is_not_taken_for_an_answer() {
        for body in ["", "{", r#"{"id":0"#, "<html>", r#"{"id":0}x"#, r#"[{"id":0},"#] {
            let failure = copied(body, 3, 1000).expect_err(body);
            assert!(matches!(failure, Failure::Invalid(_)), "{body}: {failure:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(copied(&deep, 100, 100_000), Err(Failure::Invalid(_))));
    }
}
