//! The command `handfast` as a process: banner, signals, exit statuses, and what it leaves on disk.
#![expect(clippy::unwrap_used, reason = "in a test that is how a failure is told")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use handfast_server::node::{Node, NodeOptions};
use handfast_wire::v1;
use handfast_wire::v1::events_client::EventsClient;
use tonic::transport::Endpoint;

fn handfast(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handfast"));
    command.args(args);
    for name in ["CONFIG", "DATA_DIR", "LISTEN", "LOG"] {
        command.env_remove(format!("HANDFAST_{name}"));
    }
    command
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = handfast(args).output().unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Server {
    child: Child,
    address: String,
    banner: String,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let mut command = handfast(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(dir)]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut banner = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !banner.contains("try next") {
            let line = lines.next().expect("the banner is whole").unwrap();
            banner.push_str(&line);
            banner.push('\n');
        }
        let line = banner.lines().find_map(|line| line.trim().strip_prefix("listens on"));
        let address = line.unwrap().split_whitespace().next().unwrap().to_owned();
        Self { child, address, banner }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn terminate(&mut self) -> ExitStatus {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_until_it_is_told_to_stop_and_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let mut server = Server::start(&store);
    assert!(server.banner.contains(handfast_server::VERSION), "{}", server.banner);
    assert!(server.banner.contains(text(&store)), "{}", server.banner);
    assert!(server.get("/readyz").starts_with("HTTP/1.1 200"), "HTTP/1 on the same port");
    let topics = |address: String, create: bool| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let channel = Endpoint::new(format!("http://{address}")).unwrap().connect().await;
            let mut events = EventsClient::new(channel.unwrap());
            if create {
                let request = v1::CreateTopicRequest { name: "orders".into(), settings: None };
                events.create_topic(request).await.unwrap();
            }
            let listed = events.list_topics(v1::ListTopicsRequest {}).await.unwrap();
            listed.into_inner().topics.len()
        })
    };
    assert_eq!(topics(server.address.clone(), true), 1);
    assert_eq!(server.terminate().code(), Some(0));

    let mut server = Server::start(&store);
    assert_eq!(topics(server.address.clone(), false), 1);
    assert_eq!(server.terminate().code(), Some(0));
    let (code, report) = run(&["journal", "check", text(&store)]);
    assert!(code == Some(0) && report.contains("sound"), "{report}");
    let (code, report) = run(&["journal", "check", "--json", "--data-dir", text(&store)]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(code == Some(0) && report["sound"] == true, "{report}");
    let (code, dump) = run(&["journal", "dump", text(&store)]);
    assert!(code == Some(0) && dump.contains("TopicCreated"), "{dump}");
    let (code, dump) = run(&["journal", "dump", "--json", text(&store)]);
    assert_eq!(code, Some(0));
    for line in dump.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn a_stream_that_is_open_does_not_keep_it_from_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("store"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let channel = Endpoint::new(format!("http://{}", server.address)).unwrap().connect().await;
        let mut events = EventsClient::new(channel.unwrap());
        let (_sender, receiver) = tokio::sync::mpsc::channel(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut frames = events.publish_stream(stream).await.unwrap().into_inner();
        let stopping = tokio::task::spawn_blocking(move || server.terminate().code());
        let status = frames.message().await.expect_err("the server stops");
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
        assert_eq!(stopping.await.unwrap(), Some(0));
    });
}

#[test]
fn a_second_server_on_the_same_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let _server = Server::start(&store);
    let (code, said) = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&store)]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("open in another process") && said.contains("--data-dir"), "{said}");
    let (code, said) = run(&["journal", "check", "--json", text(&store)]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["error"]["exit_status"]), (Some(3), &3.into()), "{said}");
}

#[test]
fn a_port_in_use_is_said_before_the_store_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (code, said) = run(&["serve", "--listen", &address, "--data-dir", text(&store)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
    assert!(!store.exists());
}

#[test]
fn what_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let (code, said) = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(dir.path())]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("letter.txt") && said.contains("--data-dir"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let file = dir.path().join("letter.txt");
    let (code, said) = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&file)]);
    assert!(code == Some(3) && said.contains("--data-dir"), "{said}");
    let missing = dir.path().join("missing");
    let (code, said) = run(&["journal", "check", text(&missing)]);
    assert!(code == Some(3) && !missing.exists(), "{said}");
}

#[test]
fn a_damaged_store_is_refused_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    for _ in 0..3 {
        let node = Node::open(&store, NodeOptions::default(), &mut |_| {}).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(node.shutdown(std::time::Duration::ZERO));
    }
    let files =
        || -> Vec<_> { std::fs::read_dir(&store).unwrap().map(|f| f.unwrap().path()).collect() };
    let log = files().into_iter().find(|f| f.extension().is_some_and(|e| e == "log")).unwrap();
    // The first frame: what follows it is good, so it cannot be the torn end of the log.
    let mut bytes = std::fs::read(&log).unwrap();
    let first = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 3;
    for byte in &mut bytes[first..first + 64] {
        *byte ^= 0xff;
    }
    std::fs::write(&log, &bytes).unwrap();
    let before: Vec<_> = files().iter().map(|f| std::fs::read(f).unwrap()).collect();
    let (code, said) = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", text(&store)]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("damaged") && said.contains("journal check"), "{said}");
    let (code, said) = run(&["journal", "check", text(&store)]);
    assert!(code == Some(3) && said.contains("damaged"), "{said}");
    let after: Vec<_> = files().iter().map(|f| std::fs::read(f).unwrap()).collect();
    assert!(before == after, "nothing was changed");
}

#[test]
fn a_wrong_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("handfast.toml");
    let store = dir.path().join("store");
    std::fs::write(&file, "data_dri = \"x\"\n").unwrap();
    let config = text(&file);
    let (code, said) = run(&["serve", "--config", config, "--data-dir", text(&store)]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("line 1: unknown field `data_dri`"), "{said}");
    assert!(!store.exists());
    let (code, said) = run(&["serve", "--listen", "nowhere", "--data-dir", text(&store)]);
    assert!(code == Some(2) && said.contains("--listen"), "{said}");
    assert_eq!(run(&["sing"]).0, Some(2));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("store"));
    let kill = format!("kill -TERM {0}; kill -INT {0}; true", server.child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    // Whichever comes first, it ends.
    let code = server.child.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
}
