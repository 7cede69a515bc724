//! A package index on loopback: PEP 503 pages and wheels that are made on the fly.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::wheel::wheel;

/// A running index; it serves until the test's process ends.
#[derive(Debug)]
pub struct Index {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

type Answers = BTreeMap<String, (&'static str, Vec<u8>)>;

impl Index {
    /// Serves `demo-dep` 1.0 and `demo-pkg` 1.0 and 2.0, which needs it; `far`, whose file is at `far_host`; and `gone`,
    /// whose page is a redirect to that host.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn serve(far_host: &str) -> Self {
        Self::serve_with(far_host, &[])
    }

    /// The same, and wheels that are made elsewhere, by their file names.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn serve_with(far_host: &str, wheels: &[(&str, Vec<u8>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut answers = answers(far_host);
        for (file, contents) in wheels {
            let name = file.split('-').next().unwrap_or_default();
            let page = format!("<a href=\"../../files/{file}#sha256=00\">{file}</a>");
            answers.insert(format!("/simple/{name}/"), ("200 OK", page.into_bytes()));
            answers.insert(format!("/files/{file}"), ("200 OK", contents.clone()));
        }
        let answers = Arc::new(answers);
        let heard = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, heard) = (answers.clone(), heard.clone());
                std::thread::spawn(move || answer(stream, &answers, &heard));
            }
        });
        Self { port, asked }
    }

    /// The paths that were asked for so far.
    ///
    /// # Panics
    /// When a thread of it panicked.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test panics here").clone()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/simple", self.host())
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn answers(far_host: &str) -> Answers {
    let wheels = [("demo_dep", "1.0", ""), ("demo_pkg", "1.0", "demo-dep"), ("demo_pkg", "2.0", "demo-dep>=1")];
    let mut answers = Answers::new();
    let mut pages: BTreeMap<String, String> = BTreeMap::new();
    for (name, version, needs) in wheels {
        let file = format!("{name}-{version}-py3-none-any.whl");
        let page = pages.entry(format!("/simple/{}/", name.replace('_', "-"))).or_default();
        page.push_str(&format!("<a href=\"/files/{file}\">{file}</a><br>\n"));
        answers.insert(format!("/files/{file}"), ("200 OK", wheel(name, version, needs)));
    }
    pages.insert(
        "/simple/far/".to_owned(),
        format!("<a href=\"http://{far_host}/far-1.0-py3-none-any.whl\">far-1.0-py3-none-any.whl</a>"),
    );
    for (path, links) in pages {
        answers.insert(path, ("200 OK", format!("<!DOCTYPE html><html><body>{links}</body></html>").into_bytes()));
    }
    answers.insert("/simple/gone/".to_owned(), ("302 Found", far_host.as_bytes().to_vec()));
    answers
}

fn answer(mut stream: TcpStream, answers: &Answers, heard: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && request.len() < 64 << 10 {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&request);
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    heard.lock().expect("no test panics here").push(path.clone());
    let missing = ("404 Not Found", Vec::new());
    let (status, body) = answers.get(&path).unwrap_or(&missing);
    let kind = if path.ends_with(".whl") { "application/octet-stream" } else { "text/html" };
    let (place, body) = match *status {
        "302 Found" => (format!("Location: http://{}/simple/gone/\r\n", String::from_utf8_lossy(body)), &[][..]),
        _ => (String::new(), body.as_slice()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\n{place}Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A client that is gone wants nothing more.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}
