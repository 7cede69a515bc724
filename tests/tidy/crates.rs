//! Dependencies between the crates point one way.

use std::collections::BTreeMap;
use std::fs;

use crate::tree;

/// Which crates of the workspace each one may name. The binary of `coordinator` is one file with the worker in it; that
/// its library does not name the worker is a rule of its own.
const ALLOWED: &[(&str, &[&str])] = &[
    ("codegen-types", &[]),
    ("codegen-pattern", &[]),
    ("codegen-proto", &["codegen-types"]),
    ("codegen-audit", &["codegen-types"]),
    ("coordinator-core", &["codegen-types"]),
    ("sandbox", &["codegen-types", "codegen-pattern"]),
    ("worker", &["codegen-types", "codegen-proto", "sandbox"]),
    (
        "coordinator",
        &["codegen-types", "codegen-pattern", "codegen-proto", "codegen-audit", "coordinator-core", "worker"],
    ),
    (
        "e2e",
        &["codegen-types", "codegen-proto", "codegen-audit", "coordinator-core", "sandbox", "worker", "coordinator"],
    ),
    ("bench-peers", &["codegen-types", "codegen-proto", "codegen-audit", "coordinator-core", "coordinator"]),
    (
        "codegen-fuzz-targets",
        &["codegen-types", "codegen-proto", "codegen-audit", "coordinator-core", "sandbox", "coordinator"],
    ),
    ("conformance", &["codegen-audit", "coordinator"]),
    ("virtual", &[]),
];

fn manifests() -> BTreeMap<String, toml::Table> {
    let text = fs::read_to_string(tree::top().join("Cargo.toml")).expect("the workspace's manifest");
    let workspace: toml::Table = text.parse().expect("TOML");
    let members = workspace["workspace"]["members"].as_array().expect("members");
    members
        .iter()
        .map(|member| {
            let path = tree::top().join(member.as_str().expect("a path")).join("Cargo.toml");
            let manifest: toml::Table = fs::read_to_string(path).expect("a manifest").parse().expect("TOML");
            (manifest["package"]["name"].as_str().expect("a name").to_owned(), manifest)
        })
        .collect()
}

#[test]
fn crates_depend_one_way() {
    let manifests = manifests();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    for (name, manifest) in &manifests {
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name}: say in ALLOWED what it may name"));
        let named =
            manifest.get("dependencies").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
        for dependency in named.filter(|dependency| manifests.contains_key(*dependency)) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn every_crate_takes_part_in_the_workspace_s_lints_and_versions() {
    for (name, manifest) in manifests() {
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{name}");
        for field in ["version", "edition", "license", "rust-version"] {
            assert!(manifest["package"][field]["workspace"].as_bool() == Some(true), "{name}: {field}");
        }
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table).into_iter().flatten();
        for (dependency, wanted) in dependencies {
            let shared = wanted.get("workspace").and_then(toml::Value::as_bool);
            assert_eq!(shared, Some(true), "{name}: {dependency} has a version of its own");
        }
    }
}
