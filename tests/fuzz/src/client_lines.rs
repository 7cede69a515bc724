//! Lines that a hostile client writes, read by the front door as a whole: codec, protocol, handler and every tool's
//! arguments. Behind it is a session layer that runs nothing, the same that the front door's own tests use.

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::Audit;
use codegen_types::Principal;
use coordinator::caller::Caller;
use coordinator::identity::Scopes;
use coordinator::mcp::{Options, Services, serve_stdio};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

#[path = "../../../coordinator/tests/mcp/double.rs"]
mod double;

const HELLO: &str = r#"{"jsonrpc":"2.0","id":"hello","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"fuzz","version":"1"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}
"#;
/// How long a connection may take to end once its client has closed its side.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first byte says whether the client greets first; the rest is what it writes.
///
/// # Panics
/// When the connection does not end, anything but whole JSON-RPC messages is written, or a client that greeted is not
/// answered a ping afterwards.
pub fn client_lines(data: &[u8]) {
    let Some((greets, lines)) = data.split_first() else { return };
    let greets = greets % 2 == 0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let written = runtime.block_on(async {
        let talk = talk(greets, lines);
        tokio::time::timeout(PATIENCE, talk).await.expect("the connection ends")
    });
    let mut is_answered = false;
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        let message: Value = serde_json::from_slice(line).expect("a line of protocol");
        assert!(line.ends_with(b"\n") && message["jsonrpc"] == "2.0", "{message}");
        is_answered |= message["id"] == "the-last-ping";
    }
    assert!(is_answered || !greets, "a client that greeted is not served any more");
}

/// All that a client is written who writes this.
async fn talk(greets: bool, lines: &[u8]) -> Vec<u8> {
    let double = Arc::<double::Double>::default();
    let options = Options { eof_grace: Duration::ZERO, ..Options::default() };
    let services = Services::new(Arc::new(double::Sessions(double)), Audit::in_memory(), options);
    let caller = Caller { principal: Principal::os_user("ann"), scopes: Scopes::ALL, client: None, trace: None };
    let (mut to_server, input) = tokio::io::duplex(1 << 16);
    let (output, mut from_server) = tokio::io::duplex(1 << 16);
    let served = serve_stdio(services, caller, input, output, CancellationToken::new());
    let ping = json!({"jsonrpc": "2.0", "id": "the-last-ping", "method": "ping"});
    let said = [if greets { HELLO.as_bytes() } else { b"" }, lines, format!("\n{ping}\n").as_bytes()].concat();
    let write = async {
        // A server that has ended does not read on.
        let _unread = to_server.write_all(&said).await;
        drop(to_server);
    };
    let mut written = Vec::new();
    let read = from_server.read_to_end(&mut written);
    let (_, _, read) = tokio::join!(served, write, read);
    read.expect("memory can be read");
    written
}
