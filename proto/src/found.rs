//! What a search found.

use codegen_types::event::{FileMatches, Found, FoundLine, SearchCut, SkippedFiles};

use crate::bounds::{FOUND_BYTES_MAX, FOUND_LINE_BYTES_MAX, FOUND_LINES_MAX, MATCHES_MAX, SHOWN_PATH_BYTES_MAX};
use crate::field::{bounded, list, text, word, word_text};
use crate::invalid::InvalidMessage;
use crate::v1;

const CUTS: [(&str, SearchCut); 4] = [
    ("matches", SearchCut::Matches),
    ("volume", SearchCut::Volume),
    ("files", SearchCut::Files),
    ("time", SearchCut::Time),
];

impl From<Found> for v1::SearchResult {
    fn from(found: Found) -> Self {
        let line = |FoundLine { number, is_match, text }| v1::FoundLine { number, is_match, text };
        let file = |FileMatches { path, lines }: FileMatches| v1::FileMatches {
            path,
            lines: lines.into_iter().map(line).collect(),
        };
        Self {
            files: found.files.into_iter().map(file).collect(),
            files_searched: found.files_searched,
            skipped_binary: found.skipped.binary,
            skipped_too_large: found.skipped.too_large,
            skipped_unreadable: found.skipped.unreadable,
            cut: found.cut.map(|cut| word_text(&cut, &CUTS)),
        }
    }
}

impl TryFrom<v1::SearchResult> for Found {
    type Error = InvalidMessage;

    fn try_from(wire: v1::SearchResult) -> Result<Self, InvalidMessage> {
        let lines = || wire.files.iter().flat_map(|file| &file.lines);
        bounded(lines().count(), FOUND_LINES_MAX, "SearchResult.files.lines")?;
        bounded(lines().map(|line| line.text.len()).sum(), FOUND_BYTES_MAX, "SearchResult.files.lines")?;
        Ok(Self {
            files: list(wire.files, MATCHES_MAX, "SearchResult.files", file_matches)?,
            files_searched: wire.files_searched,
            skipped: SkippedFiles {
                binary: wire.skipped_binary,
                too_large: wire.skipped_too_large,
                unreadable: wire.skipped_unreadable,
            },
            cut: wire.cut.map(|cut| word(&cut, &CUTS, "SearchResult.cut")).transpose()?,
        })
    }
}

fn file_matches(wire: v1::FileMatches) -> Result<FileMatches, InvalidMessage> {
    let line = |line: v1::FoundLine| {
        let v1::FoundLine { number, is_match, text: shown } = line;
        Ok(FoundLine { number, is_match, text: text(shown, FOUND_LINE_BYTES_MAX, "FoundLine.text")? })
    };
    Ok(FileMatches {
        path: text(wire.path, SHOWN_PATH_BYTES_MAX, "FileMatches.path")?,
        lines: list(wire.lines, FOUND_LINES_MAX, "FileMatches.lines", line)?,
    })
}
