//! The rules of direction in `src/lib.rs`, kept: what each module of `src` names is compared with the table
//! in `rules`. Tests may name what they like.

mod rules;

use std::{
    collections::BTreeSet,
    fs, iter,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use rules::{BROKEN, LONGEST_FILE, NEVER, ONLY, TOO_LONG};

/// A path that a module names, absolute: `crate::store::Db`, `tokio::spawn`; or a method and on what it is
/// called: `db.begin`; or one of the words `async` and `await`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    path: String,
    line: usize,
}

#[test]
fn no_module_names_what_it_must_not_know() {
    let mut broken = BTreeSet::new();
    let mut expected: BTreeSet<_> = BROKEN.iter().copied().collect();
    for file in rust_files("src").filter(|file| !is_test(file)) {
        let module = module_of(&file);
        let text = fs::read_to_string(&file).unwrap();
        for named in named_in(&text, &module) {
            for because in broken_rules(&module.join("::"), &named.path) {
                let known = |&(of, path): &(&str, &str)| {
                    within(&module.join("::"), of) && within(&named.path, path)
                };
                if BROKEN.iter().any(known) {
                    expected.retain(|one| !known(one));
                } else {
                    let Named { path, line } = &named;
                    broken.insert(format!("{}:{line} names {path}: {because}", file.display()));
                }
            }
        }
    }
    let broken = Vec::from_iter(broken);
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    assert!(expected.is_empty(), "these break no rule any more, delete them: {expected:?}");
}

#[test]
fn every_module_of_the_table_is_there() {
    let there: BTreeSet<String> =
        rust_files("src").map(|file| module_of(&file).join("::")).collect();
    let never = NEVER.iter().flat_map(|rule| rule.modules.iter().copied());
    let only = ONLY.iter().flat_map(|rule| rule.modules.iter().map(|(module, _)| *module));
    for module in never.chain(only).chain(BROKEN.iter().map(|(module, _)| *module)) {
        assert!(there.contains(module), "there is no module {module}");
    }
}

#[test]
fn no_file_is_two_things() {
    let long: Vec<String> = ["src", "tests"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|file| fs::read_to_string(file).unwrap().lines().count() > LONGEST_FILE)
        .map(|file| file.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(long, TOO_LONG, "no file has more than {LONGEST_FILE} lines");
}

#[test]
fn what_a_file_names_is_found_however_it_is_written() {
    let text = r#"
        //! sqlx::comment
        use crate::{store::{self, Db as Store}, chain::*};
        use super::sibling;
        pub(super) use self::child::Thing;
        #[cfg(test)]
        use hidden::from::view;
        /// Names [`also::hidden`].
        #[derive(Debug)]
        struct A<'a>(&'a str);
        async fn f(db: &Db) -> Option<u8> {
            let text = "quoted::path"; // commented::path
            select! { one = tokio::spawn(x) => {} }
            let c = 'a'; Self::g();
            db.begin().await
        }
        #[cfg(test)]
        mod tests { use sqlx::query; }
    "#;
    let module = ["follow".to_owned(), "decide".to_owned()];
    let mut paths: Vec<String> = named_in(text, &module).into_iter().map(|n| n.path).collect();
    paths.sort();
    paths.dedup();
    let expected = [
        "async",
        "await",
        "crate::chain",
        "crate::follow::decide::child::Thing",
        "crate::follow::sibling",
        "crate::store",
        "crate::store::Db",
        "db.begin",
        "tokio::spawn",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn a_rule_is_broken_by_whole_words_only() {
    assert!(!broken_rules("ledger::bucket", "crate::store::Db").is_empty());
    assert!(!broken_rules("follow::decide", "tokio").is_empty());
    assert!(broken_rules("ledgers", "crate::store").is_empty());
    assert!(broken_rules("api::wallet", "crate::stores").is_empty());
    assert!(!broken_rules("api::wallet", "sqlx::query").is_empty());
    assert!(broken_rules("store::wallet", "sqlx::query").is_empty());
    assert!(!broken_rules("config", "db.begin").is_empty());
    assert!(broken_rules("dev::anvil", "crate::dev::npm").is_empty());
    assert!(!broken_rules("api", "crate::dev").is_empty());
}

/// Whether `path` is `prefix` or below it.
fn within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn broken_rules(module: &str, path: &str) -> Vec<String> {
    let in_any = |paths: &[&str]| paths.iter().any(|prefix| within(path, prefix));
    let never = NEVER
        .iter()
        .filter(|rule| rule.modules.iter().any(|of| within(module, of)) && in_any(rule.paths));
    // A module may name itself.
    let own = |path: &str| path.strip_prefix("crate::").is_some_and(|own| within(module, own));
    let only = ONLY.iter().filter(|rule| {
        in_any(rule.paths)
            && !rule.paths.iter().any(|path| own(path))
            && !rule.modules.iter().any(|(of, _)| within(module, of))
    });
    let allowed = |rule: &rules::Only| {
        let modules: Vec<_> =
            rule.modules.iter().map(|(of, why)| format!("{of} ({why})")).collect();
        format!("only {} may", modules.join(", "))
    };
    never.map(|rule| rule.because.to_owned()).chain(only.map(allowed)).collect()
}

fn rust_files(folder: &str) -> impl Iterator<Item = PathBuf> {
    let mut folders = vec![PathBuf::from(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            // The packages of the node that the tests start.
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.into_iter()
}

fn is_test(file: &Path) -> bool {
    let test = |name: &str| matches!(name, "tests" | "tests.rs" | "testing" | "testing.rs");
    file.iter().filter_map(|part| part.to_str()).any(test)
}

/// `src/follow/decide.rs` is `follow::decide`.
fn module_of(file: &Path) -> Vec<String> {
    let path = file.strip_prefix("src").unwrap().with_extension("");
    let mut parts: Vec<String> =
        path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

fn named_in(text: &str, module: &[String]) -> Vec<Named> {
    let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{module:?}: {error}"));
    let mut named = Vec::new();
    scan(tokens, module, &mut named);
    named
}

fn scan(tokens: TokenStream, module: &[String], named: &mut Vec<Named>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if is_cfg_test(&tokens[at..]) {
            at += item_length(&tokens[at..]);
            continue;
        }
        at += match &tokens[at] {
            // `use<'a>` says what a type captures.
            TokenTree::Ident(word)
                if word == "use" && tokens.get(at + 1).is_some_and(|next| !is_punct(next, '<')) =>
            {
                let end = tokens[at..].iter().position(|token| is_punct(token, ';')).unwrap();
                expand(&tokens[at + 1..at + end], &[], module, named);
                end
            }
            TokenTree::Ident(word) if word == "async" || word == "await" => {
                named.push(Named { path: word.to_string(), line: word.span().start().line });
                1
            }
            TokenTree::Ident(_) if at == 0 || !follows_path(&tokens[..at]) => {
                let (path, length) = path_at(&tokens[at..]);
                let line = tokens[at].span().start().line;
                if path.len() > 1 {
                    push(&path, module, line, named);
                } else if let [dot, TokenTree::Ident(method), ..] = &tokens[at + length..]
                    && is_punct(dot, '.')
                {
                    named.push(Named { path: format!("{}.{method}", path[0]), line });
                }
                length
            }
            TokenTree::Group(group) => {
                // `db.begin().await`: the word after the parentheses belongs to the method.
                scan(group.stream(), module, named);
                1
            }
            _ => 1,
        };
    }
}

/// Whether what comes next continues a path, as `Vec::<u8>::new` does.
fn follows_path(before: &[TokenTree]) -> bool {
    matches!(before, [.., a, b] if is_punct(a, ':') && is_punct(b, ':'))
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_cfg_test(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [hash, TokenTree::Group(attribute), ..]
        if is_punct(hash, '#') && attribute.to_string().replace(' ', "") == "[cfg(test)]")
}

/// From an attribute to the end of the item that it belongs to.
fn item_length(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| {
        let body = |group: &proc_macro2::Group| group.delimiter() == Delimiter::Brace;
        is_punct(token, ';') || matches!(token, TokenTree::Group(group) if body(group))
    };
    tokens.iter().position(ends).map_or(tokens.len(), |end| end + 1)
}

/// The path that begins here, and how many tokens it takes.
fn path_at(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    let mut at = 0;
    while let Some(TokenTree::Ident(word)) = tokens.get(at) {
        path.push(word.to_string());
        at += 1;
        match &tokens[at..] {
            [a, b, TokenTree::Ident(_), ..] if is_punct(a, ':') && is_punct(b, ':') => at += 2,
            _ => break,
        }
    }
    (path, at)
}

/// Makes a path absolute and keeps it. `Self::new` and paths that begin with a type are of no interest.
fn push(path: &[String], module: &[String], line: usize, named: &mut Vec<Named>) {
    let Some(first) = path.first() else { return };
    let supers = path.iter().take_while(|part| *part == "super").count();
    let relative = |levels: usize, rest: &[String]| {
        let above = &module[..module.len().saturating_sub(levels)];
        iter::once("crate".to_owned()).chain(above.iter().chain(rest).cloned()).collect()
    };
    let path: Vec<String> = match first.as_str() {
        "super" => relative(supers, &path[supers..]),
        "self" => relative(0, &path[1..]),
        first if first.starts_with(char::is_uppercase) => return,
        _ => path.to_vec(),
    };
    named.push(Named { path: path.join("::"), line });
}

/// Every path of a `use`, with its braces opened.
fn expand(tree: &[TokenTree], prefix: &[String], module: &[String], named: &mut Vec<Named>) {
    let (path, length) = path_at(tree);
    let line = tree.first().map_or(0, |token| token.span().start().line);
    let mut whole: Vec<String> = prefix.iter().cloned().chain(path).collect();
    // `::{…}` or `::*` or `as Name`, or nothing.
    if let Some(TokenTree::Group(group)) = tree.get(length + 2) {
        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
        for part in inner.split(|token| is_punct(token, ',')).filter(|part| !part.is_empty()) {
            expand(part, &whole, module, named);
        }
    } else {
        if whole.len() > 1 && whole.last().is_some_and(|last| last == "self") {
            whole.pop();
        }
        push(&whole, module, line, named);
    }
}
