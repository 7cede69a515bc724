//! The live view on a terminal, which is afterwards as it was before.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

use crate::front::{Place, poll, signal};

const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// A terminal of 80 by 24, and the view on it.
struct Terminal {
    master: File,
    slave: File,
    view: Child,
    seen: String,
}

impl Terminal {
    fn watching(place: &Place) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = place.command(&["top", "--interval", "100ms"]);
        let view = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { master: File::from(master), slave, view, seen: String::new() }
    }

    /// Reads what is there, and gives everything so far.
    fn look(&mut self) -> &str {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = self.master.read(&mut bytes) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        &self.seen
    }

    fn waits_for(&mut self, text: &str) {
        poll(text, || self.look().contains(text).then_some(()));
    }

    fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// The view ends, and the terminal is as it was.
    fn is_restored(&mut self) -> bool {
        let status = poll("the view ends", || self.view.try_wait().unwrap());
        let echoes = self.echoes();
        let seen = self.look();
        assert!(seen.starts_with(ENTER) && seen.contains(LEAVE) && echoes, "{status}: {seen:?}");
        status.success()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Most have ended already.
        let _ = self.view.kill();
        let _ = self.view.wait();
    }
}

#[test]
fn the_view_fits_its_terminal_and_restores_it_after_a_key_a_signal_and_the_servers_end() {
    let place = Place::new();
    let mut front = place.client();
    for how in ["key", "interrupt key", "signal", "server"] {
        let mut terminal = Terminal::watching(&place);
        terminal.waits_for("embedded");
        terminal.waits_for("calls/s");
        assert!(!terminal.echoes(), "keys are no input to a line");
        match how {
            "key" => terminal.master.write_all(b"q").unwrap(),
            "interrupt key" => terminal.master.write_all(&[3]).unwrap(),
            "signal" => signal(terminal.view.id(), Signal::TERM),
            _ => signal(place.server().unwrap(), Signal::KILL),
        }
        let went_well = terminal.is_restored();
        assert_eq!(went_well, how != "server", "{how}");
        for line in terminal.seen.split(['\n', '\r']) {
            let text: String = line.split('\u{1b}').map(|part| part.trim_start_matches(is_of_sequence)).collect();
            assert!(how == "server" || text.chars().count() <= 80, "{text:?}");
        }
    }
    front.wait();
}

/// What follows the escape character in the sequences that are used.
fn is_of_sequence(c: char) -> bool {
    matches!(c, '[' | '?' | '0'..='9' | 'H' | 'K' | 'J' | 'h' | 'l')
}

#[test]
fn without_a_terminal_it_prints_once() {
    let place = Place::new();
    let _front = place.client();
    let output = place.command(&["top", "--json"]).output().unwrap();
    let top: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&top["log"]["writable"], &top["tasks_running"]), (&true.into(), &0.into()));
    assert_eq!(top["pid"], place.server().unwrap());
    let printed = place.command(&["top"]).output().unwrap();
    assert!(printed.status.success() && !printed.stdout.contains(&0x1b), "{printed:?}");
    assert!(String::from_utf8(printed.stdout).unwrap().contains("log writable"));
}
