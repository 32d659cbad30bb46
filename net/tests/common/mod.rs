//! A broker that does nothing, behind real connections in a simulated world.
//!
//! `Produce` answers after `timeout_ms`, `Fetch` after `max_wait_ms`; starts and ends are written
//! down in order, so that tests can say what overlapped.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use chronik_net::client::{Client, ClientError};
use chronik_net::{
    Answer, HttpAnswer, HttpRequest, Limits, LocalFuture, Network, Request, RequestKind,
    ResponseKind, Service,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse,
    ProduceRequest, ProduceResponse,
};
use kafka_protocol::protocol::StrBytes;

/// The service, and what it saw.
pub struct Recorder {
    shard: rt::Shard,
    pub events: RefCell<Vec<String>>,
    pub software: RefCell<Option<chronik_net::Software>>,
    pub running: Cell<usize>,
}

struct Running(Rc<Recorder>, String);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.events.borrow_mut().push(format!("end {}", self.1));
    }
}

struct RecorderService(Rc<Recorder>);

impl Service for RecorderService {
    fn call(&self, request: Request) -> LocalFuture<Answer> {
        let recorder = Rc::clone(&self.0);
        Box::pin(async move {
            let name = format!("{:?} {}", request.api_key, request.correlation_id);
            recorder.events.borrow_mut().push(format!("start {name}"));
            recorder.running.set(recorder.running.get() + 1);
            let _running = Running(Rc::clone(&recorder), name);
            let wait = |ms: i32| recorder.shard.sleep(Duration::from_millis(ms.max(0) as u64));
            match request.body {
                RequestKind::Produce(produce) => {
                    if produce.timeout_ms > 0 {
                        wait(produce.timeout_ms).await;
                    }
                    match (produce.acks, produce.transactional_id) {
                        (0, Some(_)) => Answer::Close { reason: "an acks=0 Produce failed" },
                        (0, None) => Answer::None,
                        _ => Answer::Message(ResponseKind::Produce(ProduceResponse::default())),
                    }
                }
                RequestKind::Fetch(fetch) => {
                    wait(fetch.max_wait_ms).await;
                    Answer::Message(ResponseKind::Fetch(FetchResponse::default()))
                }
                RequestKind::ApiVersions(_) => {
                    recorder.software.replace(request.context.software.borrow().clone());
                    let keys = chronik_net::software::api_versions();
                    let answer = ApiVersionsResponse::default().with_api_keys(keys);
                    Answer::Message(ResponseKind::ApiVersions(answer))
                }
                RequestKind::Metadata(metadata) => match metadata.topics {
                    // An answer made by hand: version 0, no brokers, no topics.
                    Some(_) if request.version == 0 => {
                        let four = || Bytes::from_static(&[0; 4]);
                        Answer::Encoded(vec![four(), Bytes::new(), four()])
                    }
                    _ => Answer::Message(ResponseKind::Metadata(MetadataResponse::default())),
                },
                other => panic!("the tests send no {other:?}"),
            }
        })
    }

    fn http(&self, request: HttpRequest) -> LocalFuture<HttpAnswer> {
        Box::pin(async move {
            let HttpRequest { method, path, query, body, .. } = request;
            HttpAnswer::text(200, format!("{method} {path} {query} {}", body.len()))
        })
    }
}

/// One shard with a listener, for one test.
pub struct Server {
    pub shard: rt::Shard,
    pub address: SocketAddr,
    pub network: Network,
    pub recorder: Rc<Recorder>,
}

impl Server {
    pub async fn client(&self) -> Client {
        Client::connect(&self.shard, self.address, "tests").await.expect("connects")
    }

    pub async fn sleep_ms(&self, ms: u64) {
        self.shard.sleep(Duration::from_millis(ms)).await;
    }

    pub fn events(&self) -> Vec<String> {
        self.recorder.events.borrow().clone()
    }

    pub fn now_ms(&self) -> u64 {
        self.shard.now().as_nanos() / 1_000_000
    }
}

/// Runs a test in a simulated world, for some seeds.
pub fn serve<F, T>(limits: Limits, body: F)
where
    F: Fn(Server) -> T + 'static,
    T: Future<Output = ()> + 'static,
{
    let body = Rc::new(body);
    for seed in 0..8 {
        let (limits, body) = (limits.clone(), Rc::clone(&body));
        rt::sim::run(seed, move |shard| host(shard, limits, move |server| body(server)));
    }
}

/// Runs a test on real sockets.
pub fn serve_on_sockets<F, T>(limits: Limits, body: F)
where
    F: FnOnce(Server) -> T + Send + 'static,
    T: Future<Output = ()> + 'static,
{
    rt::uring::run_one(move |shard| host(shard, limits, body));
}

async fn host<F, T>(shard: rt::Shard, limits: Limits, body: F)
where
    F: FnOnce(Server) -> T + 'static,
    T: Future<Output = ()> + 'static,
{
    let address = "127.0.0.1:0".parse().expect("an address");
    let listener = shard.listen(rt::ListenOptions::new(address)).expect("listens");
    let network = Network::new(limits, 1 << 30);
    let recorder = Rc::new(Recorder {
        shard: shard.clone(),
        events: RefCell::default(),
        software: RefCell::default(),
        running: Cell::new(0),
    });
    let service: Rc<dyn Service> = Rc::new(RecorderService(Rc::clone(&recorder)));
    let server = Server {
        shard: shard.clone(),
        address: listener.local_addr(),
        network: network.clone(),
        recorder,
    };
    let accepting = {
        let shard = shard.clone();
        async move {
            loop {
                let accepted = listener.accept().await.expect("accepts");
                let stream = shard.adopt(accepted);
                let (network, service) = (network.clone(), Rc::clone(&service));
                let serving =
                    chronik_net::serve_connection(shard.clone(), stream, network, service);
                shard.spawn(serving).detach();
            }
        }
    };
    let _accepting = shard.spawn(accepting);
    body(server).await;
}

pub fn produce(acks: i16, wait_ms: i32) -> ProduceRequest {
    ProduceRequest::default().with_acks(acks).with_timeout_ms(wait_ms)
}

pub fn fetch(wait_ms: i32) -> FetchRequest {
    FetchRequest::default().with_max_wait_ms(wait_ms)
}

pub fn metadata() -> MetadataRequest {
    MetadataRequest::default().with_topics(Some(Vec::new()))
}

/// A frame of a header (version 1, client id `x`) and these body bytes.
pub fn frame(key: i16, version: i16, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32((8 + 3 + body.len()) as i32);
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(1);
    out.put_slice(&[0, 1, b'x']);
    out.put_slice(body);
    out.freeze()
}

/// The connection ends without another byte.
pub async fn expect_closed(client: &mut Client) {
    match client.receive_frame().await {
        Err(ClientError::Closed | ClientError::Io(_)) => {}
        other => panic!("the connection should be closed, not {other:?}"),
    }
}

pub fn text(value: &'static str) -> StrBytes {
    StrBytes::from_static_str(value)
}
