//! One node of one or several shards in a simulated world, and clients that speak the wire format.

mod back_pressure;
mod fetch;
mod one_node;
mod produce;
mod talk;
