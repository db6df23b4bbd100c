//! The texts of SQL in this folder's source.

use std::{fs, path::Path};

/// A piece of SQL in the source. What stands in its holes differs.
pub(super) struct Text {
    pub place: String,
    pub whole: String,
    parts: Vec<String>,
}

impl Text {
    fn new(place: String, whole: String) -> Self {
        let mut parts = vec![String::new()];
        let mut rest = whole.as_str();
        while !rest.is_empty() {
            let hole = [("{", '}'), ("IN ints(", ')'), ("IN blobs(", ')')]
                .into_iter()
                .find(|(opening, _)| rest.starts_with(opening));
            if let Some((_, closing)) = hole {
                rest = rest.split_once(closing).map_or("", |(_, after)| after);
                parts.push(String::new());
            } else {
                let end = rest.chars().next().map_or(0, char::len_utf8);
                parts.last_mut().unwrap().push_str(&rest[..end]);
                rest = &rest[end..];
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

    /// Whether a statement is made of it.
    pub fn is_of(&self, statement: &str) -> bool {
        let first = self.parts[0].trim();
        let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];
        verbs.iter().any(|verb| self.whole.starts_with(verb))
            && statement.starts_with(first)
            && self.is_in(statement)
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
        if ["tests", "testing", "plans"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            read(&path, texts);
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let begins = |literal: &str| {
            let verb = literal.trim_start_matches([')', ' ']).split(' ').next().unwrap();
            ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "WHERE", "AND", "FROM"].contains(&verb)
        };
        for (line, literal) in literals(source) {
            if literal.len() > 12 && begins(&literal) {
                texts.push(Text::new(format!("{}:{line}", path.display()), literal));
            }
        }
    }
}

/// The string literals of a file, with single spaces, and their lines.
fn literals(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut rest = source.char_indices().peekable();
    while let Some((at, char)) = rest.next() {
        match char {
            '/' if rest.peek().is_some_and(|(_, next)| *next == '/') => {
                while rest.next().is_some_and(|(_, char)| char != '\n') {}
            }
            '\'' if source[at..].starts_with("'\"'") => {
                rest.nth(1);
            }
            '"' => {
                let mut literal = String::new();
                while let Some((_, char)) = rest.next() {
                    match char {
                        '"' => break,
                        '\\' => {
                            rest.next();
                        }
                        char => literal.push(char),
                    }
                }
                let line = source[..at].matches('\n').count() + 1;
                found.push((line, single_spaced(&literal)));
            }
            _ => {}
        }
    }
    found
}
