//! What programs show beside their output.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use codegen_types::operation::{Pictures, Read};
use codegen_types::{Display, ErrorCode, Event, EventBody, Exec, Operation, TaskId};

use crate::bench::{Bench, Ran, children, python};

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
async fn a_picture_that_cannot_be_drawn_stays_in_the_workspace_all_the_same() {
    let bench = Bench::new().await;
    let ran = bench.python(&format!("{}Picture()", png(25_000, 1))).await;
    assert!(ran.exit_code() == Some(0) && shown(&ran).is_empty(), "{ran:?}");
    let notes = ran.exit.map(|exit| exit.notes.join(" ")).unwrap_or_default();
    assert!(notes.contains("was not shown: it is too large") && notes.contains(" It is in artifacts/"), "{notes}");
    let kept = bench.shell("head -c 4 artifacts/*.png").await;
    assert!(kept.stdout.contains("PNG"), "{kept:?}");
    // Nothing is too large here, and nobody says that it is a picture but itself.
    let bench = Bench::new().await;
    let liar = "import codegen_display; codegen_display.publish('image/svg+xml', b' ' * (9 << 20))";
    let ran = bench.python(liar).await;
    assert_eq!(ran.exit.map(|exit| exit.notes.len()), Some(1));
    assert_eq!(bench.shell("ls artifacts").await.stdout, "");
}

#[tokio::test]
async fn a_dict_is_shown_in_its_own_order_and_a_string_in_one_piece() {
    let bench = Bench::new().await;
    let ran = bench.python("{'z' * 90: 1, 'a' * 20: 'some words ' * 30, 'b': 2}").await;
    let text = String::from_utf8_lossy(&shown(&ran)[0].data).into_owned();
    let places = ["zzz", "aaa", "'b'"].map(|name| text.find(name).expect(name));
    assert!(places.is_sorted() && text.contains(&"some words ".repeat(30)), "{text}");
}

/// Stands in for a library of that name, and is taken before a real one.
async fn library(bench: &Bench, files: &[(&str, &str)]) {
    for (path, source) in files {
        bench.write(path, source).await;
    }
}

async fn in_kernel(bench: &Bench, code: &str) -> Ran {
    let kernel = String::from("k").try_into().ok();
    bench.run(bench.request(TaskId::mint(), Operation::Exec(Exec { kernel, ..Exec::of(python(code)) }))).await
}

const FIGURE: &str = "class Figure:\n    \
    def __init__(self, picture): self.picture = picture\n    \
    def savefig(self, file, **_): file.write(self.picture())\n    \
    def __eq__(self, other): raise ValueError('nobody asks')\n";
const PYPLOT: &str = "from matplotlib.figure import Figure\nopen_ones = {}\n\
    def make(picture):\n    \
        number = len(open_ones) + 1\n    \
        open_ones[number] = figure = Figure(picture)\n    \
        return figure\n\
    def get_fignums(): return list(open_ones)\n\
    def figure(number): return open_ones[number]\n\
    def close(number): del open_ones[number]\n";

#[tokio::test]
async fn a_figure_that_cannot_be_drawn_is_told_of_and_keeps_no_other_back() {
    let bench = Bench::new().await;
    let files = [("matplotlib/__init__.py", ""), ("matplotlib/figure.py", FIGURE), ("matplotlib/pyplot.py", PYPLOT)];
    library(&bench, &files).await;
    let code = format!(
        "{}import matplotlib.pyplot as plt\nplt.make(lambda: 1 / 0)\nplt.make(lambda: PNG)\nprint('on')",
        png(4, 4)
    );
    let ran = in_kernel(&bench, &code).await;
    assert_eq!((ran.exit_code(), shown(&ran).len()), (Some(0), 1), "{ran:?}");
    assert!(ran.stderr.contains("showing figure 1") && ran.stderr.contains("ZeroDivisionError"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("template"), "nothing of ours: {}", ran.stderr);
    let next = in_kernel(&bench, "print(plt.get_fignums())").await;
    assert_eq!((next.stdout.as_str(), next.stderr.as_str()), ("[]\n", ""));
}

#[tokio::test]
async fn a_figure_that_was_shown_does_not_come_again_because_it_is_open() {
    let bench = Bench::new().await;
    let files = [("matplotlib/__init__.py", ""), ("matplotlib/figure.py", FIGURE), ("matplotlib/pyplot.py", PYPLOT)];
    library(&bench, &files).await;
    let made = format!("{}import matplotlib.pyplot as plt\n", png(4, 4));
    for (code, pictures) in [
        ("plt.make(lambda: PNG)", 1),
        ("display(plt.make(lambda: PNG))", 1),
        ("display(plt.make(lambda: PNG)); plt.make(lambda: PNG)\nNone", 2),
    ] {
        for ran in [in_kernel(&bench, &format!("{made}{code}")).await, bench.python(&format!("{made}{code}")).await] {
            assert_eq!((ran.exit_code(), shown(&ran).len(), ran.stderr.as_str()), (Some(0), pictures, ""), "{code}");
        }
    }
    in_kernel(&bench, "figure = plt.make(lambda: PNG)\nfigure").await;
    let again = in_kernel(&bench, "plt.open_ones[1] = figure").await;
    assert_eq!(shown(&again).len(), 1, "another call shows it anew: {again:?}");
    assert_eq!(in_kernel(&bench, "print(plt.get_fignums())").await.stdout, "[]\n");
}

#[tokio::test]
async fn tables_have_the_width_of_a_result_unless_the_code_says_else() {
    let bench = Bench::new().await;
    let pandas = "options = {}\ndef set_option(name, value): options[name] = value\n";
    library(&bench, &[("pandas.py", pandas)]).await;
    let ran =
        bench.python("import pandas\nprint(pandas.options['display.width'], pandas.options['display.max_columns'])");
    assert_eq!(ran.await.stdout, "200 50\n");
    let own =
        "import pandas\npandas.set_option('display.width', 90)\nimport pandas\nprint(pandas.options['display.width'])";
    assert_eq!(bench.python(own).await.stdout, "90\n");
    library(&bench, &[("pandas.py", "x = 1\n")]).await;
    assert_eq!(bench.python("import pandas\nprint(pandas.x)").await.stdout, "1\n");
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
}

#[tokio::test]
async fn of_many_things_the_first_and_the_last_are_shown_and_the_rest_is_said_to_be_left_out() {
    let bench = Bench::new().await;
    let publish =
        "import codegen_display\nfor n in range(1000): codegen_display.publish('application/x+json', b'%d' % n)\n";
    let ran = bench.python(&format!("{publish}for n in range(1000): display(n)\n'the last'")).await;
    let of = |wanted: &str| {
        let of: Vec<_> = shown(&ran).into_iter().filter(|display| display.mime == wanted).collect();
        of.iter().map(|display| String::from_utf8_lossy(&display.data).into_owned()).collect::<Vec<_>>()
    };
    let (texts, reports) = (of("text/plain"), of("application/x+json"));
    assert_eq!((texts.len(), texts[62].as_str(), texts[63].as_str()), (64, "62", "'the last'"));
    assert_eq!((reports.len(), reports[0].as_str(), reports[7].as_str()), (8, "0", "999"));
    let notes = ran.exit.as_ref().map(|exit| exit.notes.join(" ")).unwrap_or_default();
    assert!(notes.contains("937 more"), "{notes}");
    let ran = bench.python("for n in range(60): display('x' * 400_000)\n'the last'").await;
    let bytes: usize = shown(&ran).iter().map(|display| display.data.len()).sum();
    assert!(bytes <= 8 << 20 && shown(&ran).last().is_some_and(|last| last.data == b"'the last'"), "{bytes}");
    let publish = "codegen_display.publish('application/x+json', b' ' * (1 << 20))";
    let ran = bench.python(&format!("import codegen_display\nfor n in range(60): {publish}\n'the last'")).await;
    let bytes: usize = shown(&ran).iter().map(|display| display.data.len()).sum();
    assert!(bytes <= 8 << 20 && shown(&ran).iter().any(|shown| shown.data == b"'the last'"), "{bytes}");
}

#[tokio::test]
async fn nothing_reaches_a_client_as_a_picture_unless_it_was_drawn() {
    let bench = Bench::new().await;
    for mime in ["image/gif", "image/png ", "IMAGE/PNG", " image/webp", "image/x\\u0007", "image/"] {
        let code = format!("import codegen_display; codegen_display.publish('{mime}', b'GIF89a')");
        let ran = bench.python(&code).await;
        assert!(shown(&ran).is_empty(), "{mime}: {ran:?}");
        let notes = ran.exit.map(|exit| exit.notes).unwrap_or_default();
        assert!(notes.len() == 1 && !notes[0].contains('\u{7}'), "{mime}: {notes:?}");
    }
    let svg = "class S:\n    def _repr_svg_(self):\n        return '<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"><text>a</text></svg>'\nS()";
    let ran = bench.python(svg).await;
    assert_eq!(shown(&ran).len(), 1, "{ran:?}");
    let notes = ran.exit.map(|exit| exit.notes.join(" ")).unwrap_or_default();
    assert!(notes.contains("Text in artifacts/") && notes.contains("is not drawn"), "{notes}");
}

/// Each of these pictures takes longer to draw than its task has time.
#[tokio::test]
async fn drawing_ends_with_its_task_and_only_two_pictures_are_drawn_at_once() {
    let bench = Bench::new().await;
    let slow = "import codegen_display\n\
        circles = '<circle r=\"3000\" cx=\"4\" cy=\"4\" opacity=\".5\"/>' * 100_000\n\
        svg = f'<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"4000\" height=\"4000\">{circles}</svg>'.encode()\n\
        for _ in range(8): codegen_display.publish('image/svg+xml', svg)";
    let begun = Instant::now();
    let tasks = (0..5).map(|_| bench.python_for(slow, Duration::from_secs(3)));
    let ended = AtomicBool::new(false);
    let drawn_at_once = async {
        let mut most = 0;
        while !ended.load(Ordering::Relaxed) {
            let drawing = children(bench.worker.id()).into_iter().filter(|pid| is_drawing(*pid)).count();
            most = most.max(drawing);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        most
    };
    let all = async {
        let all = futures::future::join_all(tasks).await;
        ended.store(true, Ordering::Relaxed);
        all
    };
    let (all, most) = tokio::join!(all, drawn_at_once);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!((1..=2).contains(&most), "{most} were drawn at once");
    for ran in all {
        let notes = ran.exit.as_ref().map(|exit| exit.notes.join(" ")).unwrap_or_default();
        assert!(shown(&ran).is_empty() && notes.contains("its task had to end"), "{ran:?}");
        assert!(notes.contains(" It is in artifacts/"), "{notes}");
    }
}

/// A thread of a kernel that took the pipe for itself writes well-formed things into it for ever.
#[tokio::test]
async fn who_shows_things_after_the_end_of_a_call_cannot_put_its_answer_off() {
    let bench = Bench::new().await;
    let code = "import gc, json, os, struct, threading\n\
        fd = os.dup(next(thing.descriptor for thing in gc.get_objects() if type(thing).__name__ == 'Showing'))\n\
        header = json.dumps({'mime': 'text/plain'}).encode()\n\
        frames = (struct.pack('>II', len(header), 1) + header + b'x') * 1000\n\
        def flood():\n    \
            while True:\n        \
                try: os.write(fd, frames)\n        \
                except OSError: break\n\
        threading.Thread(target=flood, daemon=True).start()\n\
        print('done')";
    let kernel = String::from("k").try_into().ok();
    let call = Operation::Exec(Exec { kernel, ..Exec::of(python(code)) });
    let mut request = bench.request(TaskId::mint(), call);
    request.timeout = Duration::from_secs(8);
    let ran = bench.run(request).await;
    assert_eq!((ran.exit_code(), ran.stdout.as_str()), (Some(0), "done\n"), "{:?}", ran.exit);
}

#[tokio::test]
async fn a_file_is_read_as_a_picture_only_when_it_can_be_drawn() {
    let bench = Bench::new().await;
    let code = format!(
        "{}open('large', 'wb').write(PNG)\nopen('liar', 'wb').write(PNG[:8] + bytes(100))\n\
         open('bomb', 'wb').write(PNG[:16] + struct.pack('>II', 60000, 60000) + PNG[24:])\n\
         open('gif', 'wb').write(b'GIF89a' + bytes(100))",
        png(4000, 20)
    );
    assert_eq!(bench.python(&code).await.exit_code(), Some(0));
    let read = async |name: &str, pictures: Pictures| {
        let path = name.to_owned().try_into().expect("a legal path");
        let read = Read { path, offset: 0, limit: Some(64), pictures };
        bench.run(bench.request(TaskId::mint(), Operation::Read(read))).await
    };
    let ran = read("large", Pictures::Drawn).await;
    let [display] = shown(&ran)[..] else { panic!("one picture: {ran:?}") };
    assert_eq!(u32::from_be_bytes(display.data[16..20].try_into().expect("a width")), 1_568);
    assert!(shown(&read("large", Pictures::AsBytes).await).is_empty());
    for none in ["liar", "bomb", "gif"] {
        let ran = read(none, Pictures::Drawn).await;
        assert!(shown(&ran).is_empty() && ran.code.is_none(), "{none}: {ran:?}");
    }
}

fn is_drawing(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == b"--render")
}

#[tokio::test]
async fn a_value_that_cannot_say_how_it_looks_is_shown_by_its_text() {
    let bench = Bench::new().await;
    let class = |body: &str| format!("class C:\n    def __repr__(self): return 'text'\n    {body}\nC()");
    let silent = [
        "class C(dict):\n    __getattr__ = dict.__getitem__\n    __repr__ = lambda self: 'text'\nC()".to_owned(),
        class("def __getattr__(self, name): raise RuntimeError(name)"),
        class("def __getattr__(self, name): return lambda: 1 / 0"),
        class("__class__ = property(lambda self: 1 / 0)"),
        class("def _repr_png_(self): raise NotImplementedError"),
    ];
    for code in &silent {
        let ran = bench.python(code).await;
        assert!(ran.exit_code() == Some(0) && ran.stderr.is_empty(), "{code}: {ran:?}");
        assert_eq!(shown(&ran)[0].data, b"text", "{code}");
    }
    let told =
        ["def _repr_png_(self): raise ValueError('why')", "def _repr_mimebundle_(self): raise ValueError('why')"];
    for body in told {
        let ran = bench.python(&class(body)).await;
        assert!(ran.exit_code() == Some(0) && ran.stderr.contains("ValueError: why"), "{body}: {ran:?}");
        assert!(!ran.stderr.contains("template"), "nothing of ours: {}", ran.stderr);
        assert_eq!(shown(&ran)[0].data, b"text", "{body}");
    }
    let other = class(
        "def _repr_png_(self): raise ValueError\n    def _repr_svg_(self): return \"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>\"",
    );
    assert_eq!(shown(&bench.python(&other).await)[0].mime, "image/png", "another representation takes its place");
}

#[tokio::test]
async fn threads_that_show_things_do_not_mix_them() {
    let bench = Bench::new().await;
    let code = "import codegen_display, threading\ndef show(n):\n    \
                for _ in range(8): codegen_display.publish('application/x', bytes([n]) * 50_000)\n\
                threads = [threading.Thread(target=show, args=(n,)) for n in range(8)]\n\
                for thread in threads: thread.start()\nfor thread in threads: thread.join()";
    let ran = bench.python(code).await;
    let displays = shown(&ran);
    assert!(displays.len() >= 8, "{:?}", ran.exit);
    for Display { data, .. } in displays {
        assert!(data.len() == 50_000 && data.iter().all(|byte| *byte == data[0]));
    }
}

#[tokio::test]
async fn an_interrupt_does_not_cut_what_is_being_shown() {
    let bench = Bench::new().await;
    // Pictures keep the worker at work for a while, so that what follows them waits in the pipe.
    let code = "import codegen_display, threading\nclass S:\n    def _repr_svg_(self):\n        return \
                \"<svg xmlns='http://www.w3.org/2000/svg' width='1500' height='1500'/>\"\n\
                try:\n    for _ in range(2): display(S())\n    threading.Timer(0.05, print, ['on']).start()\n    \
                while True: codegen_display.publish('application/x', b'x' * (1 << 20))\n\
                except KeyboardInterrupt:\n    display('after')\n    raise";
    for kernel in [None, Some("k".to_owned().try_into().expect("a kernel's name"))] {
        let (task, operation) = (TaskId::mint(), Operation::Exec(Exec { kernel, ..Exec::of(python(code)) }));
        let mut stream = bench.stream(bench.request(task, operation)).await;
        let is_on = |event: Event| matches!(event.body, EventBody::Output { .. });
        while !is_on(stream.message().await.unwrap().expect("it goes on").try_into().unwrap()) {}
        assert!(bench.cancel(task, Duration::from_secs(10)).await);
        let ran = bench.attach(task, 1).await;
        assert_eq!((ran.code, ran.signal()), (Some(ErrorCode::TaskCancelled), Some(2)), "{:?}", ran.exit);
        let displays = shown(&ran);
        assert!(displays.iter().any(|display| display.data == b"'after'"), "{:?}", ran.exit);
        assert!(displays.iter().all(|display| display.mime != "application/x" || display.data.len() == 1 << 20));
    }
}

#[tokio::test]
async fn what_a_kernel_shows_after_its_call_goes_nowhere() {
    let bench = Bench::new().await;
    let late = "import os, threading, time\ndef late():\n    \
                while os.readlink('/proc/self/fd/1') != '/dev/null': time.sleep(0.01)\n    time.sleep(0.05)\n    \
                # They take the number that the place to show things had.\n    \
                files = [open(f'file{n}', 'wb') for n in range(8)]\n    display('late')\n    open('over', 'w')\n\
                threading.Thread(target=late).start()";
    let exec = Exec { kernel: Some("k".to_owned().try_into().expect("a kernel's name")), ..Exec::of(python(late)) };
    bench.run(bench.request(TaskId::mint(), Operation::Exec(exec))).await;
    while bench.shell("test -e over").await.exit_code() != Some(0) {}
    assert_eq!(bench.shell("cat file*").await.stdout, "");
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
