//! The rules of the house that a compiler does not check, as tests.
//!
//! Which crate may depend on which; what the crates that run under the simulator must never touch
//! (clocks, threads, files, sockets, random iteration, statics); how long files and functions may
//! be. Reads the sources as text with comments and literals blanked, so words in prose do not count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate, and the crates of ours that it may name.
const EDGES: &[(&str, &[&str])] = &[
    ("rt", &[]),
    ("wal", &["rt"]),
    ("raft/proto", &[]),
    ("raft", &["rt", "wal", "raft-proto"]),
    ("net", &["rt"]),
    ("shards", &["rt", "wal", "raft", "net"]),
    ("bootstrap", &["rt", "wal", "raft", "net", "shards"]),
    ("perf", &["net"]),
    ("tests/differential", &[]),
    (".", &["rt", "wal", "raft", "net", "shards", "bootstrap"]),
];

/// Crates that run whole under the seeded simulator.
const SIMULATED: &[&str] = &["wal", "raft", "net", "shards", "bootstrap"];

/// What the simulated crates must not name, and what they use instead.
const BANNED: &[(&str, &str)] = &[
    ("std::time::Instant", "rt::Instant and Shard::now"),
    ("std::time::SystemTime", "Shard::wall_ms"),
    ("SystemTime::now", "Shard::wall_ms"),
    ("std::thread", "Shard::spawn and Shard::blocking"),
    ("thread::spawn", "Shard::spawn and Shard::blocking"),
    ("std::fs", "rt::Dir and rt::File"),
    ("std::process", "an error that the caller reports"),
    ("std::env", "the option registry of the binary"),
    ("TcpStream", "rt::Stream"),
    ("TcpListener", "rt::Listener"),
    ("UdpSocket", "rt"),
    ("HashMap", "BTreeMap or indexmap::IndexMap: iteration order must be the same in every run"),
    ("HashSet", "BTreeSet or indexmap::IndexSet: iteration order must be the same in every run"),
    ("RandomState", "a fixed hasher"),
    ("thread_local!", "state of the shard"),
    ("static mut", "state of the shard"),
    ("OnceLock", "state of the shard"),
    ("LazyLock", "a const, or state of the shard"),
    ("fastrand::", "Shard::random"),
    ("getrandom::", "Shard::entropy"),
    ("rand::thread_rng", "Shard::random"),
    ("Uuid::new_v4", "Shard::entropy"),
    ("tokio::", "rt"),
];

/// Where a banned name stands all the same, and why that is no breach.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The empty message that a getter of an absent field refers to: a constant in all but type.
    ("raft/proto/src/accessors.rs", "OnceLock"),
];

/// What nobody writes, anywhere.
const UNFINISHED: &[&str] =
    &["todo!(", "unimplemented!(", "#[ignore", "allow(dead_code)", "allow(unused", "dbg!("];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().to_string();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Every Rust file of the folders, with its path from the root.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in folders {
        rust_files(&root().join(folder), &mut files);
    }
    assert!(!files.is_empty(), "no sources under {folders:?}");
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn is_test_file(name: &str) -> bool {
    let in_folder = |folder: &str| {
        name.starts_with(&format!("{folder}/")) || name.contains(&format!("/{folder}/"))
    };
    name.ends_with("/tests.rs") || in_folder("tests") || in_folder("benches") || in_folder("fuzz")
}

/// The code of a file up to its test module, comments and literals blanked; lines are kept.
fn shipped(source: &str) -> String {
    let code = code_only(source);
    match code.find("#[cfg(test)]\nmod ") {
        Some(end) if code[end..].lines().nth(1).is_some_and(|line| line.ends_with('{')) => {
            code[..end].to_string()
        }
        _ => code,
    }
}

/// Blanks comments, strings and characters, so that what is left is code.
fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment(bytes, at);
        if end == at {
            let width = source[at..].chars().next().map_or(1, char::len_utf8);
            out.push_str(&source[at..at + width]);
            at += width;
            continue;
        }
        let keep_quote = if bytes[at] == b'"' { "\"\"" } else { " " };
        out.push_str(keep_quote);
        out.extend(source[at..end].chars().filter(|c| *c == '\n'));
        at = end;
    }
    out
}

/// The end of the comment or literal that starts at `at`; `at` itself where none does.
fn literal_or_comment(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let before = at.checked_sub(1).map(|at| bytes[at]);
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + find(&rest[2..], b"*/").map_or(rest.len(), |found| found + 4);
    }
    if rest[0] == b'r' && !in_word {
        let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let body = 2 + hashes;
            let length = find(&rest[body..], &close).map_or(rest.len(), |f| body + f + close.len());
            return at + length;
        }
    }
    if rest[0] == b'"' {
        return at + quoted(rest, b'"');
    }
    // A character, and not a lifetime: the closing quote comes right after it.
    let is_char = match rest {
        [b'\'', b'\\', ..] => true,
        [b'\'', first, ..] if first.is_ascii() => rest.get(2) == Some(&b'\''),
        [b'\'', ..] => rest.iter().skip(2).take(4).any(|byte| *byte == b'\''),
        _ => false,
    };
    if is_char {
        return at + quoted(rest, b'\'');
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

fn line_of(text: &str, position: usize) -> usize {
    text[..position].matches('\n').count() + 1
}

#[test]
fn dependencies_go_one_way() {
    let ours: Vec<&str> = EDGES[EDGES.len() - 1].1.iter().copied().chain(["raft-proto"]).collect();
    let mut problems = Vec::new();
    for (folder, allowed) in EDGES {
        let path = root().join(folder).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let Some(names) = manifest.get(kind).and_then(toml::Value::as_table) else { continue };
            for name in names.keys() {
                if ours.contains(&name.as_str()) && !allowed.contains(&name.as_str()) {
                    problems.push(format!("{folder} must not depend on {name} ({kind})"));
                }
                if name == "glommio" && *folder != "rt" {
                    problems.push(format!("{folder} must not depend on glommio: rt hides it"));
                }
            }
        }
    }
    let members: toml::Table =
        fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    for member in members["workspace"]["members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        if !EDGES.iter().any(|(folder, _)| *folder == member) {
            problems.push(format!("{member} is a crate without a place in the layers"));
        }
    }
    report(problems);
}

#[test]
fn the_executor_library_is_named_in_rt_only() {
    let mut problems = Vec::new();
    let folders = ["wal", "raft", "net", "shards", "bootstrap", "src", "tests", "benches", "perf"];
    let folders: Vec<_> =
        folders.into_iter().filter(|folder| root().join(folder).is_dir()).collect();
    for (name, source) in sources(&folders) {
        if code_only(&source).contains("glommio") {
            problems.push(format!("{name} names glommio"));
        }
    }
    report(problems);
}

#[test]
fn simulated_crates_touch_the_world_through_rt_only() {
    let mut problems = Vec::new();
    for (name, source) in sources(SIMULATED) {
        if is_test_file(&name) {
            continue;
        }
        let code = shipped(&source);
        for (banned, instead) in BANNED {
            if EXCEPTIONS.contains(&(name.as_str(), *banned)) {
                continue;
            }
            for (position, _) in code.match_indices(banned) {
                let line = line_of(&code, position);
                problems.push(format!("{name}:{line}: {banned}; use {instead}"));
            }
        }
    }
    report(problems);
}

#[test]
fn unsafe_code_stays_in_rt() {
    let mut problems = Vec::new();
    for (name, source) in sources(&["wal", "raft", "net", "shards", "bootstrap", "src"]) {
        // An allocator that counts cannot be written without, and it is test code.
        if is_test_file(&name) {
            continue;
        }
        let code = code_only(&source);
        let uses = ["unsafe {", "unsafe fn", "unsafe impl"];
        if let Some(position) = uses.iter().find_map(|text| code.find(text)) {
            problems.push(format!("{name}:{}: unsafe", line_of(&code, position)));
        }
    }
    report(problems);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut problems = Vec::new();
    let folders =
        ["rt", "wal", "raft", "net", "shards", "bootstrap", "perf", "benches", "src", "tests"];
    for (name, source) in sources(&folders) {
        let code = code_only(&source);
        for text in UNFINISHED {
            for (position, _) in code.match_indices(text) {
                problems.push(format!("{name}:{}: {text}", line_of(&code, position)));
            }
        }
    }
    report(problems);
}

#[test]
fn every_file_says_what_it_is_and_none_is_too_long() {
    let mut problems = Vec::new();
    let folders =
        ["rt", "wal", "raft", "net", "shards", "bootstrap", "perf", "benches", "src", "tests"];
    for (name, source) in sources(&folders) {
        if !source.starts_with("//!") {
            problems.push(format!("{name} does not open with `//!`"));
        }
        let lines = shipped(&source).lines().count();
        if lines > FILE_LINES_MAX && !is_test_file(&name) {
            problems
                .push(format!("{name} has {lines} lines without tests; {FILE_LINES_MAX} at most"));
        }
    }
    report(problems);
}

#[test]
fn functions_fit_on_a_page() {
    let mut problems = Vec::new();
    for (name, source) in
        sources(&["rt", "wal", "raft", "net", "shards", "bootstrap", "perf", "src"])
    {
        if is_test_file(&name) {
            continue;
        }
        for (function, line, length) in functions(&shipped(&source)) {
            if length > FUNCTION_LINES_MAX {
                problems.push(format!("{name}:{line}: fn {function} has {length} lines"));
            }
        }
    }
    report(problems);
}

/// Every function with a body: its name, first line, and number of lines.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (position, _) in code.match_indices("fn ") {
        let starts_word = !code[..position].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String =
            code[position + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        let Some(open) = code[position..].find(['{', ';']).map(|open| position + open) else {
            continue;
        };
        if code.as_bytes()[open] == b';' {
            continue;
        }
        let mut depth = 0;
        let close = code[open..].bytes().position(|byte| {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            depth == 0
        });
        let end = close.map_or(code.len(), |close| open + close);
        let first = line_of(code, position);
        found.push((name, first, line_of(code, end) - first + 1));
    }
    found
}

/// The checks must see code and overlook prose.
#[test]
fn blanking_keeps_code_and_drops_prose() {
    let source = r##"
// HashMap in prose
let a = "HashMap \" {"; let b = r#"HashMap " "#; /* HashMap */ let c = '{';
fn f<'a>(x: &'a str) -> char { '\'' }
use std::collections::HashMap;
"##;
    let code = code_only(source);
    assert_eq!(code.matches("HashMap").count(), 1, "{code}");
    assert_eq!(line_of(&code, code.find("HashMap").unwrap()), 5);
    assert_eq!(functions(&code), [("f".to_string(), 4, 1)]);
    let with_tests = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
    assert!(!shipped(with_tests).contains("std::fs"));
    let lengths: BTreeMap<_, _> = functions("fn one() {\n\n}\nfn two();\nfn three() {}")
        .into_iter()
        .map(|(name, _, lines)| (name, lines))
        .collect();
    assert_eq!(lengths, BTreeMap::from([("one".into(), 3), ("three".into(), 1)]));
}
