//! Measurements, run by hand: `cargo nextest run -p worker --release --run-ignored only speed --no-capture`.

use std::time::{Duration, Instant};

use crate::bench::Bench;

fn percentile(times: &mut [Duration], hundredths: usize) -> Duration {
    times.sort();
    times[times.len() * hundredths / 100]
}

#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn speed_of_a_program_that_does_nothing() {
    let bench = Bench::new().await;
    for (name, python) in [("python", true), ("shell", false)] {
        let mut times = Vec::new();
        for _ in 0..300 {
            let began = Instant::now();
            let ran = if python { bench.python("pass").await } else { bench.shell(":").await };
            times.push(began.elapsed());
            assert_eq!(ran.exit_code(), Some(0));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("{name}: p50 {:?}, p99 {:?}", percentile(&mut times, 50), percentile(&mut times, 99));
    }
}
