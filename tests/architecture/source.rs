//! Reads the program's sources, and blanks what only looks like code.

use std::fs;
use std::path::{Path, PathBuf};

/// A file: its path from the root of the repository, and its text.
pub struct Source {
    pub path: String,
    pub text: String,
    /// The text with comments, strings and unit tests blanked; lines stay where they are.
    pub code: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), code: without_tests(&blank(text)) }
    }

    /// Lines of code with their numbers, from 1.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The modules from the root of the crate to this file.
    pub fn module(&self) -> Vec<&str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inner.split('/').filter(|part| !matches!(*part, "mod" | "lib")).collect()
    }
}

/// Every file of `src/`.
pub fn all() -> Vec<Source> {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    assert!(files.len() > 40, "only {} sources were found", files.len());
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

/// `Cargo.toml`.
pub fn manifest() -> Source {
    read(&root().join("Cargo.toml"))
}

/// The crates that the program is built from, as code names them.
pub fn dependencies() -> Vec<String> {
    let manifest = manifest();
    let section = manifest.text.split("[dependencies]\n").nth(1).unwrap();
    section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| Some(line.split_once([' ', '.', '='])?.0.replace('-', "_")))
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> Source {
    let path = file.strip_prefix(root()).unwrap().to_str().unwrap();
    Source::new(path, &fs::read_to_string(file).unwrap())
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Unit tests stand last in their file, by the habits of this house.
fn without_tests(code: &str) -> String {
    code.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// Replaces comments and the insides of strings by spaces.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = token_end(&chars, at);
        let is_code = end == at + 1;
        let is_shown = |c: char| is_code || c == '\n';
        out.extend(chars[at..end].iter().map(|c| if is_shown(*c) { *c } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment or literal that begins here ends; the next character where none does.
fn token_end(chars: &[char], at: usize) -> usize {
    let char_at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let find = |from: usize, end: &str| {
        let end: Vec<char> = end.chars().collect();
        let found = chars[from.min(chars.len())..].windows(end.len()).position(|w| w == end);
        found.map_or(chars.len(), |offset| from + offset + end.len())
    };
    match (chars[at], char_at(at + 1)) {
        ('/', '/') => find(at, "\n") - usize::from(find(at, "\n") < chars.len()),
        ('/', '*') => find(at + 2, "*/"),
        ('r', '"' | '#') if at == 0 || !is_word(chars[at - 1]) => {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            match char_at(at + 1 + hashes) {
                '"' => find(at + 2 + hashes, &format!("\"{}", "#".repeat(hashes))),
                // A raw identifier.
                _ => at + 1,
            }
        }
        ('"', _) => {
            let mut end = at + 1;
            while end < chars.len() && chars[end] != '"' {
                end += if chars[end] == '\\' { 2 } else { 1 };
            }
            (end + 1).min(chars.len())
        }
        ('\'', '\\') => find(at + 3, "'"),
        // A lifetime has no second quote.
        ('\'', _) if char_at(at + 2) == '\'' => at + 3,
        _ => at + 1,
    }
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
