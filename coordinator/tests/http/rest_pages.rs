//! Lists in pages: each entry once, whatever comes between two of them.

use codegen_audit::Audit;
use codegen_types::event::{FileKind, FileStat};
use coordinator::admission::Admission;
use coordinator::approvals::Approvals;
use coordinator::identity::{Scope, Scopes};
use coordinator::policy::{Gate, Hosts, Policies};
use coordinator_core::policy::Policy;
use hyper::StatusCode;
use serde_json::Value;

use crate::rest_operators::session;
use crate::rig::{CORDONED, Rig, until};

const BASE: &str = "/api/v1";

/// Follows the links from one page to the next: the pages, each of which has what is listed as `name`.
async fn pages(rig: &Rig, token: &str, first: &str, name: &str) -> Vec<Vec<Value>> {
    let (mut path, mut pages) = (format!("{BASE}{first}"), Vec::new());
    loop {
        let page = rig.request("GET", &path).bearer(Some(token)).send().await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        let link = page.headers.get("link").map(|link| link.to_str().expect("text").to_owned());
        let page = page.json().await;
        pages.push(page[name].as_array().expect("entries").clone());
        assert_eq!(page.get("next_cursor").is_some(), link.is_some(), "{page}");
        match link {
            Some(link) => path = link[1..].split_once('>').expect("a link").0.to_owned(),
            None => return pages,
        }
    }
}

fn names(pages: &[Vec<Value>], field: &str) -> Vec<String> {
    pages.iter().flatten().map(|entry| entry[field].as_str().expect("a name").to_owned()).collect()
}

fn sizes(pages: &[Vec<Value>]) -> Vec<usize> {
    pages.iter().map(Vec::len).collect()
}

#[tokio::test]
async fn every_list_is_described_with_its_pages() {
    let rig = Rig::new().await;
    let described = rig.request("GET", "/api/openapi.json").send().await.json().await;
    let mut lists = Vec::new();
    for (path, item) in described["paths"].as_object().expect("paths") {
        let operation = &item["get"];
        let name = operation["operationId"].as_str().unwrap_or_default();
        if name.starts_with("list_") || name == "query_audit" {
            let parameters = operation["parameters"].as_array().expect("parameters");
            let has = |wanted: &str| parameters.iter().any(|parameter| parameter["name"] == wanted);
            assert!(has("limit") && has("cursor"), "{path}: {parameters:?}");
            assert!(operation["responses"]["200"]["headers"]["link"].is_object(), "{path}");
            lists.push(name.to_owned());
        }
    }
    assert_eq!(lists.len(), 7, "{lists:?}");
}

#[tokio::test]
async fn tokens_and_workers_come_in_pages() {
    let rig = Rig::new().await;
    let token = rig.token("op", Scope::Admin.into()).await;
    for user in ["a", "b", "c", "d"] {
        rig.token(user, Scopes::USER).await;
    }
    let tokens = pages(&rig, &token, "/tokens?limit=2", "tokens").await;
    assert_eq!(sizes(&tokens), [2, 2, 1]);
    let all: Vec<String> = rig.tokens.list().iter().map(|token| token.id.to_string()).collect();
    assert_eq!(names(&tokens, "id"), all);
    let workers = pages(&rig, &token, "/workers?limit=2", "workers").await;
    assert_eq!((sizes(&workers), names(&workers, "worker_id")), (vec![2, 1], CORDONED.map(str::to_owned).to_vec()));
    for list in ["tokens", "workers", "approvals"] {
        for wrong in ["limit=0", "limit=501", "cursor=x", "colour=red"] {
            let refused = rig.request("GET", &format!("{BASE}/{list}?{wrong}")).bearer(Some(&token)).send().await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{list}?{wrong}");
        }
    }
}

#[tokio::test]
async fn calls_that_wait_for_approval_come_in_pages() {
    let approvals = Approvals::new(Audit::in_memory());
    let policy = "[[rule]]\nname='r'\ntool=['fs_write']\neffect='require_approval'\n";
    let gate =
        Gate::new(Policies::fixed(Policy::parse(policy).expect("a policy")), approvals.clone(), Hosts::default());
    let rig = Rig::with_admission(|_| {}, Admission::default().behind(gate)).await;
    let token = rig.token("op", Scopes::USER.with(Scope::Admin)).await;
    let session = session(&rig, &token).await;
    let calls: Vec<_> = (0..3)
        .map(|n| {
            let call =
                rig.request("PUT", &format!("{BASE}/sessions/{session}/files/{n}")).bearer(Some(&token)).body("x");
            tokio::spawn(call.send())
        })
        .collect();
    until("all wait", || approvals.list().len() == 3).await;
    let listed = pages(&rig, &token, "/approvals?limit=2", "approvals").await;
    let all: Vec<String> = approvals.list().iter().map(|view| view.id.to_string()).collect();
    let mut shown = names(&listed, "id");
    assert_eq!((sizes(&listed), shown.len()), (vec![2, 1], 3));
    shown.sort();
    assert!(all.iter().all(|id| shown.binary_search(id).is_ok()), "{all:?}, {shown:?}");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

fn file(path: String) -> (FileStat, Vec<u8>) {
    let (kind, etag) = (FileKind::File, Some("v".to_owned()));
    (FileStat { path, kind, size: 0, modified_ms: 0, etag, mode: 0o644, target: None }, Vec::new())
}

#[tokio::test]
async fn files_come_in_pages_beyond_what_the_tool_lists() {
    let rig = Rig::new().await;
    let token = rig.token("ann", Scopes::USER).await;
    let session = session(&rig, &token).await;
    let deep = format!("d/{}", "n".repeat(250));
    let mut paths: Vec<String> = (0..2_400).map(|n| format!("{deep}{n:04}")).collect();
    *rig.double.files.lock() = paths.iter().cloned().map(file).collect();
    let first = format!("/sessions/{session}/files?path=d&limit=500");
    let listed = pages(&rig, &token, &first, "entries").await;
    assert_eq!((sizes(&listed), names(&listed, "path")), (vec![500, 500, 500, 500, 400], paths.clone()));
    let one = rig.request("GET", &format!("{BASE}{first}")).bearer(Some(&token)).send().await;
    let next = one.headers["link"].to_str().expect("text")[1..].split_once('>').expect("a link").0.to_owned();
    // One goes that was given, and the one after which it goes on.
    paths.retain(|path| *path != format!("{deep}0000") && *path != format!("{deep}0499"));
    *rig.double.files.lock() = paths.iter().cloned().map(file).collect();
    let page = rig.request("GET", &next).bearer(Some(&token)).send().await.json().await;
    assert_eq!((&page["entries"][0]["path"], &page["truncated"]), (&paths[498].clone().into(), &false.into()));
}
