//! Sessions that open as many connections as they can: they are told so, and nobody else notices.

use e2e::{Client, User, poll_until};
use serde_json::{Value, json};

use crate::rig::{LONG, Rig, begin, finish, python, written};
use crate::upstream::{Upstream, answer, hold};

/// Connections of one session that are open at once, those of it that no other session takes, and those that all share.
const SESSION_MAX: usize = 32;
const OWN: usize = 4;
const SHARED_MAX: usize = 256;
/// How many descriptors the worker may have more afterwards, for what else it does meanwhile.
const DESCRIPTORS_MORE: usize = 12;

/// Opens tunnels, holds them, and asks for something.
const TUNNELS: &str = "import os, socket, time\n\
    def say(said):\n    \
        line = socket.create_connection(('127.0.0.1', 3128), timeout=120)\n    \
        try: line.sendall(said.encode())\n    \
        except ConnectionError: pass\n    \
        return line\n\
    def heard(line):\n    \
        heard = b''\n    \
        try:\n        \
            while b'\\r\\n\\r\\n' not in heard and (more := line.recv(65536)): heard += more\n        \
            while b' 503 ' in heard and (more := line.recv(65536)): heard += more\n    \
        except ConnectionError: pass\n    \
        return heard.decode().replace('\\r\\n', ' ') or 'closed'\n\
    def tunnels(host, count):\n    \
        lines = [say(f'CONNECT {host} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n') for _ in range(count)]\n    \
        assert all(' 200 ' in heard(line) for line in lines)\n    \
        return lines\n\
    def get(host): return heard(say(f'GET http://{host}/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n'))\n\
    def tell(name, text):\n    \
        open(name + '.new', 'w').write(text)\n    \
        os.rename(name + '.new', name)\n\
    def until(name):\n    \
        while not os.path.exists(name): time.sleep(0.02)\n";

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// The product with a host that holds connections and one that answers.
struct Ground {
    rig: Rig,
    held: Upstream,
    plain: Upstream,
    client: Client,
}

impl Ground {
    fn new() -> Self {
        let (rig, held, plain) = (Rig::new(User::Myself), Upstream::serve(hold), Upstream::serve(answer));
        rig.permit(&[&held.host(), &plain.host()]);
        let client = rig.client();
        Self { rig, held, plain, client }
    }

    fn session(&mut self) -> String {
        let made =
            self.client.tool("session_create", json!({"network": {"allow": [self.held.host(), self.plain.host()]}}));
        made.ok();
        made.structured["session_id"].as_str().expect("a handle").to_owned()
    }

    /// Begins a program that is told of the hosts and has the functions above.
    fn begin(&mut self, session: &str, code: &str) -> Value {
        let hosts = format!("held, plain = {:?}, {:?}\n", self.held.host(), self.plain.host());
        begin(&mut self.client, session, &format!("{TUNNELS}{hosts}{code}"))
    }

    fn get(&mut self, session: &str) -> String {
        let code = format!("{TUNNELS}print(get({:?}))", self.plain.host());
        python(&mut self.client, session, &code)
    }

    fn go(&mut self, session: &str) {
        self.client.tool("fs_write", json!({"session_id": session, "path": "go", "contents": ""})).ok();
    }
}

#[test]
fn ten_thousand_connections_of_a_session_are_bounded_told_so_and_given_back() {
    let mut ground = Ground::new();
    let (greedy, neighbour) = (ground.session(), ground.session());
    for session in [&greedy, &neighbour] {
        assert!(ground.get(session).contains(" 200 "), "it is there before");
    }
    let worker = ground.rig.worker_pid();
    let before = descriptors(worker);
    let code = format!(
        "lines = tunnels(held, {SESSION_MAX})\n\
         tell('full', '')\n\
         tell('refusal', get(plain))\n\
         until('flood')\n\
         outcomes = []\n\
         for _ in range(100):\n    \
             flood = [say(f'CONNECT {{held}} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n') for _ in range(100)]\n    \
             outcomes += [heard(line).split(' ')[1:2] for line in flood]\n\
         print('tries', len(outcomes), 'tunnels', outcomes.count(['200']))\n\
         until('go')\n\
         [line.close() for line in lines]\n\
         while ' 200 ' not in get(plain): time.sleep(0.02)\n\
         print('afterwards 200')\n"
    );
    let task = ground.begin(&greedy, &code);
    written(&mut ground.client, &greedy, "full");
    assert!(ground.get(&neighbour).contains(" 200 "), "a neighbour does not wait for places of another");
    let refusal = written(&mut ground.client, &greedy, "refusal");
    assert!(refusal.contains(" 503 ") && refusal.contains("this session has 32 connections open"), "{refusal}");
    ground.client.tool("fs_write", json!({"session_id": greedy, "path": "flood", "contents": ""})).ok();
    assert!(ground.get(&neighbour).contains(" 200 "), "nor while it tries again and again");
    ground.go(&greedy);
    let text = finish(&mut ground.client, &task);
    assert!(text.contains("tries 10000 tunnels 0") && text.contains("afterwards 200"), "{text}");
    assert_eq!(ground.held.begun(), SESSION_MAX, "the host heard of no more");
    assert!(ground.get(&neighbour).contains(" 200 "));
    poll_until("descriptors are given back", LONG, || (descriptors(worker) <= before + DESCRIPTORS_MORE).then_some(()));
    assert!(ground.held.is_left_alone());
}

#[test]
fn sessions_that_take_all_connections_of_a_worker_leave_another_its_own_and_it_is_told_so() {
    let mut ground = Ground::new();
    let count = SHARED_MAX.div_ceil(SESSION_MAX - OWN);
    let (greedy, late): (Vec<_>, _) = ((0..count).map(|_| ground.session()).collect(), ground.session());
    // All but the last take as many as one session may, and that one what is left.
    let of = |nth: usize| SESSION_MAX.min(OWN + SHARED_MAX - nth * (SESSION_MAX - OWN));
    let tasks: Vec<_> = greedy
        .iter()
        .enumerate()
        .map(|(nth, session)| {
            ground.begin(session, &format!("lines = tunnels(held, {})\ntell('full', '')\nuntil('go')\n", of(nth)))
        })
        .collect();
    for session in &greedy {
        written(&mut ground.client, session, "full");
    }
    assert_eq!(ground.held.begun(), SHARED_MAX + count * OWN);
    let code = format!(
        "lines = tunnels(held, {OWN})\nprint(get(plain))\nlines.pop().close()\n\
         while ' 503 ' in (said := get(plain)): time.sleep(0.02)\nprint('own', said)\n"
    );
    let task = ground.begin(&late, &code);
    let text = finish(&mut ground.client, &task);
    assert!(text.contains(" 503 ") && text.contains("the sessions of this worker"), "{text}");
    assert!(text.contains("own HTTP/1.1 200"), "its own places are nobody else's: {text}");
    for session in &greedy {
        ground.go(session);
    }
    for task in &tasks {
        finish(&mut ground.client, task);
    }
    poll_until("the host is left alone", LONG, || ground.held.is_left_alone().then_some(()));
    let code = format!("lines = tunnels(held, {SESSION_MAX})\nprint('all are there again')\n");
    let task = ground.begin(&late, &code);
    assert!(finish(&mut ground.client, &task).contains("all are there again"));
}
