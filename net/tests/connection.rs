//! Connections over the simulated network: order, overlap, hostile input, times, HTTP.

mod common;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chronik_net::{ApiKey, Limits};
use common::{expect_closed, fetch, frame, metadata, produce, serve, serve_on_sockets, text};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, MetadataRequest, ProduceRequest,
    TransactionalId,
};
use kafka_protocol::protocol::Decodable;

#[test]
fn requests_are_answered_in_every_version() {
    serve(Limits::default(), |server| async move {
        let mut client = server.client().await;
        for version in 0..=13 {
            client.call(&metadata(), version).await.expect("metadata");
        }
        for version in 0..=4 {
            let mut request = ApiVersionsRequest::default();
            if version >= 3 {
                request.client_software_name = text("test");
                request.client_software_version = text("1.0");
            }
            let answer = client.call(&request, version).await.expect("versions");
            assert!(answer.api_keys.len() > 40);
        }
        let software = server.recorder.software.borrow().clone().expect("known");
        assert_eq!((software.name.as_str(), software.version.as_str()), ("test", "1.0"));
        for version in 3..=13 {
            client.call(&produce(1, 0), version).await.expect("produce");
        }
        for version in 4..=18 {
            client.call(&fetch(0), version).await.expect("fetch");
        }
        let stats = server.network.stats.snapshot();
        let requests = |key: ApiKey| {
            stats.apis.iter().find(|api| api.key == key).map_or(0, |api| api.requests)
        };
        assert_eq!((requests(ApiKey::Metadata), requests(ApiKey::Fetch)), (14, 15));
        assert!(stats.bytes_in > 0 && stats.bytes_out > 0);
        assert_eq!(stats.connections_open, 1);
    });
}

#[test]
fn answers_leave_in_order_though_later_ones_are_ready_first() {
    serve(Limits::default(), |server| async move {
        let mut client = server.client().await;
        for wait_ms in [50, 0, 20] {
            client.send(&produce(1, wait_ms), 9).await.expect("sends");
        }
        for _ in 0..3 {
            // The client checks the correlation ids.
            client.receive::<ProduceRequest>(9).await.expect("an answer");
        }
        let starts: Vec<_> = server.events().into_iter().take(3).collect();
        let all_started = starts.iter().filter(|event| event.starts_with("start")).count();
        assert!(all_started >= 2, "Produce overlaps Produce: {starts:?}");
    });
}

#[test]
fn a_request_waits_for_the_answer_of_the_one_before() {
    serve(Limits::default(), |server| async move {
        let mut client = server.client().await;
        client.send(&fetch(100), 12).await.expect("sends");
        client.send(&produce(1, 10), 9).await.expect("sends");
        client.send(&metadata(), 9).await.expect("sends");
        client.receive::<FetchRequest>(12).await.expect("fetched");
        client.receive::<ProduceRequest>(9).await.expect("produced");
        client.receive::<MetadataRequest>(9).await.expect("metadata");
        let expected = [
            "start Fetch 1",
            "end Fetch 1",
            "start Produce 2",
            "end Produce 2",
            "start Metadata 3",
            "end Metadata 3",
        ];
        assert_eq!(server.events(), expected);
    });
}

#[test]
fn many_pipelined_produces_with_a_small_window() {
    let limits = Limits { in_flight_max: 3, ..Limits::default() };
    serve(limits, |server| async move {
        let mut client = server.client().await;
        for nth in 0..40 {
            client.send(&produce(1, nth % 3), 9).await.expect("sends");
        }
        for _ in 0..40 {
            client.receive::<ProduceRequest>(9).await.expect("an answer");
            assert!(server.recorder.running.get() <= 3);
        }
    });
}

#[test]
fn acks_0_gets_no_answer_and_a_failed_one_closes() {
    serve(Limits::default(), |server| async move {
        let mut client = server.client().await;
        client.send_unanswered(&produce(0, 0), 9).await.expect("sends");
        client.send_unanswered(&produce(0, 5), 9).await.expect("sends");
        client.call(&metadata(), 9).await.expect("the next answer is this one's");
        client.send(&produce(1, 5), 9).await.expect("sends");
        let mut failing = produce(0, 10);
        failing.transactional_id = Some(TransactionalId(text("fail")));
        client.send_unanswered(&failing, 9).await.expect("sends");
        client.receive::<ProduceRequest>(9).await.expect("earlier answers are still sent");
        expect_closed(&mut client).await;
    });
}

/// kafka.md section 1: every one of these closes the connection without a byte.
#[test]
fn bad_frames_close_without_an_answer() {
    let length = |length: i32| Bytes::copy_from_slice(&length.to_be_bytes());
    let cases: Vec<(&str, Bytes)> = vec![
        ("length 0", length(0)),
        ("negative length", length(-1)),
        ("most negative length", length(i32::MIN)),
        ("length above the limit", length(104_857_601)),
        ("largest length", length(i32::MAX)),
        ("too short for a header", Bytes::from_static(&[0, 0, 0, 2, 0, 3])),
        ("unknown key", frame(9999, 0, &[])),
        ("negative key", frame(-1, 0, &[])),
        ("a key of Kafka that is not served", frame(ApiKey::EndTxn as i16, 0, &[0; 20])),
        ("unknown version", frame(3, 99, &[0; 20])),
        ("negative version", frame(3, -1, &[0; 20])),
        ("Produce below what is served", frame(0, 2, &[0; 20])),
        ("truncated body", frame(3, 1, &[0, 0])),
        ("impossible count", frame(3, 1, &i32::MAX.to_be_bytes())),
        ("negative count", frame(3, 1, &(-2i32).to_be_bytes())),
        ("impossible compact count", frame(3, 9, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("garbage", frame(1, 4, &[0xa5; 200])),
        (
            "client id beyond the frame",
            Bytes::from_static(b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\x7f\xff"),
        ),
        ("client id not UTF-8", Bytes::from_static(b"\0\0\0\x0b\0\x12\0\0\0\0\0\x01\0\x01\xff")),
    ];
    serve(Limits::default(), move |server| {
        let cases = cases.clone();
        async move {
            let mut witness = server.client().await;
            for (name, bytes) in cases {
                let before = server.network.stats.connections_refused.get();
                let mut client = server.client().await;
                client.call(&metadata(), 1).await.expect("works first");
                client.send_bytes(bytes).await.expect("sends");
                expect_closed(&mut client).await;
                assert_eq!(server.network.stats.connections_refused.get(), before + 1, "{name}");
                witness.call(&metadata(), 9).await.expect("nobody else is disturbed");
            }
            assert_eq!(server.network.memory.used_bytes(), 0);
        }
    });
}

/// The limit is one for all APIs, as in Kafka; bytes after a request are none of our business.
#[test]
fn a_metadata_frame_may_be_as_large_as_a_produce() {
    serve(Limits::default(), |server| async move {
        let mut client = server.client().await;
        let padding = vec![0; 33 << 20];
        let body = [&(-1i32).to_be_bytes()[..], &padding].concat();
        client.send_bytes(frame(3, 1, &body)).await.expect("sends");
        client.receive_frame().await.expect("an answer");
        assert_eq!(server.network.stats.connections_refused.get(), 0);
    });
}

#[test]
fn half_frames_and_a_hang_up_leave_nothing_behind() {
    serve(Limits::default(), |server| async move {
        let whole = frame(3, 1, &(-1i32).to_be_bytes());
        for length in 0..whole.len() {
            let mut client = server.client().await;
            client.send_bytes(whole.slice(..length)).await.expect("sends");
            drop(client);
        }
        server.sleep_ms(1000).await;
        assert_eq!(server.network.stats.connections_open.get(), 0);
        assert_eq!(server.network.memory.used_bytes(), 0);
        assert!(server.events().is_empty());
    });
}

#[test]
fn unknown_api_versions_version_is_answered_in_version_0() {
    serve(Limits::default(), |server| async move {
        let mut client = server.client().await;
        client.send_bytes(frame(18, 77, &[1, 2, 3])).await.expect("sends");
        let mut answer = client.receive_frame().await.expect("an answer");
        assert_eq!(answer.split_to(4), &1i32.to_be_bytes()[..]);
        let body = ApiVersionsResponse::decode(&mut answer, 0).expect("decodes");
        assert_eq!((body.error_code, body.api_keys.len()), (35, 1));
        assert!(answer.is_empty());
        client.call(&metadata(), 9).await.expect("the connection lives");
    });
}

#[test]
fn trailing_bytes_and_unknown_tags_are_tolerated() {
    serve(Limits::default(), |server| async move {
        let mut client = server.client().await;
        let mut body = (-1i32).to_be_bytes().to_vec();
        body.extend([7; 9]);
        client.send_bytes(frame(3, 1, &body)).await.expect("sends");
        client.receive_frame().await.expect("an answer");
        // Metadata 9: header tags, null topics, three booleans, tags.
        let body = [1, 5, 1, 42, 0, 1, 0, 0, 1, 60, 2, 1, 1];
        client.send_bytes(frame(3, 9, &body)).await.expect("sends");
        client.receive_frame().await.expect("an answer");
    });
}

#[test]
fn a_fetch_nobody_waits_for_is_dropped_and_others_run_to_their_end() {
    serve(Limits::default(), |server| async move {
        let mut client = server.client().await;
        client.send(&fetch(1_000_000), 12).await.expect("sends");
        server.sleep_ms(100).await;
        assert_eq!(server.recorder.running.get(), 1);
        drop(client);
        server.sleep_ms(100).await;
        assert_eq!(server.recorder.running.get(), 0, "{:?}", server.events());

        // Behind the Fetch stand requests that must still take effect.
        let mut client = server.client().await;
        client.send(&fetch(1_000_000), 12).await.expect("sends");
        client.send_unanswered(&produce(0, 50), 9).await.expect("sends");
        server.sleep_ms(100).await;
        drop(client);
        server.sleep_ms(500).await;
        let events = server.events();
        let last = events.last().expect("events");
        assert!(last.starts_with("end Produce"), "{events:?}");
        assert_eq!(server.network.stats.connections_open.get(), 0);
    });
}

#[test]
fn a_request_that_outlives_its_client_has_a_bounded_time() {
    let limits = Limits { linger: Duration::from_secs(2), ..Limits::default() };
    serve(limits, |server| async move {
        let mut client = server.client().await;
        client.send(&produce(1, 1_000_000), 9).await.expect("sends");
        server.sleep_ms(100).await;
        drop(client);
        server.sleep_ms(1000).await;
        assert_eq!(server.recorder.running.get(), 1);
        server.sleep_ms(2000).await;
        assert_eq!(server.recorder.running.get(), 0);
        assert_eq!(server.network.memory.used_bytes(), 0);
    });
}

#[test]
fn idle_connections_are_closed_but_not_those_that_wait() {
    let limits = Limits { idle: Duration::from_secs(60), ..Limits::default() };
    serve(limits, |server| async move {
        let mut silent = server.client().await;
        let mut waiting = server.client().await;
        waiting.send(&fetch(150_000), 12).await.expect("sends");
        let started = server.now_ms();
        expect_closed(&mut silent).await;
        let waited = server.now_ms() - started;
        assert!((59_000..62_000).contains(&waited), "{waited}");
        assert_eq!(server.network.stats.connections_idle_closed.get(), 1);
        waiting.receive::<FetchRequest>(12).await.expect("an answer after 150 s");
        waiting.call(&metadata(), 9).await.expect("still there");
        expect_closed(&mut waiting).await;
    });
}

#[test]
fn a_frame_that_trickles_in_is_given_up() {
    let limits = Limits { frame_grace: Duration::from_secs(10), ..Limits::default() };
    serve(limits, |server| async move {
        let mut slow = server.client().await;
        let whole = frame(3, 1, &[0; 64]);
        let started = server.now_ms();
        let sending = async {
            for byte in whole.chunks(1) {
                if slow.send_bytes(Bytes::copy_from_slice(byte)).await.is_err() {
                    break;
                }
                server.sleep_ms(1000).await;
            }
            expect_closed(&mut slow).await;
        };
        sending.await;
        let waited = server.now_ms() - started;
        assert!(waited < 80_000, "{waited}");
        assert_eq!(server.network.stats.connections_stalled_closed.get(), 1);
        assert!(server.events().is_empty());
    });
}

#[test]
fn large_frames_arrive_whole() {
    serve(Limits::default(), |server| async move {
        use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
        let mut client = server.client().await;
        for size in [100_000usize, 3 << 20, 10, 1 << 20] {
            let records = Bytes::from(vec![9; size]);
            let partition = PartitionProduceData::default().with_records(Some(records));
            let topic = TopicProduceData::default().with_partition_data(vec![partition]);
            client.call(&produce(1, 0).with_topic_data(vec![topic]), 9).await.expect("answer");
        }
        // What is ready for the next frame, a while later nothing.
        assert!(server.network.memory.used_bytes() < 2 << 20);
        server.sleep_ms(6_000).await;
        assert_eq!(server.network.memory.used_bytes(), 0);
    });
}

#[test]
fn a_client_that_reads_nothing_is_not_served_further() {
    let limits = Limits { write_stall: Duration::from_secs(30), ..Limits::default() };
    serve(limits, |server| async move {
        let mut client = server.client().await;
        let request = ApiVersionsRequest::default();
        let sending = async {
            for _ in 0..20_000 {
                if client.send(&request, 0).await.is_err() {
                    return;
                }
            }
        };
        let _ = server.shard.timeout(Duration::from_secs(20), sending).await;
        assert!(server.recorder.running.get() <= 1);
        assert!(server.network.memory.used_bytes() < 1 << 20);
    });
}

#[test]
fn a_tls_hello_is_recognised() {
    serve(Limits::default(), |server| async move {
        let mut client = server.client().await;
        client.send_bytes(Bytes::from_static(b"\x16\x03\x01\x02\0\x01\0")).await.expect("sends");
        expect_closed(&mut client).await;
        assert_eq!(server.network.stats.tls_hellos.get(), 1);
    });
}

async fn http(server: &common::Server, request: &[u8], until_close: bool) -> String {
    let stream = server.shard.connect(server.address).await.expect("connects");
    let mut parts = vec![Bytes::copy_from_slice(request)];
    stream.write_all(&mut parts).await.expect("sends");
    let mut answer = BytesMut::new();
    loop {
        let read = stream.read_into(&mut answer).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&answer);
        if read == 0 || (!until_close && text.contains("\r\n\r\n")) {
            return text.into_owned();
        }
    }
}

#[test]
fn http_on_the_kafka_port() {
    serve(Limits::default(), |server| async move {
        let get = b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = http(&server, get, true).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nGET /metrics a=b 0"), "{answer}");
        let post = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
            Connection: close\r\n\r\nhello";
        let answer = http(&server, post, true).await;
        assert!(answer.ends_with("POST /x  5"), "{answer}");
        let head = b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = http(&server, head, true).await;
        assert!(answer.ends_with("\r\n\r\n") && answer.contains("200 OK"), "{answer}");
        assert_eq!(server.network.stats.http_requests.get(), 3);
        assert_eq!(server.network.stats.connections_open.get(), 0);
    });
}

#[test]
fn bad_http_is_refused() {
    let limits =
        Limits { http_body_max_bytes: 10, http_idle: Duration::from_secs(5), ..Limits::default() };
    serve(limits, |server| async move {
        let garbage = http(&server, b"GET \0\xff\r\n\r\n", true).await;
        assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
        let big = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world";
        let big = http(&server, big, false).await;
        assert!(big.starts_with("HTTP/1.1 413"), "{big}");
        let started = server.now_ms();
        let slow = http(&server, b"GET /metrics HTTP/1.1\r\nHos", true).await;
        assert_eq!(slow, "");
        assert!(server.now_ms() - started < 12_000);
        server.sleep_ms(12_000).await;
        assert_eq!(server.network.stats.connections_open.get(), 0);
    });
}

#[test]
fn sniffing_can_be_switched_off() {
    let limits = Limits { http_sniffing: false, ..Limits::default() };
    serve(limits, |server| async move {
        let answer = http(&server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true).await;
        assert_eq!(answer, "", "\"GET \" is a frame of 1.2 GB");
    });
}

/// Valid frames with bytes changed: whatever comes of it, others are served.
#[test]
fn mutated_frames_disturb_nobody() {
    serve(Limits { linger: Duration::from_secs(1), ..Limits::default() }, |server| async move {
        let mut witness = server.client().await;
        for _ in 0..60 {
            let mut client = server.client().await;
            let frames = [
                client.encode(&produce(1, 0), 9).expect("encodes"),
                client.encode(&fetch(0), 12).expect("encodes"),
                client.encode(&metadata(), 12).expect("encodes"),
            ];
            let mut bytes = frames.concat();
            for _ in 0..1 + server.shard.random() % 4 {
                let at = server.shard.random() as usize % bytes.len();
                bytes[at] = server.shard.random() as u8;
            }
            let _ = client.send_bytes(bytes.into()).await;
            client.stream().shutdown();
            witness.call(&metadata(), 9).await.expect("nobody else is disturbed");
        }
        server.sleep_ms(5_000).await;
        assert_eq!(server.network.stats.connections_open.get(), 1);
        assert_eq!(server.network.memory.used_bytes(), 0);
    });
}

fn large_produce(wait_ms: i32) -> ProduceRequest {
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let records = Some(Bytes::from(vec![9; 1 << 20]));
    let partition = PartitionProduceData::default().with_records(records);
    let topic = TopicProduceData::default().with_partition_data(vec![partition]);
    produce(1, wait_ms).with_topic_data(vec![topic])
}

/// With the shard's budget used up, large frames come one at a time, each from its first byte to
/// its answer; small ones pass.
#[test]
fn a_full_memory_budget_stops_reading() {
    serve(Limits::default(), |server| async move {
        let hog = server.network.memory.charge(2 << 30);
        let (mut first, mut second) = (server.client().await, server.client().await);
        first.call(&metadata(), 9).await.expect("small requests go on");
        first.send(&large_produce(5_000), 9).await.expect("sends");
        let frame = second.encode(&large_produce(0), 9).expect("encodes");
        let stream = second.stream().clone();
        let sending = server.shard.spawn(async move {
            stream.write_all(&mut vec![frame]).await.expect("sends");
        });
        server.sleep_ms(4_000).await;
        assert_eq!(server.recorder.running.get(), 1, "{:?}", server.events());
        let small = server.events().len();
        first.receive_frame().await.expect("an answer");
        second.receive_frame().await.expect("the other one's turn");
        assert!(server.events().len() > small);
        sending.await;
        drop(hog);
        drop((first, second));
        server.sleep_ms(100).await;
        assert_eq!(server.network.memory.used_bytes(), 0);
    });
}

/// Who holds memory and makes no progress while others wait for it is dropped.
#[test]
fn a_large_frame_that_stops_arriving_makes_room() {
    serve(Limits::default(), |server| async move {
        let hog = server.network.memory.charge(2 << 30);
        let (mut stalled, mut waiting) = (server.client().await, server.client().await);
        let frame = stalled.encode(&large_produce(0), 9).expect("encodes");
        stalled.send_bytes(frame.slice(..100_000)).await.expect("sends");
        server.sleep_ms(100).await;
        waiting.send(&large_produce(0), 9).await.expect("sends");
        waiting.receive_frame().await.expect("its turn");
        expect_closed(&mut stalled).await;
        assert_eq!(server.network.stats.connections_stalled_closed.get(), 1);
        drop(hog);
    });
}

/// The paths that lean most on the backend, on real sockets.
#[test]
fn the_same_on_io_uring() {
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    serve_on_sockets(Limits::default(), |server| async move {
        let mut client = server.client().await;
        for wait_ms in [20, 0, 5] {
            client.send(&produce(1, wait_ms), 9).await.expect("sends");
        }
        for _ in 0..3 {
            client.receive::<ProduceRequest>(9).await.expect("an answer");
        }
        for size in [100usize, 3 << 20, 1 << 20] {
            let records = Bytes::from(vec![9; size]);
            let partition = PartitionProduceData::default().with_records(Some(records));
            let topic = TopicProduceData::default().with_partition_data(vec![partition]);
            client.call(&produce(1, 0).with_topic_data(vec![topic]), 9).await.expect("answer");
        }
        // A client that goes away while its Fetch waits, with a request behind it unread.
        client.send(&fetch(1_000_000), 12).await.expect("sends");
        client.send(&metadata(), 9).await.expect("sends");
        server.sleep_ms(50).await;
        assert_eq!(server.recorder.running.get(), 1);
        drop(client);
        server.sleep_ms(500).await;
        assert_eq!(server.recorder.running.get(), 0, "{:?}", server.events());
        let mut client = server.client().await;
        client.send_bytes(frame(9999, 0, &[])).await.expect("sends");
        expect_closed(&mut client).await;
        let get = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = http(&server, get, true).await;
        assert!(answer.ends_with("\r\n\r\nGET /metrics  0"), "{answer}");
        server.sleep_ms(100).await;
        assert_eq!(server.network.stats.connections_open.get(), 0);
        assert_eq!(server.network.memory.used_bytes(), 0);
    });
}
