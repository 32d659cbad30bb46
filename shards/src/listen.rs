//! Accepting connections, and giving each to the shard that has the fewest.
//!
//! Every shard listens on the Kafka port (SO_REUSEPORT). The kernel spreads connections by a
//! hash, which for a handful of long-lived clients is far from even; so whoever accepts hands the
//! socket over to the shard with the fewest connections. The counts are the one thing that the
//! shards share by memory: they change once per connection.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use rt::{AcceptedStream, ListenOptions, Listener, ShardId};

use crate::broker::Broker;
use crate::service::Service;

/// After an accept that failed (too many open files, say), wait this long before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Open connections of each shard of this node.
#[derive(Clone)]
pub struct Loads(Arc<Vec<AtomicU32>>);

impl Loads {
    pub fn of(broker: &Broker) -> Loads {
        let count = broker.shard().count();
        broker.shard().common(|| Loads(Arc::new((0..count).map(|_| AtomicU32::new(0)).collect())))
    }

    /// The shard to give the next connection to; `here` wins a draw.
    fn least(&self, here: ShardId) -> ShardId {
        let load = |shard: usize| self.0[shard].load(Ordering::Relaxed);
        let here_load = load(usize::from(here.0));
        let (least, _) = (0..self.0.len())
            .map(|shard| (shard, load(shard)))
            .min_by_key(|(_, load)| *load)
            .filter(|(_, load)| *load < here_load)
            .unwrap_or((usize::from(here.0), here_load));
        ShardId(least as u16)
    }

    fn total(&self) -> usize {
        self.0.iter().map(|load| load.load(Ordering::Relaxed) as usize).sum()
    }

    /// Counts one more connection of `shard` until the result is dropped.
    fn enter(&self, shard: ShardId) -> Entered {
        self.0[usize::from(shard.0)].fetch_add(1, Ordering::Relaxed);
        Entered { loads: self.clone(), shard }
    }

    /// Open connections of one shard.
    pub fn of_shard(&self, shard: ShardId) -> u32 {
        self.0[usize::from(shard.0)].load(Ordering::Relaxed)
    }
}

struct Entered {
    loads: Loads,
    shard: ShardId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.loads.0[usize::from(self.shard.0)].fetch_sub(1, Ordering::Relaxed);
    }
}

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

async fn accept_http(broker: Broker, listener: Listener) {
    loop {
        let accepted = match rt::either(listener.accept(), broker.stopped()).await {
            rt::Either::Left(Ok(accepted)) => accepted,
            rt::Either::Left(Err(error)) => {
                tracing::warn!("a connection was not accepted: {error}");
                broker.shard().sleep(ACCEPT_PAUSE).await;
                continue;
            }
            rt::Either::Right(()) => return,
        };
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
    let loads = Loads::of(&broker);
    while !broker.is_stopping() {
        let accepted = match rt::either(listener.accept(), broker.stopped()).await {
            rt::Either::Left(Ok(accepted)) => accepted,
            rt::Either::Left(Err(error)) => {
                tracing::warn!("a connection was not accepted: {error}");
                broker.shard().sleep(ACCEPT_PAUSE).await;
                continue;
            }
            rt::Either::Right(()) => return,
        };
        let connections_max = broker.config().connections_max;
        if loads.total() >= connections_max as usize {
            tracing::warn!(
                peer = %accepted.peer_addr(),
                "connection refused: max.connections = {connections_max} is reached"
            );
            continue;
        }
        let to = loads.least(broker.shard().id());
        if to == broker.shard().id() {
            serve(&broker, accepted);
        } else {
            let taken = broker.call(to, move |broker| async move { serve(&broker, accepted) });
            broker.shard().spawn(taken).detach();
        }
    }
}

/// Serves one connection on this shard until it ends.
fn serve(broker: &Broker, accepted: AcceptedStream) {
    let entered = Loads::of(broker).enter(broker.shard().id());
    let stream = broker.shard().adopt(accepted);
    let service = Rc::new(Service::new(broker.clone()));
    let connection =
        net::serve_connection(broker.shard().clone(), stream, broker.network().clone(), service);
    let stopping = broker.clone();
    let served = async move {
        rt::either(connection, stopping.stopped()).await;
        drop(entered);
    };
    broker.shard().spawn(served).detach();
}
