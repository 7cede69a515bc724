//! The files of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// One text file.
pub struct Source {
    /// Its path below the top of the repository, with slashes.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// The top of the repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}

/// Every text file, build output and version control aside.
pub fn all() -> Vec<Source> {
    let mut found = Vec::new();
    let mut dirs = vec![top()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the repository").flatten() {
            let name = entry.file_name();
            let skipped = ["target", ".git", "bin", "__pycache__"].iter().any(|skip| name == *skip);
            let kind = entry.file_type().expect("a file type");
            if skipped {
                continue;
            } else if kind.is_dir() {
                dirs.push(entry.path());
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                let path = entry.path().strip_prefix(top()).expect("below the top").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 50, "the repository was not found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file.
pub fn rust() -> Vec<Source> {
    all().into_iter().filter(|source| source.path.ends_with(".rs")).collect()
}

impl Source {
    /// Whether it is compiled into the product, rather than being a test, a bench or a build script.
    pub fn is_production(&self) -> bool {
        let test = self.path.starts_with("tests/")
            || self.path.split('/').any(|part| part == "tests" || part == "benches" || part == "tests.rs");
        !test && self.path.contains("src/")
    }

    /// The lines that are compiled into the product: those before the module of unit tests, if that is inline.
    pub fn production_lines(&self) -> impl Iterator<Item = &str> {
        let inline_tests = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..inline_tests].lines()
    }

    /// The production lines without their comments, numbered from 1.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let uncommented = |line: &'_ str| line.find("//").unwrap_or(line.len());
        self.production_lines().enumerate().map(move |(number, line)| (number + 1, &line[..uncommented(line)]))
    }
}
