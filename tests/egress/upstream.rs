//! Hosts of the tests' own making: some keep what they hear, others do what no honest host does.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The longest flood, in bytes: whoever takes so much has no bound.
pub const FLOOD_BYTES_MAX: usize = 512 << 20;
/// How much of a flood is written at once, in bytes.
const PIECE_BYTES: usize = 16 << 10;
/// How long nothing is taken of a flood until it is blocked.
const PATIENCE: Duration = Duration::from_secs(1);

/// A host on the loopback interface of the machine, which listens until the test ends.
pub struct Upstream {
    port: u16,
    begun: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Upstream {
    /// Takes connections at this address; what is done with each ends with it and gives what was heard.
    pub fn at(address: &str, conduct: impl Fn(&mut TcpStream) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (begun, heard) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let (begins, hears, conduct) = (Arc::clone(&begun), Arc::clone(&heard), Arc::new(conduct));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                begins.fetch_add(1, Ordering::Relaxed);
                let (hears, conduct) = (Arc::clone(&hears), Arc::clone(&conduct));
                std::thread::spawn(move || {
                    let bytes = conduct(&mut stream);
                    hears.lock().expect("no panic").push(bytes);
                });
            }
        });
        Self { port, begun, heard }
    }

    /// The same at an address that sessions do not take for their own.
    pub fn serve(conduct: impl Fn(&mut TcpStream) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.2", conduct)
    }

    /// As sessions name it.
    pub fn host(&self) -> String {
        self.host_by("127.0.0.2")
    }

    /// As sessions name it that know it by this name.
    pub fn host_by(&self, name: &str) -> String {
        format!("{name}:{}", self.port)
    }

    /// Connections that came.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// What was heard on each connection that is over.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().expect("no panic").clone()
    }

    /// Whether every connection that came is over.
    pub fn is_left_alone(&self) -> bool {
        self.heard.lock().expect("no panic").len() == self.begun()
    }
}

/// Says all that it heard, once there is no more.
pub fn repeat(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    // Whoever breaks off needs no answer.
    let _ = stream.read_to_end(&mut heard);
    let _ = stream.write_all(&heard);
    heard
}

/// Keeps a connection open until the other side ends it.
pub fn hold(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    heard
}

/// Answers one request, and hears whatever else comes.
pub fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = head(stream);
    let text = String::from_utf8_lossy(&heard).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if text.contains("transfer-encoding: chunked") {
        read_until(stream, &mut heard, b"0\r\n\r\n");
    } else {
        let mut body = vec![0; length.unwrap_or(0)];
        // What is not whole is heard of by its length.
        if stream.read_exact(&mut body).is_ok() {
            heard.extend(body);
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut heard);
    heard
}

/// Says these bytes once a request's head has come, and no more.
pub fn say(bytes: &'static [u8]) -> impl Fn(&mut TcpStream) -> Vec<u8> + Send + Sync + 'static {
    move |stream| {
        let heard = head(stream);
        let _ = stream.write_all(bytes);
        heard
    }
}

/// What became of a flood, on all its connections together.
#[derive(Default)]
pub struct Flood {
    /// Bytes that were taken.
    pub sent_bytes: AtomicUsize,
    /// Connections on which nothing was taken for a while.
    pub blocked: AtomicUsize,
}

/// Says the first bytes once a request's head has come, and the others again and again until nobody is there to take them.
pub fn flood(
    first: &'static [u8],
    again: &'static [u8],
    told: &Arc<Flood>,
) -> impl Fn(&mut TcpStream) -> Vec<u8> + Send + Sync + 'static {
    let told = Arc::clone(told);
    move |stream| {
        let heard = head(stream);
        stream.set_write_timeout(Some(PATIENCE)).expect("an option");
        let (piece, mut is_blocked) = (again.repeat(PIECE_BYTES / again.len()), false);
        let mut rest = [first, &piece].concat();
        while told.sent_bytes.load(Ordering::Relaxed) < FLOOD_BYTES_MAX {
            match stream.write(&rest) {
                Ok(written) => {
                    told.sent_bytes.fetch_add(written, Ordering::Relaxed);
                    rest.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    told.blocked.fetch_add(usize::from(!is_blocked), Ordering::Relaxed);
                    is_blocked = true;
                }
                Err(_) => break,
            }
            if rest.is_empty() {
                rest.extend(&piece);
            }
        }
        heard
    }
}

/// The head of a request, or what there is of it.
pub fn head(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    read_until(stream, &mut heard, b"\r\n\r\n");
    heard
}

/// Reads byte by byte, so that nothing of what follows is taken.
fn read_until(stream: &mut TcpStream, heard: &mut Vec<u8>, end: &[u8]) {
    let mut byte = [0];
    while !heard.ends_with(end) && stream.read_exact(&mut byte).is_ok() {
        heard.push(byte[0]);
    }
}
