//! The few files of `/etc` that are ours.

use std::fs;
use std::io;
use std::path::Path;

const FILES: [(&str, &str); 6] = [
    (
        "passwd",
        "root:x:0:0:root:/:/usr/sbin/nologin\n\
         sandbox:x:1000:1000:sandbox:/tmp:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
    ("hostname", "sandbox\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n"),
    ("host.conf", "multi on\n"),
];

/// Writes them below a directory.
pub(super) fn write(etc: &Path) -> io::Result<()> {
    fs::create_dir_all(etc)?;
    FILES.iter().try_for_each(|(name, contents)| fs::write(etc.join(name), contents))
}
