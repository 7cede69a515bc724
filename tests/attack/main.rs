//! Attacks on the whole product, by class and level of isolation: each is made by a small program in a session, which
//! says how it was stopped. `make attack` prints the table, and repeats the races more often.

mod ground;
mod limits;
mod places;
mod programs;
mod races;
mod table;
