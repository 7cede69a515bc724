//! SECURITY.md's table of layers by level is what doctors find.

use e2e::{Facts, Installation, LOOK, User};
use serde_json::Value;

fn found(installation: &Installation, arguments: &[&str]) -> Value {
    let output = installation.bare_command(arguments).output().expect("the binary starts");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
}

#[test]
fn doctors_find_what_security_md_documents_at_each_level() {
    for user in User::all().into_iter().chain(User::below_full()) {
        let installation = Installation::for_user(user);
        let state = installation.state_dir().display().to_string();
        let isolation = found(&installation, &["doctor", "--json", "--state-dir", &state])["isolation"].clone();
        let facts = Facts::of(&installation.python_as_product(LOOK).stdout);
        println!("{user:?}: {facts:?}");
        facts.expect_documented(user.level(), &isolation);
        let worker = found(&installation, &["worker", "doctor", "--json"]);
        assert_eq!(worker["isolation"], isolation, "{user:?}: both doctors say the same");
        let text = String::from_utf8(installation.run(["doctor"]).stdout).expect("text");
        let of_worker = installation.bare_command(["worker", "doctor"]).output().expect("the binary starts");
        let of_worker = String::from_utf8(of_worker.stdout).expect("text");
        let matrix = |text: &str| {
            text.split("isolation layers").nth(1).map(|rest| rest.split("\n\n").next().unwrap_or_default().to_owned())
        };
        assert!(matrix(&text).is_some() && matrix(&text) == matrix(&of_worker), "{text}\n{of_worker}");
    }
}
