//! The rules of `docs/protocol.md` for swarms and credit, one by one: announces as clients
//! send them, time moved by hand, and what the journal would keep.

mod world;

#[path = "rules/credit.rs"]
mod credit;
#[path = "rules/endpoints.rs"]
mod endpoints;
#[path = "rules/limits.rs"]
mod limits;
#[path = "rules/machines.rs"]
mod machines;
#[path = "rules/nodes.rs"]
mod nodes;
#[path = "rules/numbers.rs"]
mod numbers;
#[path = "rules/peers.rs"]
mod peers;
#[path = "rules/requests.rs"]
mod requests;
#[path = "rules/swarm.rs"]
mod swarm;
