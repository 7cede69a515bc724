//! Network: nothing but a loopback of its own.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::room::Room;

pub async fn nothing_but_loopback_is_there() {
    let room = Room::new().await;
    let interfaces = "print([line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]])";
    assert_eq!(room.python(interfaces).await, "['lo']");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        r"
import socket
for family, address in [(socket.AF_INET, ('127.0.0.1', {port})), (socket.AF_INET, ('1.1.1.1', 53)), (socket.AF_INET6, ('2606:4700:4700::1111', 53))]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        s.settimeout(1)
        try:
            s.connect(address)
            if kind == socket.SOCK_STREAM or address[0] != '127.0.0.1':
                print('connected', address, kind)
        except OSError:
            pass
"
    );
    assert_eq!(room.python(&script).await, "");
}

pub async fn a_server_on_loopback_can_be_tested() {
    let room = Room::new().await;
    let script = r"
import socket
for family, host in [(socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')]:
    server = socket.socket(family); server.bind((host, 0)); server.listen()
    client = socket.create_connection(server.getsockname()[:2], 2)
    peer, _ = server.accept(); peer.sendall(b'hi'); assert client.recv(2) == b'hi'
print(socket.gethostbyname('localhost'))
";
    assert_eq!(room.python(script).await, "127.0.0.1");
}

pub async fn socket_families_other_than_unix_and_inet_are_denied() {
    let room = Room::new().await;
    let script = r"
import socket, errno
for family in range(0, 46):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind, 0).close()
            if family not in (1, 2, 10): print('made', family, kind)
        except OSError as e:
            if family not in (1, 2, 10) and e.errno != errno.EPERM: print('not denied', family, e)
for kind in (socket.SOCK_RAW,):
    for family in (socket.AF_INET, socket.AF_INET6):
        try: socket.socket(family, kind, 1); print('raw')
        except PermissionError: pass
for kind, protocol in ((6, 0), (5, 0), (5, 132), (1, 132), (6, 33), (3, 255)):
    try: socket.socket(socket.AF_INET, kind, protocol); print('made', kind, protocol)
    except PermissionError: pass
a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'
";
    assert_eq!(room.python(script).await, "");
}

pub async fn abstract_sockets_of_the_host_cannot_be_reached() {
    let name = format!("codegen-mcp-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let room = Room::new().await;
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ntry:\n    s.connect('\\0{name}'); print('reached')\nexcept OSError: print('refused')"
    );
    assert_eq!(room.python(&script).await, "refused");
}
