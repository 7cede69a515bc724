//! Two network namespaces and the line between them, which loses, delays, or is cut.
//!
//! Where the kernel has netem it is a pair of interfaces under `tc`, elsewhere a process that carries the packets.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the coordinator is.
pub const HERE: &str = "10.213.0.1";
/// Where the worker is.
const THERE: &str = "10.213.0.2";
/// How the namespaces of these tests are named; the process that made them follows.
const PREFIX: &str = "codegen-line-";

/// How the line is, in both directions.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub loss_percent: u32,
    pub delay_ms: u32,
    pub jitter_ms: u32,
}

impl Weather {
    /// Nothing gets lost, and everything arrives at once.
    pub const FAIR: Self = Self { loss_percent: 0, delay_ms: 0, jitter_ms: 0 };
    /// Nothing arrives, and nobody is told.
    pub const CUT: Self = Self { loss_percent: 100, ..Self::FAIR };
}

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Here,
    There,
}

/// The line. Dropping it takes the namespaces away.
pub struct Line {
    namespaces: [String; 2],
    interfaces: [String; 2],
    carrier: Carrier,
}

enum Carrier {
    Netem,
    Relay { process: Child, orders: ChildStdin },
}

impl Line {
    /// A line in fair weather, or nothing once it is said that the test is skipped.
    ///
    /// # Panics
    /// When there can be none where `CI=true`.
    pub fn at_hand() -> Option<Self> {
        match Self::lay() {
            Ok(line) => Some(line),
            Err(why) => {
                let test = std::thread::current().name().unwrap_or("a test").to_owned();
                assert!(env::var("CI").as_deref() != Ok("true"), "{test} needs network namespaces: {why}");
                eprintln!("SKIPPED {test}: it needs network namespaces: {why}");
                None
            }
        }
    }

    fn lay() -> Result<Self, String> {
        static LINES: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err("only root can make them".to_owned());
        }
        sweep()?;
        let (process, number) = (std::process::id(), LINES.fetch_add(1, Ordering::Relaxed));
        let namespaces = ["a", "b"].map(|end| format!("{PREFIX}{process}-{number}{end}"));
        let interfaces = ["a", "b"].map(|end| format!("cl{process}.{number}{end}"));
        let mut laid = Self { namespaces, interfaces, carrier: Carrier::Netem };
        for namespace in &laid.namespaces {
            run("ip", &["netns", "add", namespace])?;
            run("ip", &["-n", namespace, "link", "set", "lo", "up"])?;
        }
        laid.join()?;
        Ok(laid)
    }

    fn join(&mut self) -> Result<(), String> {
        let [a, b] = self.interfaces.clone();
        run("ip", &["link", "add", &a, "type", "veth", "peer", "name", &b])?;
        if run("tc", &["qdisc", "add", "dev", &a, "root", "netem"]).is_err() {
            run("ip", &["link", "delete", &a])?;
            eprintln!("this kernel has no netem (sch_netem); a process carries the packets instead");
            self.carrier = relay(&a, &b)?;
        }
        for (end, (address, peer)) in [(HERE, THERE), (THERE, HERE)].into_iter().enumerate() {
            let (namespace, interface) = (&self.namespaces[end], &self.interfaces[end]);
            run("ip", &["link", "set", interface, "netns", namespace])?;
            run("ip", &["-n", namespace, "address", "add", address, "peer", peer, "dev", interface])?;
            run("ip", &["-n", namespace, "link", "set", interface, "up"])?;
        }
        self.set(Weather::FAIR);
        Ok(())
    }

    /// Changes the weather.
    ///
    /// # Panics
    /// When the line does not do as it is told.
    pub fn set(&mut self, weather: Weather) {
        let Weather { loss_percent, delay_ms, jitter_ms } = weather;
        match &mut self.carrier {
            Carrier::Netem => {
                let (loss, delay, jitter) =
                    (format!("{loss_percent}%"), format!("{delay_ms}ms"), format!("{jitter_ms}ms"));
                for (namespace, interface) in self.namespaces.iter().zip(&self.interfaces) {
                    let device = ["-n", namespace, "qdisc", "replace", "dev", interface, "root", "netem"];
                    let how = ["loss", &loss, "delay", &delay, &jitter];
                    run("tc", &[&device[..], &how].concat()).expect("netem takes the weather");
                }
            }
            Carrier::Relay { orders, .. } => {
                let order = format!("{loss_percent} {delay_ms} {jitter_ms}\n");
                orders.write_all(order.as_bytes()).expect("the relay takes orders");
            }
        }
    }

    /// The same command, run at one end of the line. Its environment is what it names itself.
    pub fn at(&self, end: End, command: &Command) -> Command {
        let namespace = &self.namespaces[usize::from(end == End::There)];
        let mut there = Command::new("nsenter");
        there.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(command.get_program());
        there.args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            there.env(name, value.unwrap_or_default());
        }
        there
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Carrier::Relay { process, .. } = &mut self.carrier {
            let _gone = process.kill();
            let _reaped = process.wait();
        }
        for namespace in &self.namespaces {
            let _gone = run("ip", &["netns", "delete", namespace]);
        }
    }
}

/// Starts the process that carries the packets between two interfaces that it makes.
fn relay(a: &str, b: &str) -> Result<Carrier, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("network/relay.py");
    let mut process = Command::new("python3")
        .arg(script)
        .args([a, b])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("python3: {error}"))?;
    let (orders, said) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
    let mut line = String::new();
    let ready = BufReader::new(said).read_line(&mut line).is_ok_and(|_| line == "ready\n");
    let carrier = Carrier::Relay { process, orders };
    if ready { Ok(carrier) } else { Err("there is neither netem nor /dev/net/tun".to_owned()) }
}

/// Takes away what a test that was killed has left.
fn sweep() -> Result<(), String> {
    let listed = run("ip", &["netns", "list"])?;
    for namespace in String::from_utf8_lossy(&listed.stdout).lines().filter_map(|line| line.split(' ').next()) {
        let owner = namespace.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            run("ip", &["netns", "delete", namespace])?;
        }
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> Result<Output, String> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{}: {error}", shown()))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{}: {}", shown(), String::from_utf8_lossy(&output.stderr).trim()))
}
