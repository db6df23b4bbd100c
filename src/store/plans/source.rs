//! The texts of SQL in this folder's source.

use std::{fs, path::Path};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A piece of SQL in the source. What stands in its holes differs.
pub(super) struct Text {
    place: String,
    whole: String,
    parts: Vec<String>,
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.whole)
    }
}

impl Text {
    fn new(place: String, whole: String) -> Self {
        let mut parts = vec![String::new()];
        let mut rest = whole.as_str();
        while let Some(first) = rest.chars().next() {
            let hole = [("{", '}'), ("IN ints(", ')'), ("IN blobs(", ')'), ("watches(", ')')]
                .into_iter()
                .find(|(opening, _)| rest.starts_with(opening));
            if let Some((_, closing)) = hole {
                rest = rest.split_once(closing).map_or("", |(_, after)| after);
                parts.push(String::new());
            } else {
                parts.last_mut().unwrap().push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        Self { place, whole, parts }
    }

    /// Whether a statement contains it.
    pub fn is_in(&self, statement: &str) -> bool {
        let mut rest = statement;
        self.parts.iter().all(|part| {
            let found = rest.split_once(part.trim());
            rest = found.map_or("", |(_, after)| after);
            found.is_some()
        })
    }
}

pub(super) fn single_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every text of SQL in `src/store`, tests not included.
pub(super) fn texts() -> Vec<Text> {
    let mut texts = Vec::new();
    read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store")), &mut texts);
    assert!(texts.len() > 100, "the source was not found");
    texts
}

fn read(folder: &Path, texts: &mut Vec<Text>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        // The last two ask the server about sessions, and read no table.
        if ["tests", "testing", "plans", "liveness", "session"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            read(&path, texts);
            continue;
        }
        let tokens: TokenStream = fs::read_to_string(&path).unwrap().parse().unwrap();
        literals(tokens, &mut |line, literal| {
            let literal = single_spaced(literal);
            let verb = literal.trim_start_matches([')', ' ']).split(' ').next().unwrap();
            let verbs = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "WHERE", "AND", "FROM"];
            if literal.len() > 12 && verbs.contains(&verb) {
                texts.push(Text::new(format!("{}:{line}", path.display()), literal));
            }
        });
    }
}

/// Gives the strings of a file with their lines, but for what only tests have.
fn literals(tokens: TokenStream, give: &mut impl FnMut(usize, &str)) {
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) if group.to_string().replace(' ', "") == "[cfg(test)]" => {
                // The item ends with its body, or without one.
                tokens.find(|token| match token {
                    TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                    TokenTree::Punct(punct) => punct.as_char() == ';',
                    _ => false,
                });
            }
            TokenTree::Group(group) => literals(group.stream(), give),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if let Some(text) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
                    give(literal.span().start().line, text);
                }
            }
            _ => {}
        }
    }
}
