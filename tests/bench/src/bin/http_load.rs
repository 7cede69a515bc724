//! Load over HTTP: clients with a connection and a session each, one call at a time.
//!
//! ```text
//! bench-http-load calls URL CLIENTS   each line of stdin, a number of seconds, is a round; each is answered by a line of JSON
//! bench-http-load idle URL CLIENTS    opens streams (of HTTP+SSE where the path is /sse) and holds them until stdin ends
//! ```
//!
//! It says `ready` when it is, takes a token from `BENCH_TOKEN`, and works on one thread.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bench_peers::client::{Client, Server};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, url, count] = arguments.as_slice() else { bail!("usage: bench-http-load calls|idle URL CLIENTS") };
    let (server, count) = (Server::new(url, std::env::var("BENCH_TOKEN").ok().as_deref())?, count.parse()?);
    match what.as_str() {
        "calls" => calls(&server, count).await,
        "idle" => idle(&server, count, url.ends_with("/sse")).await,
        _ => bail!("neither calls nor idle"),
    }
}

async fn calls(server: &Server, count: usize) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::greeted(server).await?);
    }
    say("ready")?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let lasts = Duration::from_secs_f64(line.trim().parse()?);
        let begun = Instant::now();
        let running: Vec<_> = clients.drain(..).map(|client| tokio::spawn(round(client, begun + lasts))).collect();
        let mut taken = Vec::new();
        for run in running {
            let (client, mut own) = run.await??;
            clients.push(client);
            taken.append(&mut own);
        }
        let seconds = begun.elapsed().as_secs_f64();
        taken.sort_unstable();
        let at = |part: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place in a list"
            )]
            let place = (taken.len() as f64 * part) as usize;
            taken.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        let result = json!({"calls": taken.len(), "seconds": seconds, "p50_ms": at(0.5), "p99_ms": at(0.99)});
        say(&result.to_string())?;
    }
    Ok(())
}

/// Calls one after the other until the time is over.
async fn round(mut client: Client, until: Instant) -> anyhow::Result<(Client, Vec<Duration>)> {
    let mut taken = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok((client, taken));
        }
        client.echo().await?;
        taken.push(begun.elapsed());
    }
}

async fn idle(server: &Server, count: usize, sse: bool) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for number in 0..count {
        let opened = async {
            if sse {
                return Client::listen_sse(server).await;
            }
            let mut client = Client::greeted(server).await?;
            client.listen().await?;
            Ok(client)
        };
        clients.push(opened.await.with_context(|| format!("stream {number}"))?);
    }
    say("ready")?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {}
    Ok(())
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
