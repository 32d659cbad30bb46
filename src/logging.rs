//! Log lines: `tracing` to standard error, colours only on a terminal, the filter changeable while
//! the broker runs. Lines of crates that use `log` (glommio) are bridged into the same stream.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload, EnvFilter, Registry};

use crate::failure::{Exit, Failure};

/// The running log's filter.
#[derive(Clone)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logging {
    /// Starts logging. To be called once, before any shard exists.
    pub fn start(filter: &str) -> Result<Logging, Failure> {
        let (filter, handle) = reload::Layer::new(parse(filter)?);
        let lines =
            fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        // `try_init` also installs the bridge from `log`.
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init()
            .unwrap_or_else(|error| unreachable!("logging is started once: {error}"));
        Ok(Logging { filter: handle })
    }

    /// Puts another filter in force, or leaves the old one where `filter` is not legal.
    pub fn reload(&self, filter: &str) -> Result<(), Failure> {
        let parsed = parse(filter)?;
        self.filter
            .reload(parsed)
            .map_err(|error| Failure::new(Exit::Failed, format!("log filter: {error}")))
    }
}

/// glommio's reactor reports as an error that a file cannot be polled; our runtime makes it find
/// that out on purpose, once for each shard. A filter that names glommio decides for itself.
const QUIET: &str = "glommio::reactor=off";

fn parse(filter: &str) -> Result<EnvFilter, Failure> {
    let whole = match filter.contains("glommio") {
        true => filter.to_string(),
        false => format!("{QUIET},{filter}"),
    };
    EnvFilter::builder().parse(&whole).map_err(|error| {
        Failure::new(Exit::Usage, format!("log filter `{filter}`: {error}"))
            .hint("a level (error, warn, info, debug, trace), or a list: info,chronik_wal=debug")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        assert!(parse("info,chronik_wal=debug").is_ok());
        let failure = parse("info,chronik_wal=loud").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("hint"), "{failure}");
    }
}
