//! The API against a fake loop, with clients that behave and clients that do not.

#[path = "serve/house.rs"]
mod house;

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anywan_daemon::serve::{Limits, ServeError, Server};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{broadcast, mpsc};

use house::{House, Mood, Room, answer, lines, within};

const SHORT: Duration = Duration::from_millis(100);

const CONFIG: &[u8] = b"[[lan]]\ninterface = \"eth0\"\n[[wan]]\nname = \"a\"\ninterface = \"w1\"\n";

#[tokio::test]
async fn every_path_gives_what_the_loop_says() {
    let house = House::usual();
    let status = json!({"version": 1, "wans": [], "problems": []});
    assert_eq!(house.ask("GET", "/v1/status", b"").await, (200, status));
    let plan = json!({"version": 1, "steps": []});
    assert_eq!(house.ask("GET", "/v1/plan", b"").await, (200, plan));
    let plan = json!({"version": 1, "steps": ["1 WANs"]});
    assert_eq!(house.ask("POST", "/v1/plan", CONFIG).await, (200, plan));
    let reloaded = json!({"changed": true});
    assert_eq!(house.ask("POST", "/v1/reload", b"").await, (200, reloaded));
    assert_eq!(house.ask("POST", "/v1/down", b"").await, (200, json!({})));
}

#[tokio::test]
async fn what_the_loop_refuses_is_an_error_with_its_words() {
    let house = House::open(Mood::Refuses, Limits::default());
    let (status, body) = house.ask("POST", "/v1/reload", b"").await;
    assert_eq!((status, &body["rendered"]), (422, &json!("error: line 3\n")));
    assert_eq!(body["problems"][0]["code"], "config.refused");
    let (status, body) = house.ask("POST", "/v1/down", b"").await;
    assert_eq!((status, &body["problems"][0]["code"]), (500, &json!("api.not-down")));
}

#[tokio::test]
async fn a_bad_file_is_refused_with_all_its_problems_and_never_reaches_the_loop() {
    let house = House::usual();
    let (status, body) = house.ask("POST", "/v1/plan?file=my%20file.toml", b"[[wan]\nx").await;
    assert_eq!(status, 422);
    let rendered = body["rendered"].as_str().expect("text");
    assert!(rendered.contains("my file.toml"), "{rendered}");
    assert!(body["problems"].as_array().is_some_and(|all| !all.is_empty()));
}

#[tokio::test]
async fn mistakes_are_answered_in_json() {
    let house = House::usual();
    for (method, path, status, code) in [
        ("GET", "/v2/status", 404, "api.no-such-path"),
        ("GET", "/", 404, "api.no-such-path"),
        ("POST", "/v1/status", 405, "api.wrong-method"),
        ("DELETE", "/v1/plan", 405, "api.wrong-method"),
        ("GET", "/v1/reload", 405, "api.wrong-method"),
        ("GET", "/v1/events?backlog=-1", 400, "api.bad-query"),
    ] {
        let (got, body) = house.ask(method, path, b"").await;
        assert_eq!((got, &body["problems"][0]["code"]), (status, &json!(code)), "{method} {path}");
        assert!(body["rendered"].as_str().is_some_and(|text| text.contains("hint: ")));
    }
}

#[tokio::test]
async fn garbage_hurts_nobody() {
    let house = House::usual();
    let long = [b"GET /".as_slice(), &[b'a'; 100_000]].concat();
    for garbage in [b"\x00\x01\x02\r\n\r\n".as_slice(), b"GET\r\n\r\n", b"\xff", &long, b""] {
        let mut stream = house.connect().await;
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut bytes = Vec::new();
        let _ = within(stream.read_to_end(&mut bytes)).await;
        house.must_serve().await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_or_too_slow_is_refused() {
    let house = House::open(Mood::Answers, Limits { body: SHORT, ..Limits::default() });
    let (status, body) = house.ask("POST", "/v1/plan", &vec![b'#'; 2 << 20]).await;
    assert_eq!((status, &body["problems"][0]["code"]), (413, &json!("api.too-large")));
    let mut slow = house.connect().await;
    let head = b"POST /v1/plan HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nx";
    slow.write_all(head).await.expect("write");
    let (status, body) = answer(&mut slow).await;
    assert_eq!((status, &body["problems"][0]["code"]), (408, &json!("api.too-slow")));
    house.must_serve().await;
}

#[tokio::test]
async fn idle_connections_are_closed_and_those_who_wait_get_their_turn() {
    let house =
        House::open(Mood::Answers, Limits { connections: 4, head: SHORT, ..Limits::default() });
    let mut idle = Vec::new();
    for number in 0..40 {
        let mut stream = house.connect().await;
        if number % 2 == 0 {
            stream.write_all(b"GET /v1/sta").await.expect("write");
        }
        idle.push(stream);
    }
    house.must_serve().await;
    for stream in &mut idle {
        let mut bytes = Vec::new();
        let _ = within(stream.read_to_end(&mut bytes)).await;
    }
}

#[tokio::test]
async fn a_loop_that_does_not_answer_or_is_gone_is_said_to_be_so() {
    let house = House::open(Mood::Sleeps, Limits { answer: SHORT, ..Limits::default() });
    let (status, body) = house.ask("GET", "/v1/status", b"").await;
    assert_eq!((status, &body["problems"][0]["code"]), (503, &json!("api.busy")));
    let house = House::open(Mood::IsGone, Limits::default());
    let (status, body) = house.ask("GET", "/v1/status", b"").await;
    assert_eq!((status, &body["problems"][0]["code"]), (503, &json!("api.ending")));
}

#[tokio::test]
async fn events_come_with_a_backlog_and_without_a_gap() {
    let house = House::usual();
    for number in 0..10 {
        house.tell(number, "before");
    }
    // The notices are collected by a task; one answer later it has run.
    house.must_serve().await;
    let mut stream = house.follow(3).await;
    for number in 10..20 {
        house.tell(number, "after");
    }
    let numbers: Vec<String> = lines(&mut stream, 13).await.into_iter().map(|n| n.new).collect();
    let wanted: Vec<String> = (7..20).map(|number| number.to_string()).collect();
    assert_eq!(numbers, wanted);
    let mut none = house.follow(0).await;
    house.tell(20, "after");
    assert_eq!(lines(&mut none, 1).await[0].new, "20");
}

#[tokio::test]
async fn a_reader_that_lags_is_told_how_much_it_has_lost() {
    let house = House::usual();
    let mut stream = house.follow(0).await;
    let long = "x".repeat(4_000);
    for number in 0..2_000 {
        house.tell(number, &long);
        if number % 50 == 0 {
            house.must_serve().await;
        }
    }
    let mut next = 0;
    let mut lost = 0;
    while next < 2_000 {
        for notice in read_some(&mut stream).await {
            let number: usize = notice.1.parse().expect("a number");
            if notice.0 == "lost" {
                lost += number;
                next += number;
            } else {
                assert_eq!(number, next, "in order, but for what is said to be lost");
                next += 1;
            }
        }
    }
    assert!(lost > 1_000, "{lost}");
}

/// Kind and new value of the notices in the next chunks, until a chunk ends with a line.
async fn read_some(stream: &mut tokio::net::UnixStream) -> Vec<(String, String)> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}\n\r\n") {
        bytes.push(within(stream.read_u8()).await.expect("more"));
    }
    let text = String::from_utf8(bytes).expect("text");
    let parse = |line| serde_json::from_str::<anywan_core::api::Notice>(line).ok();
    text.lines().filter_map(parse).map(|notice| (notice.kind, notice.new)).collect()
}

#[tokio::test]
async fn a_follower_that_never_reads_is_cut_off_and_its_place_is_free_again() {
    let limits = Limits { followers: 1, write: SHORT, ..Limits::default() };
    let house = House::open(Mood::Answers, limits);
    let stuck = house.follow(0).await;
    let (status, body) = house.ask("GET", "/v1/events", b"").await;
    assert_eq!((status, &body["problems"][0]["code"]), (503, &json!("api.too-many")));
    let long = "x".repeat(4_000);
    let free = async {
        loop {
            house.tell(1, &long);
            tokio::time::sleep(Duration::from_millis(1)).await;
            if house.try_follow(0).await.is_some() {
                return;
            }
        }
    };
    within(free).await;
    drop(stuck);
}

#[tokio::test]
async fn followers_that_leave_free_their_places_at_once() {
    let house = House::open(Mood::Answers, Limits { followers: 2, ..Limits::default() });
    for _ in 0..50 {
        within(async { while house.try_follow(0).await.is_none() {} }).await;
    }
}

#[tokio::test]
async fn the_socket_is_for_user_and_group_in_a_directory_that_is_made() {
    let house = House::usual();
    let file = std::fs::metadata(house.room.socket()).expect("it is there");
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o7777, 0o660);
    let path = house.room.socket();
    house.server.stop().await;
    assert!(!path.exists(), "removed at the end");
}

fn start(room: &Room) -> Result<Server, ServeError> {
    Server::start(&room.socket(), mpsc::channel(1).0, broadcast::channel(1).0)
}

#[tokio::test]
async fn of_two_servers_on_one_socket_the_second_is_refused() {
    let house = House::usual();
    let error = start(&house.room).expect_err("it is taken").to_string();
    assert!(error.starts_with("another anywand answers on /"), "{error}");
    assert!(error.contains("\n\nhint: "), "{error}");
    house.must_serve().await;
}

#[tokio::test]
async fn nobody_keeps_a_server_from_starting_by_locking_its_folder() {
    let room = Room::new();
    std::fs::create_dir(room.0.join("s")).expect("a folder");
    let folder = std::fs::File::open(room.0.join("s")).expect("everybody may");
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockShared).expect("and lock it");
    assert!(start(&room).is_ok());
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_anything_else_is_left_alone() {
    let room = Room::new();
    std::fs::create_dir(room.0.join("s")).expect("a directory");
    drop(UnixListener::bind(room.socket()).expect("bind"));
    assert!(room.socket().exists(), "a dead daemon's socket");
    let first = start(&room).expect("it is replaced");
    std::fs::remove_file(room.socket()).expect("somebody removes it");
    std::fs::write(room.socket(), "precious").expect("and puts something else there");
    first.stop().await;
    assert_eq!(std::fs::read(room.socket()).expect("still there"), b"precious");
    let error = start(&room).expect_err("in the way").to_string();
    assert!(error.contains("is in the way: it is not a socket"), "{error}");
}

#[tokio::test]
async fn stopping_ends_followers_and_idle_connections_and_delivers_answers() {
    let house = House::usual();
    let mut follower = house.follow(0).await;
    let mut idle = house.connect().await;
    let mut asking = house.connect().await;
    asking.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("write");
    let mut first = [0];
    asking.read_exact(&mut first).await.expect("the answer begins");
    within(house.server.stop()).await;
    let (mut end, mut rest) = (Vec::new(), Vec::new());
    within(follower.read_to_end(&mut end)).await.expect("an orderly end");
    assert!(end.ends_with(b"0\r\n\r\n"), "the last chunk");
    let _ = within(idle.read_to_end(&mut end)).await;
    within(asking.read_to_end(&mut rest)).await.expect("the answer");
    assert!(rest.ends_with(b"}"));
    assert!(!house.room.socket().exists());
}
