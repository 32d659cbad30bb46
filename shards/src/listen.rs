//! Accepting connections, and giving each to the shard that has the fewest.
//!
//! Every shard listens on the Kafka port (SO_REUSEPORT). The kernel spreads connections by a
//! hash, which for a handful of long-lived clients is far from even; so whoever accepts hands the
//! socket over to the shard with the fewest connections. Who may come is decided by the
//! [`Census`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rt::{AcceptedStream, Instant, ListenOptions, Listener};

use crate::broker::Broker;
use crate::census::{Admitted, Census, Refusal};
use crate::service::Service;

/// After an accept that failed (too many open files, say), wait this long before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refused connections are told of once in so long: whoever is refused tries again and again.
const REFUSAL_LINE_EVERY: Duration = Duration::from_secs(10);

fn listen_options(addr: SocketAddr, reuse_port: bool) -> ListenOptions {
    ListenOptions { reuse_port, ..ListenOptions::new(addr) }
}

/// Binds this shard's listener and accepts on it until the broker stops.
pub fn open(broker: &Broker, port: u16) -> io::Result<()> {
    broker.set_port(port);
    let addr = SocketAddr::new(broker.options().bind_addr, port);
    let listener = broker.shard().listen(listen_options(addr, true))?;
    broker.shard().spawn(accept(broker.clone(), listener)).detach();
    Ok(())
}

/// Binds the listener that answers HTTP and nothing else, on the shard that is asked, and gives the
/// port that was bound.
pub fn open_admin(broker: &Broker, port: u16) -> io::Result<u16> {
    let addr = SocketAddr::new(broker.options().bind_addr, port);
    let listener = broker.shard().listen(listen_options(addr, false))?;
    let bound = listener.local_addr().port();
    broker.shard().spawn(accept_http(broker.clone(), listener)).detach();
    Ok(bound)
}

/// The next connection; none when the broker stops.
async fn next_accepted(broker: &Broker, listener: &Listener) -> Option<AcceptedStream> {
    while !broker.is_stopping() {
        match rt::either(listener.accept(), broker.stopped()).await {
            rt::Either::Left(Ok(accepted)) => return Some(accepted),
            rt::Either::Left(Err(error)) => {
                tracing::warn!("a connection was not accepted: {error}");
                broker.shard().sleep(ACCEPT_PAUSE).await;
            }
            rt::Either::Right(()) => {}
        }
    }
    None
}

async fn accept_http(broker: Broker, listener: Listener) {
    while let Some(accepted) = next_accepted(&broker, &listener).await {
        let serving = broker.clone();
        let serve = async move {
            let shard = serving.shard();
            let stream = shard.adopt(accepted);
            let service = Rc::new(Service::new(serving.clone()));
            let first = bytes::Bytes::new();
            let http = net::http::serve(shard, &stream, first, serving.network(), service);
            rt::either(http, serving.stopped()).await;
        };
        broker.shard().spawn(serve).detach();
    }
}

async fn accept(broker: Broker, listener: Listener) {
    let census = Census::of(&broker);
    let mut told = Told::default();
    while let Some(accepted) = next_accepted(&broker, &listener).await {
        loop {
            let rate_max = broker.connection_limits().rate_max;
            let delay = census.creation_delay(broker.shard().now(), rate_max);
            if delay.is_zero() {
                break;
            }
            broker.shard().sleep(delay).await;
        }
        let (here, peer) = (broker.shard().id(), accepted.peer_addr().ip());
        let admitted = match census.admit(here, peer, &broker.connection_limits()) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                broker.stats().refused_connection(&refusal);
                told.refused(peer, refusal, broker.shard().now());
                continue;
            }
        };
        if admitted.shard == here {
            serve(&broker, accepted, admitted);
        } else {
            let to = admitted.shard;
            let served = move |broker: Broker| async move { serve(&broker, accepted, admitted) };
            let taken = broker.call(to, served);
            broker.shard().spawn(taken).detach();
        }
    }
}

/// Refused connections, as the log tells of them.
#[derive(Default)]
struct Told {
    at: Option<Instant>,
    unsaid: u64,
}

impl Told {
    fn refused(&mut self, peer: IpAddr, refusal: Refusal, now: Instant) {
        let since = self.at.map(|at| now.saturating_since(at));
        if since.is_some_and(|since| since < REFUSAL_LINE_EVERY) {
            self.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut self.unsaid);
        self.at = Some(now);
        match unsaid {
            0 => tracing::warn!(%peer, "connection refused: {refusal}"),
            _ => tracing::warn!(%peer, "connection refused: {refusal}; {unsaid} more before it"),
        }
    }
}

/// Serves one connection on this shard until it ends.
fn serve(broker: &Broker, accepted: AcceptedStream, admitted: Admitted) {
    let stream = broker.shard().adopt(accepted);
    let service = Rc::new(Service::new(broker.clone()));
    let connection =
        net::serve_connection(broker.shard().clone(), stream, broker.network().clone(), service);
    let stopping = broker.clone();
    let served = async move {
        rt::either(connection, stopping.stopped()).await;
        drop(admitted);
    };
    broker.shard().spawn(served).detach();
}
