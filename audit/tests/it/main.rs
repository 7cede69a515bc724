//! What the log promises, on a real disk.

#[cfg(test)]
mod crash;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod forger;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod independent;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod stored;
#[cfg(test)]
mod tamper;
#[cfg(test)]
mod writing;
