//! Pictures that a program shows: drawn, or refused with the reason.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{Client, Installation};
use serde_json::{Value, json};

/// A gray picture as JPEG, 16 pixels wide and 8 high: one light block and one dark one.
fn jpeg() -> Vec<u8> {
    let segment = |marker: u8, body: &[u8]| {
        let length = u16::try_from(body.len() + 2).expect("a short segment").to_be_bytes();
        [&[0xFF, marker], &length[..], body].concat()
    };
    // What the coefficients are divided by: one, each of them.
    let quantisation = segment(0xDB, &[&[0][..], &[1; 64]].concat());
    // 8 bits, height, width, one component that is sampled once.
    let frame = segment(0xC0, &[8, 0, 8, 0, 16, 1, 1, 0x11, 0]);
    // How many codes have each length, and what they stand for: 00 and 01 for numbers of 10 and 11 bits; 0 for a block's end.
    let table =
        |class: u8, codes: [u8; 2], symbols: &[u8]| segment(0xC4, &[&[class][..], &codes, &[0; 14], symbols].concat());
    let scan = segment(0xDA, &[1, 1, 0, 0, 63, 0]);
    // 00 1000000000 (512 above the middle), 0; 01 01111111111 (1024 less), 0; and ones. After 0xFF stands a zero.
    let blocks = [0b0010_0000, 0b0000_0010, 0xFF, 0, 0b1101_1111];
    let (begin, end) = (&[0xFF, 0xD8], &[0xFF, 0xD9]);
    let tables = [table(0x00, [0, 2], &[10, 11]), table(0x10, [1, 0], &[0])].concat();
    [&begin[..], &quantisation, &frame, &tables, &scan, &blocks, end].concat()
}

/// The same, whose header says that it has 60,000 pixels a side.
fn huge_jpeg() -> Vec<u8> {
    let mut lie = jpeg();
    let size = lie.windows(4).position(|bytes| bytes == [0, 8, 0, 16]).expect("its size");
    lie[size..size + 4].copy_from_slice(&[0xEA, 0x60, 0xEA, 0x60]);
    lie
}

/// Python that makes a PNG with a true checksum, whose header says so many pixels a side, and has next to no data.
fn png(side: u32) -> String {
    format!(
        "import struct, zlib\ndef chunk(kind, data):\n    \
         return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n\
         PICTURE = (b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', {side}, {side}, 8, 0, 0, 0, 0))\n    \
         + chunk(b'IDAT', zlib.compress(bytes(2))) + chunk(b'IEND', b''))\n"
    )
}

fn bytes(picture: &[u8]) -> String {
    format!("import base64\nPICTURE = base64.b64decode('{}')\n", STANDARD.encode(picture))
}

/// The result of a program that shows a picture and says that it is one of this kind.
fn shown(client: &mut Client, kernel: bool, kind: &str, makes: &str) -> Value {
    let code = format!("{makes}class Picture:\n    def _repr_{kind}_(self): return PICTURE\nPicture()");
    let mut arguments = json!({"code": code});
    if kernel {
        arguments["kernel"] = json!("k");
    }
    let answer = client.request("tools/call", json!({"name": "run_python", "arguments": arguments}));
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    answer["result"].clone()
}

fn pictures(result: &Value) -> Vec<&Value> {
    result["content"].as_array().into_iter().flatten().filter(|block| block["type"] == "image").collect()
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().expect("a text")
}

#[test]
fn a_jpeg_is_shown_as_it_is_and_kept() {
    let installation = Installation::new();
    let mut client = installation.client();
    let contents = STANDARD.encode(jpeg());
    for kernel in [false, true] {
        let result = shown(&mut client, kernel, "jpeg", &bytes(&jpeg()));
        let [picture] = pictures(&result)[..] else { panic!("one picture: {result}") };
        assert_eq!((&picture["mimeType"], &picture["data"]), (&json!("image/jpeg"), &json!(contents)), "{result}");
        let named = text(&result).split_whitespace().find(|word| word.starts_with("artifacts/")).expect("its path");
        let path = &named[..named.find(".jpg").expect("a name that says so") + 4];
        let kept = client.tool("fs_read", json!({"path": path, "encoding": "base64"}));
        assert!(kept.ok().starts_with(&contents), "{}", kept.text);
    }
}

#[test]
fn a_picture_that_lies_about_its_type_or_size_is_not_shown_and_the_reason_is_said() {
    let installation = Installation::new();
    let mut client = installation.client();
    for kernel in [false, true] {
        for (kind, makes, why) in [
            ("png", bytes(&jpeg()), "A picture of type image/png was not shown: it is no png that can be decoded"),
            ("jpeg", png(4), "A picture of type image/jpeg was not shown: it is no jpg that can be decoded"),
            ("png", png(60_000), "A picture of type image/png was not shown: it is too large to be decoded"),
            ("jpeg", bytes(&huge_jpeg()), "A picture of type image/jpeg was not shown: it is too large to be decoded"),
        ] {
            let result = shown(&mut client, kernel, kind, &makes);
            assert!(pictures(&result).is_empty() && text(&result).contains(why), "{kind}: {result}");
        }
        let after = shown(&mut client, kernel, "png", &png(1));
        assert_eq!(pictures(&after).len(), 1, "the next one is shown: {after}");
    }
}
