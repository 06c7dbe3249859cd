//! The rules, each a function from sources to findings.

use std::fmt;

use super::source::{Source, is_word};

/// A place where a rule is broken.
#[derive(Debug)]
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(source: &Source, line: usize, what: impl Into<String>) -> Self {
        Self { path: source.path.clone(), line, what: what.into() }
    }

    /// `file:line`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.path, self.line)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.what)
    }
}

/// A top-level module, and those that it may name.
pub struct Layer {
    pub name: &'static str,
    pub may_use: &'static [&'static str],
}

/// Nobody names a layer that is not below him.
pub fn imports(sources: &[Source], layers: &[Layer]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let module = source.module();
        // The root only declares the layers.
        let Some(own) = module.first() else { continue };
        let Some(layer) = layers.iter().find(|layer| layer.name == *own) else {
            findings.push(Finding::new(source, 1, format!("{own} is no layer of the house")));
            continue;
        };
        for (line, code) in source.code_lines() {
            for named in layers_named(&module, code) {
                if named != layer.name && !layer.may_use.contains(&named) {
                    findings.push(Finding::new(source, line, format!("{own} uses {named}")));
                }
            }
        }
    }
    findings
}

/// The top-level modules that paths in a line begin with: `crate::x`, the library's name, and as
/// many `super` as lead to the root. A group at the root is named `{`, which is no layer.
fn layers_named<'a>(module: &[&str], code: &'a str) -> Vec<&'a str> {
    let mut named = Vec::new();
    for root in ["crate::", "embedding_recovery::"] {
        named.extend(after(code, root).map(first_segment));
    }
    let to_the_root = "super::".repeat(module.len());
    named.extend(after(code, &to_the_root).map(first_segment));
    named
}

/// What follows each path that begins with `prefix`.
fn after<'a>(code: &'a str, prefix: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let ends: Vec<usize> = code
        .match_indices(prefix)
        .filter(|(at, _)| !code[..*at].ends_with(|c| is_word(c) || c == ':'))
        .map(|(at, _)| at + prefix.len())
        .collect();
    ends.into_iter().map(|end| &code[end..])
}

fn first_segment(path: &str) -> &str {
    match path.find(|c| !is_word(c)) {
        Some(0) => &path[..1],
        Some(end) => &path[..end],
        None => path,
    }
}

/// True where `code` has `word` as a whole.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
    })
}

/// True where a line names a crate: `name::…`, or `use name` alone.
fn names_crate(code: &str, name: &str) -> bool {
    after(code, &format!("{name}::")).next().is_some()
        || code.trim_start().strip_prefix("use ").is_some_and(|used| first_segment(used) == name)
}

/// Words of the standard library and of the allowed crates that reach outside.
const IMPURE: [&str; 9] =
    ["Instant", "SystemTime", "async", "await", "now", "new_v4", "now_v7", "println", "eprintln"];
/// Modules of the standard library that do.
const IMPURE_STD: [&str; 7] = ["fs", "net", "env", "process", "thread", "io", "{"];

/// The domain is pure.
pub fn domain(sources: &[Source], dependencies: &[String], allowed: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/domain/")) {
        for (line, code) in source.code_lines() {
            let foreign = dependencies.iter().map(String::as_str);
            let foreign = foreign.filter(|name| !allowed.contains(name) && names_crate(code, name));
            let words = IMPURE.into_iter().filter(|word| has_word(code, word));
            let modules = after(code, "std::").map(first_segment);
            let modules = modules.filter(|module| IMPURE_STD.contains(module));
            let found: Vec<&str> = foreign.chain(words).chain(modules).collect();
            if !found.is_empty() {
                let what = format!("the domain uses {}", found.join(", "));
                findings.push(Finding::new(source, line, what));
            }
        }
    }
    findings
}

/// Words that read the clock of the machine. `Instant`, which measures spans, is none of them.
const WALL_CLOCKS: [&str; 4] = ["Utc::now", "Local::now", "SystemTime", "UNIX_EPOCH"];

/// Nobody below these folders reads the clock of the machine.
pub fn wall_clock(sources: &[Source], folders: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let below = |source: &&Source| folders.iter().any(|folder| source.path.starts_with(folder));
    for source in sources.iter().filter(below) {
        for (line, code) in source.code_lines() {
            for clock in WALL_CLOCKS.into_iter().filter(|clock| has_word(code, clock)) {
                findings.push(Finding::new(source, line, format!("{clock} is a replica's clock")));
            }
        }
    }
    findings
}

/// Each crate is named in its home only.
pub fn homes(sources: &[Source], homes: &[(&str, &[&str])]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let strangers = homes.iter().filter(|(_, at_home)| {
            !at_home.iter().any(|home| {
                source.path == *home || (home.ends_with('/') && source.path.starts_with(home))
            })
        });
        let strangers: Vec<&str> = strangers.map(|(name, _)| *name).collect();
        for (line, code) in source.code_lines() {
            for name in strangers.iter().filter(|name| names_crate(code, name)) {
                findings.push(Finding::new(source, line, format!("{name} is not at home here")));
            }
        }
    }
    findings
}

/// Actors and embedders tell of their work and leave the rest of telemetry to the start of the program.
pub fn telling_only(sources: &[Source], telling: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tells = |path: &str| path.starts_with("src/actors/") || path.starts_with("src/embedders/");
    for source in sources.iter().filter(|source| tells(&source.path)) {
        for (line, code) in source.code_lines() {
            for (at, prefix) in code.match_indices("telemetry::") {
                let taken = first_segment(&code[at + prefix.len()..]);
                if !telling.contains(&taken) {
                    findings.push(Finding::new(source, line, format!("telemetry::{taken}")));
                }
            }
        }
    }
    findings
}

/// A file begins with why it exists, and is read at one sitting.
pub fn opening_and_length(sources: &[Source], lines_max: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        if !source.text.starts_with("//! ") {
            findings.push(Finding::new(source, 1, "does not begin with //!"));
        }
        let lines = source.text.lines().count();
        if lines > lines_max {
            findings.push(Finding::new(source, lines, format!("has more than {lines_max} lines")));
        }
    }
    findings
}

/// Aborting takes the supervisor along with the actor that panicked.
pub fn panic_unwinds(manifest: &Source) -> Vec<Finding> {
    let lines = manifest.text.lines().enumerate();
    let aborts = lines.filter(|(_, line)| line.replace(' ', "").starts_with("panic=\"abort\""));
    aborts.map(|(index, _)| Finding::new(manifest, index + 1, "panic = \"abort\"")).collect()
}
