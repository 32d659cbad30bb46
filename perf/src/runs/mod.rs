//! The rows of the table: which broker is measured how, and what becomes of the figures.
//!
//! A *subject* is a broker under measurement, a *row* is one question to it, a *round* asks every
//! subject of a row once, one after the other. Every run gets a new data folder and a new process,
//! and warms up before it counts. Raw results are appended to a folder as they come, so a table
//! can be made from rounds that were run hours apart.

pub mod congestion;
pub mod kafka;
pub mod lab;
pub mod machine;
pub mod plot;
pub mod record;
pub mod rows;
pub mod subject;
pub mod table;
