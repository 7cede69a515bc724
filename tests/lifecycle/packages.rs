//! Packages: from an index that the operator permits, from a wheel of the workspace, and from nowhere else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{Client, Index, Installation, User, wheel};
use serde_json::{Value, json};

/// The product with one package index.
struct Rig {
    installation: Installation,
    index: Index,
    far: Index,
}

impl Rig {
    fn new(user: User) -> Self {
        let far = Index::serve("127.0.0.1:1");
        let index = Index::serve(&far.host());
        let installation = Installation::for_user(user);
        let config = format!("package_indexes = '{}'\npackage_hosts = 'none'\n", index.url());
        std::fs::write(installation.outside().join("config.toml"), config).expect("a configuration file");
        Self { installation, index, far }
    }

    fn client(&self) -> Client {
        let config = self.installation.outside().join("config.toml");
        self.installation.client_with(["--config", config.to_str().expect("a path")])
    }
}

/// Writes a wheel into the workspace and gives its path there.
pub fn put_wheel(client: &mut Client, name: &str, version: &str, needs: &str) -> String {
    let path = format!("dist/{name}-{version}-py3-none-any.whl");
    let contents = STANDARD.encode(wheel(name, version, needs));
    client.tool("fs_write", json!({"path": path, "contents": contents, "encoding": "base64"})).ok();
    path
}

fn outcomes(installation: &Installation) -> Vec<Value> {
    let query = installation.run(["audit", "query", "--json"]);
    let text = String::from_utf8_lossy(&query.stdout).into_owned();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record a line"));
    records.filter(|record| record["type"] == "task.outcome" && record["tool"] == "pkg_install").collect()
}

#[test]
fn a_package_from_the_index_is_installed_with_what_it_needs_listed_and_kept() {
    for user in User::all() {
        let rig = Rig::new(user);
        let mut client = rig.client();
        let session = client.tool("session_create", json!({})).structured["session_id"].clone();
        let installed = client.tool("pkg_install", json!({"session_id": session, "packages": ["demo-pkg"]}));
        let text = installed.ok();
        assert!(text.contains("installed demo-dep 1.0, demo-pkg 2.0\n"), "{text}");
        assert!(text.contains(&format!("reached {}\n", rig.index.host())), "{text}");
        let code = "import demo_pkg, demo_dep; print(demo_pkg.VERSION, demo_dep.VERSION)";
        let run = json!({"session_id": session, "code": code});
        assert!(client.tool("run_python", run.clone()).ok().contains("2.0 1.0"));
        let said = client.tool("run_shell", json!({"session_id": session, "command": "demo_pkg-say"}));
        assert!(said.ok().contains("demo_pkg 2.0"), "{}", said.text);
        let list = json!([{"name": "demo-dep", "version": "1.0"}, {"name": "demo-pkg", "version": "2.0"}]);
        assert_eq!(client.tool("pkg_list", json!({"session_id": session})).structured["packages"], list);
        // The server's end is the end of every process of the session; its packages stay.
        drop(client);
        rig.installation.kill_server();
        let mut client = rig.client();
        assert!(client.tool("run_python", run).ok().contains("2.0 1.0"));
        assert_eq!(client.tool("pkg_list", json!({"session_id": session})).structured["packages"], list);
        let outcomes = outcomes(&rig.installation);
        assert_eq!(outcomes[0]["detail"]["packages"], json!(["demo-dep 1.0", "demo-pkg 2.0"]), "{outcomes:?}");
        assert_eq!(outcomes[0]["detail"]["hosts"], json!([rig.index.host()]));
    }
}

#[test]
fn a_version_is_kept_until_an_upgrade_is_asked_for() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    client.tool("pkg_install", json!({"packages": ["demo-pkg==1.0"]})).ok();
    let again = client.tool("pkg_install", json!({"packages": ["Demo_Pkg"]}));
    assert!(again.ok().contains("Already there: demo-pkg 1.0."), "{}", again.text);
    let upgraded = client.tool("pkg_install", json!({"packages": ["demo-pkg"], "upgrade": true}));
    assert!(upgraded.ok().contains("installed demo-pkg 2.0\n"), "{}", upgraded.text);
}

#[test]
fn a_wheel_of_the_workspace_is_installed_and_no_host_is_reached() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    let path = put_wheel(&mut client, "local_one", "0.1", "");
    let installed = client.tool("pkg_install", json!({"packages": [path]}));
    assert!(installed.ok().contains("installed local-one 0.1\n"), "{}", installed.text);
    assert!(!installed.text.contains("reached"), "{}", installed.text);
    assert!(
        client.tool("run_python", json!({"code": "import local_one; print(local_one.VERSION)"})).ok().contains("0.1")
    );
    let needy = put_wheel(&mut client, "needy", "1.0", "demo-dep");
    let failed = client.tool("pkg_install", json!({"packages": [needy]}));
    assert!(failed.failed().contains("demo-dep"), "what is missing is named: {}", failed.text);
    assert!(failed.text.contains("There was no network"), "and what can be done: {}", failed.text);
    assert_eq!(rig.index.asked(), [""; 0], "no host was contacted");
    let both = client.tool("pkg_install", json!({"packages": [needy, "demo-dep"]}));
    assert!(both.ok().contains("installed demo-dep 1.0, needy 1.0\n"), "{}", both.text);
}

#[test]
fn what_is_no_plain_requirement_is_refused_before_anything_runs() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    for bad in [
        "--index-url=http://127.0.0.1:1/",
        "-r requirements.txt",
        "-e .",
        "demo-pkg --pre",
        "demo-pkg @ http://127.0.0.1:1/x.whl",
        "http://127.0.0.1:1/demo_pkg-1.0-py3-none-any.whl",
        "git+https://h/x",
        "file:///etc/passwd",
        ".",
        "./src",
        "/etc",
        "x.tar.gz",
        "$(id)",
        "a;b",
        "",
        "demo-pkg\n--pre",
    ] {
        client.tool("pkg_install", json!({"packages": ["demo-pkg", bad]})).code("INVALID_ARGUMENT");
    }
    for bad in ["../x-1-py3-none-any.whl", "/tmp/x-1-py3-none-any.whl"] {
        client.tool("pkg_install", json!({"packages": [bad]})).code("INVALID_ARGUMENT");
    }
    client.tool("pkg_install", json!({"packages": ["dist/none-1-py3-none-any.whl"]})).code("NOT_FOUND");
    client.tool("pkg_install", json!({"packages": []})).code("INVALID_ARGUMENT");
    let foreign = json!({"packages": ["demo-pkg"], "index_url": rig.far.url()});
    client.tool("pkg_install", foreign).code("PERMISSION_DENIED");
    client.tool("pkg_install", json!({"packages": ["demo-pkg"], "index_url": "-i"})).code("INVALID_ARGUMENT");
    assert_eq!((rig.index.asked().len(), rig.far.asked().len()), (0, 0));
}

#[test]
fn an_index_leads_to_no_other_host() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    for package in ["far", "gone"] {
        let failed = client.tool("pkg_install", json!({"packages": [package]}));
        let refused =
            format!("{} was not reached: it is not among the hosts that the operator permits.", rig.far.host());
        assert!(failed.failed().contains(&refused), "{package}: {}", failed.text);
        assert!(failed.text.starts_with("exit 1"), "{}", failed.text);
    }
    assert_eq!(rig.far.asked(), [""; 0]);
    let missing = client.tool("pkg_install", json!({"packages": ["no-such-package"]}));
    assert!(missing.failed().contains("Only wheels are installed"), "{}", missing.text);
    assert!(missing.failed().contains("No matching distribution found for no-such-package"), "{}", missing.text);
}

#[test]
fn code_of_the_session_gets_nothing_of_the_network_of_an_installation() {
    let rig = Rig::new(User::Myself);
    let mut client = rig.client();
    client.tool("run_python", json!({"code": "pass"})).ok();
    // Looks into every process of the session for as long as an installation runs beside it. What cannot be read although
    // it could be reached (address zero, a socket) counts; what has ended by then reads as empty, and does not.
    let spy = format!(
        "import errno, glob, os, socket, time\ngot = set()\nseen = False\nuntil = time.monotonic() + 25\n\
         while time.monotonic() < until and not os.path.exists('done'):\n\
         \x20 for process in glob.glob('/proc/[0-9]*'):\n\
         \x20   try: line = open(process + '/cmdline', 'rb').read()\n\
         \x20   except OSError: continue\n\
         \x20   if b'<install>' not in line: continue\n\
         \x20   seen = True\n\
         \x20   for what in ('mem', 'environ', 'maps', *(f'fd/{{n}}' for n in range(3, 12))):\n\
         \x20     try: got.update([what] if open(process + '/' + what, 'rb', 0).read(1) else [])\n\
         \x20     except OSError as error: got.update([what] if error.errno in (errno.EIO, errno.ENXIO) else [])\n\
         \x20 try: socket.create_connection(('127.0.0.1', {}), 0.1); got.add('connected')\n\
         \x20 except OSError: pass\n\
         print('seen', seen, 'got', sorted(got))",
        rig.index.host().rsplit(':').next().expect("a port")
    );
    let spying = client.start_tool("run_python", json!({"code": spy}));
    let installed = client.tool("pkg_install", json!({"packages": ["demo-pkg"]}));
    assert!(installed.ok().contains("installed demo-dep 1.0, demo-pkg 2.0\n"), "{}", installed.text);
    client.tool("fs_write", json!({"path": "done", "contents": ""})).ok();
    let spied = client.tool_answer(spying);
    assert!(spied.ok().contains("seen True got []"), "{}", spied.text);
}

#[test]
fn an_operator_who_permits_no_index_has_none() {
    let installation = Installation::new();
    std::fs::write(installation.outside().join("off.toml"), "package_indexes = 'none'\n")
        .expect("a configuration file");
    let config = installation.outside().join("off.toml");
    let mut client = installation.client_with(["--config", config.to_str().expect("a path")]);
    client.tool("pkg_install", json!({"packages": ["demo-pkg"]})).code("PERMISSION_DENIED");
    let path = put_wheel(&mut client, "local_one", "0.1", "");
    assert!(client.tool("pkg_install", json!({"packages": [path]})).ok().contains("installed local-one 0.1\n"));
    let listed = client.tool("pkg_list", json!({}));
    assert_eq!(listed.structured, json!({"packages": [{"name": "local-one", "version": "0.1"}], "truncated": false}));
}
