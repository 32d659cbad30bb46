//! `null-broker`: accepts what a producer sends and keeps nothing.
//!
//! It is the ceiling of a client on this machine: what a broker could reach at best when storing
//! costs nothing. See `chronik_perf::null`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chronik_perf::null::{serve, When};
use clap::{value_parser, Arg, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = Command::new("null-broker")
        .about("Speaks enough of the Kafka protocol for a producer, and discards every record.")
        .arg(
            Arg::new("port")
                .long("port")
                .value_parser(value_parser!(u16))
                .default_value("0")
                .help("The port to listen on, on 127.0.0.1; 0 takes a free one"),
        )
        .arg(
            Arg::new("partitions")
                .long("partitions")
                .value_parser(value_parser!(i32).range(1..))
                .default_value("6")
                .help("Partitions of a topic that nobody created"),
        )
        .arg(
            Arg::new("delay-us")
                .long("delay-us")
                .value_parser(value_parser!(u64).range(..=60_000_000))
                .default_value("0")
                .help(
                    "Microseconds after which each request is answered, as if it waited for a disk",
                ),
        )
        .arg(
            Arg::new("durable")
                .long("durable")
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("delay-us")
                .help("Writes each Produce to a file in here, durably, before it is answered"),
        )
        .get_matches();
    let port: u16 = *matches.get_one("port").expect("it has a default");
    let partitions: i32 = *matches.get_one("partitions").expect("it has a default");
    let delay_us: u64 = *matches.get_one("delay-us").expect("it has a default");
    let when = match matches.get_one::<PathBuf>("durable") {
        Some(folder) => When::Durable(folder.clone()),
        None => When::After(Duration::from_micros(delay_us)),
    };
    let served = TcpListener::bind(("127.0.0.1", port)).and_then(|listener| {
        println!("null-broker ready on {}", listener.local_addr()?);
        serve(listener, partitions, &when)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: null-broker on port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}
