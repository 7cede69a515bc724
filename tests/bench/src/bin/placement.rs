//! How long placing a session takes among many workers that hold many sessions; prints JSON.
//!
//!     bench-placement WORKERS SESSIONS ROUNDS

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Instant;

use anyhow::Context as _;
use codegen_types::{Incarnation, IsolationLevel, WorkerId};
use coordinator_core::placement::{Capabilities, Requirements, Slots, Trust, WorkerView, place};
use coordinator_core::worker::{Admittance, WorkerStatus};
use rustix::time::{ClockId, clock_gettime};

struct Worker {
    id: WorkerId,
    incarnation: Incarnation,
    capabilities: Capabilities,
    slots: Slots,
}

fn main() -> anyhow::Result<()> {
    let numbers: Vec<u32> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let [workers, sessions, rounds] = numbers[..] else { anyhow::bail!("three numbers are wanted") };
    let each = sessions / workers.max(1);
    let mut fleet: Vec<Worker> = (0..workers).map(|at| worker(at, each)).collect::<Result<_, _>>()?;
    let wanted = |zone: &str| Requirements {
        isolation_minimum: IsolationLevel::Portable,
        runtimes: vec!["python".to_owned()],
        labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
        trust: Trust::Sessions,
    };
    let (here, nowhere) = (wanted("a"), wanted("nowhere"));
    let (mut placed, mut placed_cpu, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (begun, begun_cpu) = (Instant::now(), cpu_ms());
        let chosen = place(&here, fleet.iter().map(view)).map(|chosen| chosen.id.clone());
        placed.push(begun.elapsed().as_secs_f64() * 1_000.0);
        placed_cpu.push(cpu_ms() - begun_cpu);
        let chosen = chosen.context("there is room")?;
        // Sessions come and go, so that it is not always the same worker.
        let came = fleet.iter_mut().find(|worker| worker.id == chosen).context("it is one of them")?;
        came.slots.used += 1;
        let gone = (round as usize * 7_919) % fleet.len();
        fleet[gone].slots.used = fleet[gone].slots.used.saturating_sub(1);
        if round % 10 == 0 {
            let begun = Instant::now();
            let none = place(&nowhere, fleet.iter().map(view)).err().context("no worker is there")?.to_string();
            refused.push(begun.elapsed().as_secs_f64() * 1_000.0);
            anyhow::ensure!(none.contains("lack"), "{none}");
        }
    }
    let (placed, placed_cpu, refused) = (quantiles(placed), quantiles(placed_cpu), quantiles(refused));
    let all = serde_json::json!({"placed_ms": placed, "placed_cpu_ms": placed_cpu, "refused_ms": refused});
    writeln!(std::io::stdout(), "{all}")?;
    Ok(())
}

/// Processor time of this thread: what another process takes of the machine is not in it.
fn cpu_ms() -> f64 {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.tv_sec as f64 * 1_000.0 + spent.tv_nsec as f64 / 1e6
}

fn worker(at: u32, used: u32) -> anyhow::Result<Worker> {
    let zone = if at.is_multiple_of(3) { "b" } else { "a" };
    Ok(Worker {
        id: format!("worker-{at:04}").parse()?,
        incarnation: Incarnation::mint(),
        capabilities: Capabilities {
            isolation: IsolationLevel::Full,
            runtimes: ["python", "shell", "node"].map(str::to_owned).into(),
            labels: BTreeMap::from([("zone".to_owned(), zone.to_owned()), ("pool".to_owned(), "main".to_owned())]),
            trust: Trust::Sessions,
        },
        slots: Slots { total: used * 2 + 8, used, reserved: at % 3 },
    })
}

fn view(worker: &Worker) -> WorkerView<'_> {
    WorkerView {
        id: &worker.id,
        incarnation: worker.incarnation,
        status: WorkerStatus::Healthy,
        admittance: Admittance::Open,
        capabilities: &worker.capabilities,
        slots: worker.slots,
    }
}

fn quantiles(mut samples: Vec<f64>) -> serde_json::Value {
    samples.sort_by(f64::total_cmp);
    let at = |share: usize| samples.get(samples.len() * share / 100).or(samples.last());
    serde_json::json!({"p50": at(50), "p99": at(99), "max": samples.last()})
}
