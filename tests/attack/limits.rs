//! Exhaustion: one session takes all it can of each thing that is limited. It is told so, another session works on
//! meanwhile, the server stays, and the session itself can be used again.

use e2e::{EXHAUSTIONS, Sides, limits_at};
use serde_json::json;

use crate::ground::{Ground, levels};
use crate::table::{Outcome, Table};

#[test]
fn a_session_that_takes_all_it_can_is_told_so_and_harms_no_other() {
    let (columns, mut table) = (levels(), Table::of("exhaustion"));
    for column in &columns {
        let mut ground = Ground::prepare_with(*column, &limits_at(column.level));
        ground.facts(&json!([]));
        for exhaustion in EXHAUSTIONS {
            let Ground { client, attacker, victim, .. } = &mut ground;
            let outcome = match exhaustion.befall(client, Sides { attacker, neighbour: victim }) {
                Ok(told) => Outcome::Stopped(told),
                Err(why) if exhaustion.is_shared_at(column.level) => Outcome::NotPromised(why),
                Err(why) => Outcome::Failed(why),
            };
            table.add(exhaustion.of, *column, outcome);
        }
        ground.expect_unharmed("exhaustion");
    }
    table.judge(&columns);
}
