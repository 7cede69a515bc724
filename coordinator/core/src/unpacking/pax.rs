//! The records of a pax header (POSIX), of which only a name is taken.

use super::refused::Why;

/// The name that a header gives, if it does. Times, owners and the like are passed by; what says how contents are to be
/// read is not.
pub(super) fn name(mut header: &[u8]) -> Result<Option<Vec<u8>>, Why> {
    let mut name = None;
    while !header.is_empty() {
        let (key, value, rest) = record(header).ok_or(Why::Header)?;
        match key {
            b"path" => name = Some(value.to_owned()),
            b"size" => return Err(Why::Kind("a size in a pax header")),
            _ if key.starts_with(b"GNU.sparse.") => return Err(Why::Kind("a sparse file")),
            _ => {}
        }
        header = rest;
    }
    Ok(name)
}

/// The first record, `LENGTH KEY=VALUE\n`, in which the length is that of all of it.
fn record(header: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(&header[..space]).ok()?;
    let length: usize = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    let (record, rest) = header.split_at_checked(length)?;
    let field = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = field.iter().position(|byte| *byte == b'=')?;
    Some((&field[..equals], &field[equals + 1..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_whatever_is_in_it_and_beside_it() {
        assert_eq!(name(b""), Ok(None));
        assert_eq!(name(b"20 mtime=1700000000\n13 path=a\nb=\n"), Ok(Some(b"a\nb=".to_vec())));
        assert_eq!(name(b"10 path=a\n10 path=b\n"), Ok(Some(b"b".to_vec())));
        assert_eq!(name(b"21 comment=5 path=x\n\n"), Ok(None), "what is in a value is no record");
    }

    #[test]
    fn records_that_lie_are_refused() {
        for wrong in [
            "x",
            "10",
            "10 ",
            "0 path=a\n",
            "5 path=a\n",
            "11 path=a\n",
            "+10 path=a\n",
            " 10 path=a\n",
            "8 path=a\n",
            "8 path\n\n",
            "99999999999999999999 path=a\n",
            "2 \n",
        ] {
            assert_eq!(name(wrong.as_bytes()), Err(Why::Header), "{wrong:?}");
        }
        assert_eq!(name(b"10 size=1\n"), Err(Why::Kind("a size in a pax header")));
        assert_eq!(name(b"22 GNU.sparse.major=1\n"), Err(Why::Kind("a sparse file")));
    }
}
