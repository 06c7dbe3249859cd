//! The files that are named on a command line: themselves, or what a folder holds.

use std::fs;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

/// One thing to read, or why it cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Standard input, named `-`.
    StandardInput,
    /// A file, or a pipe.
    File {
        /// Its path.
        path: PathBuf,
        /// Its size; `None` where it has none, as a pipe.
        bytes: Option<u64>,
    },
    /// Nothing can be read there.
    Nothing {
        /// What was named or met.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Finds what is named. A folder stands for all files in it and its folders, in the order of their
/// names, without hidden ones; links to folders are not followed, so that it has an end.
pub fn find(paths: &[PathBuf]) -> Vec<Found> {
    paths.iter().flat_map(|path| named(path)).collect()
}

fn named(path: &Path) -> Vec<Found> {
    if path == Path::new("-") {
        return vec![Found::StandardInput];
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => in_folder(path),
        Ok(metadata) => {
            let bytes = metadata.is_file().then_some(metadata.len());
            vec![Found::File { path: path.to_owned(), bytes }]
        }
        Err(error) => vec![nothing(path, error)],
    }
}

fn in_folder(folder: &Path) -> Vec<Found> {
    let entries = WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry));
    let mut found = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => found.extend(file(&entry)),
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_owned();
                found.push(nothing(&path, error));
            }
        }
    }
    if found.is_empty() {
        found.push(nothing(folder, "the folder has no files (hidden ones do not count)"));
    }
    found
}

/// A regular file, perhaps by a link; a pipe or a device in a folder would wait for ever.
fn file(entry: &DirEntry) -> Option<Found> {
    let path = entry.path();
    if !entry.file_type().is_file() && !entry.file_type().is_symlink() {
        return None;
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            Some(Found::File { path: path.to_owned(), bytes: Some(metadata.len()) })
        }
        Ok(_) => None,
        Err(error) => Some(nothing(path, error)),
    }
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn nothing(path: &Path, reason: impl ToString) -> Found {
    Found::Nothing { path: path.to_owned(), reason: reason.to_string() }
}
