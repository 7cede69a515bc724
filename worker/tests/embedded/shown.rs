//! What programs show beside their output.

use codegen_types::{Display, EventBody};

use crate::bench::{Bench, Ran};

fn shown(ran: &Ran) -> Vec<&Display> {
    let displays = ran.events.iter().filter_map(|event| match &event.body {
        EventBody::Display(display) => Some(display),
        _ => None,
    });
    displays.collect()
}

/// Code that makes a PNG of that size, in one colour.
fn png(width: u32, height: u32) -> String {
    format!(
        "import struct, zlib\n\
         def chunk(kind, data):\n    \
             return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n\
         rows = (b'\\0' + b'\\x20\\x40\\x80' * {width}) * {height}\n\
         PNG = (b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', {width}, {height}, 8, 2, 0, 0, 0))\n    \
             + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))\n\
         class Picture:\n    \
             def _repr_png_(self): return PNG\n"
    )
}

#[tokio::test]
async fn a_picture_comes_back_and_stays_in_the_workspace() {
    let bench = Bench::new().await;
    let ran = bench.python(&format!("{}Picture()", png(40, 30))).await;
    assert_eq!(ran.exit_code(), Some(0), "{ran:?}");
    let [display] = shown(&ran)[..] else { panic!("one picture: {ran:?}") };
    assert!(display.mime == "image/png" && display.data.starts_with(b"\x89PNG"));
    let path = display.path.as_ref().expect("it is kept");
    assert!(path.as_str().starts_with("artifacts/"), "{path}");
    assert!(ran.exit.as_ref().is_some_and(|exit| exit.files_changed.iter().any(|change| &change.path == path)));
    let kept = bench.shell(&format!("head -c 4 {path}")).await;
    assert!(kept.stdout.contains("PNG"), "{kept:?}");
}

#[tokio::test]
async fn at_most_four_pictures_come_back_and_large_ones_are_scaled() {
    let bench = Bench::new().await;
    let ran = bench.python(&format!("{}for _ in range(6): display(Picture())", png(4000, 20))).await;
    let displays = shown(&ran);
    assert_eq!(displays.len(), 4, "{:?}", ran.exit);
    for display in displays {
        let side = u32::from_be_bytes(display.data[16..20].try_into().expect("a width"));
        assert_eq!(side, 1_568);
    }
    let notes = ran.exit.map(|exit| exit.notes.join(" ")).unwrap_or_default();
    assert_eq!(notes.matches("artifacts/").count(), 2, "{notes}");
}

#[tokio::test]
async fn vector_graphics_come_back_as_pictures() {
    let bench = Bench::new().await;
    let svg = "class S:\n    def _repr_svg_(self): return '<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"/>'\nS()";
    let ran = bench.python(svg).await;
    let [display] = shown(&ran)[..] else { panic!("one picture: {ran:?}") };
    assert_eq!(display.mime, "image/png");
    assert!(display.path.as_ref().is_some_and(|path| path.as_str().ends_with(".svg")));
}

#[tokio::test]
async fn pictures_that_lie_about_their_type_or_size_are_said_so_and_shown_to_nobody() {
    let bench = Bench::new().await;
    let lies = [
        "class P:\n    def _repr_png_(self): return b'GIF89a not a png'\nP()".to_owned(),
        "class P:\n    def _repr_jpeg_(self): return b'\\xff\\xd8\\xff' + b'0' * 100\nP()".to_owned(),
        format!("{}PNG = PNG[:16] + struct.pack('>II', 60000, 60000) + PNG[24:]\nPicture()", png(4, 4)),
        "import codegen_display; codegen_display.publish('image/svg+xml', b'<svg' * 1000)".to_owned(),
        "import codegen_display; codegen_display.publish('image/png', b'0' * (40 << 20))".to_owned(),
    ];
    for lie in lies {
        let ran = bench.python(&lie).await;
        assert_eq!(ran.exit_code(), Some(0), "{ran:?}");
        assert!(shown(&ran).is_empty(), "{lie}");
        let notes = ran.exit.map(|exit| exit.notes).unwrap_or_default();
        assert_eq!(notes.len(), 1, "{lie}: {notes:?}");
    }
    assert_eq!(bench.shell("ls artifacts").await.stdout, "");
}

#[tokio::test]
async fn values_are_shown_as_text_within_bounds_and_reports_are_passed_on() {
    let bench = Bench::new().await;
    let ran = bench.python("display('a', {'b': 1})\n[1, 2]").await;
    let texts: Vec<_> = shown(&ran).iter().map(|d| String::from_utf8_lossy(&d.data).into_owned()).collect();
    assert_eq!(texts, ["'a'", "{'b': 1}", "[1, 2]"]);
    let ran = bench.python("'x' * (10 << 20)").await;
    assert!(shown(&ran)[0].data.len() < 101_000);
    let ran = bench.python("import codegen_display\ncodegen_display.publish('application/x+json', b'{}')").await;
    assert_eq!((shown(&ran)[0].mime.as_str(), shown(&ran)[0].data.as_slice()), ("application/x+json", &b"{}"[..]));
    let ran = bench.python("for n in range(1000): display(n)").await;
    assert_eq!(shown(&ran).len(), 64, "what is shown is bounded");
}

#[tokio::test]
async fn what_is_written_where_things_are_shown_can_do_no_harm() {
    let bench = Bench::new().await;
    let number = "import os, resource\nfd = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1\n";
    for junk in ["b'\\xff' * 100", "b'\\0' * 100", "b'\\0\\0\\0\\2\\xff\\xff\\xff\\xff{}'", "b'\\0\\0\\0\\1'"] {
        let ran = bench.python(&format!("{number}os.write(fd, {junk})\nprint('on')")).await;
        assert_eq!((ran.exit_code(), ran.stdout.as_str()), (Some(0), "on\n"), "{junk}");
    }
    assert_eq!(bench.python("print(1)").await.stdout, "1\n");
}
