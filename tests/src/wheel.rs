//! Wheels made by the test: a zip archive with stored entries is simple enough to write down.

/// A wheel of one module with one console script; `needs` is what it requires, or empty.
pub fn wheel(name: &str, version: &str, needs: &str) -> Vec<u8> {
    let info = format!("{name}-{version}.dist-info");
    let requires = if needs.is_empty() { String::new() } else { format!("Requires-Dist: {needs}\n") };
    let files = [
        (format!("{name}.py"), format!("VERSION = '{version}'\ndef main():\n    print('{name}', VERSION)\n")),
        (format!("{info}/METADATA"), format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned(),
        ),
        (format!("{info}/entry_points.txt"), format!("[console_scripts]\n{name}-say = {name}:main\n")),
    ];
    let mut record: String = files.iter().map(|(path, _)| format!("{path},,\n")).collect();
    record.push_str(&format!("{info}/RECORD,,\n"));
    let record = (format!("{info}/RECORD"), record);
    zip(files.iter().chain([&record]).map(|(path, text)| (path.as_str(), text.as_bytes())))
}

fn zip<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let (mut archive, mut directory, mut count) = (Vec::new(), Vec::new(), 0u16);
    for (path, contents) in files {
        let place = archive.len() as u32;
        let mut about = Vec::new();
        // Version 2.0, no flags, stored, the first day of 1980.
        for word in [20u16, 0, 0, 0, 0x21] {
            about.extend(word.to_le_bytes());
        }
        for long in [crc32(contents), contents.len() as u32, contents.len() as u32] {
            about.extend(long.to_le_bytes());
        }
        about.extend((path.len() as u16).to_le_bytes());
        about.extend(0u16.to_le_bytes());
        archive.extend(b"PK\x03\x04");
        archive.extend(&about);
        archive.extend(path.bytes());
        archive.extend(contents);
        directory.extend(b"PK\x01\x02\x14\x03");
        directory.extend(&about);
        // No comment, the first disk, no attributes but those of a plain file.
        directory.extend([0u8; 6]);
        directory.extend((0o100_644u32 << 16).to_le_bytes());
        directory.extend(place.to_le_bytes());
        directory.extend(path.bytes());
        count += 1;
    }
    let (start, length) = (archive.len() as u32, directory.len() as u32);
    archive.extend(directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    for word in [count, count] {
        archive.extend(word.to_le_bytes());
    }
    for long in [length, start] {
        archive.extend(long.to_le_bytes());
    }
    archive.extend(0u16.to_le_bytes());
    archive
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}
