//! What can go wrong in a measurement. Every one of these ends it: a figure from a run with a
//! mishap is worth nothing.

use std::io;

use net::ErrorCode;

#[derive(Debug, thiserror::Error)]
pub enum PerfError {
    /// A file, socket or process could not be used; the text says which.
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    /// The broker closed a connection that was in use.
    #[error("the broker closed the connection")]
    Closed,
    /// Bytes that are no answer to what was asked.
    #[error("cannot make sense of an answer to {0}")]
    Malformed(&'static str),
    /// A request that the codec cannot encode, or an answer that it cannot decode.
    #[error("{0}")]
    Codec(String),
    /// An answer with an error code.
    #[error("{what}: the broker answers {code:?}")]
    Refused { what: String, code: ErrorCode },
    /// Something did not happen within its time.
    #[error("{0}")]
    Late(String),
    /// A combination of options, or a state of this machine, that makes no measurement.
    #[error("{0}")]
    Unfit(String),
}

impl PerfError {
    /// An I/O error with the thing that it befell.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> PerfError {
        let what = what.into();
        move |error| PerfError::Io { what, error }
    }
}
