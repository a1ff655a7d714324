//! The commands that ask a server, as processes against a real one: results for people and for
//! programs, errors of the one shape, exit statuses.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use handfast::service::rusqlite::Connection;
use handfast::service::{Handler, HandlerError, No, Prepared, SqliteStore};
use handfast::{BeginOptions, Event, Handfast, Item, TopicSettings, TransactionId};
use process::Server;
use serde_json::{Value, json};

mod process;

/// What a command did.
struct Done {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    /// Succeeded; what it said for people.
    #[track_caller]
    fn text(self) -> String {
        assert_eq!(self.status, 0, "{}", self.stderr);
        assert!(!self.stdout.contains('\x1b'), "colour without a terminal: {:?}", self.stdout);
        self.stdout
    }

    /// Succeeded; its one document.
    #[track_caller]
    fn json(self) -> Value {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""));
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stdout);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Failed as a program sees it: status and error.
    #[track_caller]
    fn error(self) -> (i32, Value) {
        assert_eq!(self.stdout, "", "{}", self.stderr);
        let document: Value = serde_json::from_str(&self.stderr).unwrap();
        let error = document["error"].clone();
        for field in ["code", "message", "retryable", "hint", "exit_status"] {
            assert!(error.get(field).is_some(), "{field} is missing: {error}");
        }
        assert_eq!(error["exit_status"], self.status);
        (self.status, error)
    }

    /// Failed; what it said for people.
    #[track_caller]
    fn sentence(self) -> (i32, String) {
        assert_eq!(self.stdout, "");
        (self.status, self.stderr)
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handfast"));
    command.args(arguments).env_remove("HANDFAST_SERVER").stdin(Stdio::null());
    command
}

fn done(output: Output) -> Done {
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { status: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
}

fn run(arguments: &[&str]) -> Done {
    done(command(arguments).output().unwrap())
}

/// A command line, split at spaces, that asks this server.
fn ask(server: &Server, line: &str) -> Done {
    let arguments: Vec<&str> = line.split(' ').collect();
    done(command(&arguments).env("HANDFAST_SERVER", server.url()).output().unwrap())
}

fn ask_with_input(server: &Server, line: &str, input: &[u8]) -> Done {
    let arguments: Vec<&str> = line.split(' ').collect();
    let mut command = command(&arguments);
    command.env("HANDFAST_SERVER", server.url()).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that fails early does not read it all.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    done(output)
}

fn start() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("store"));
    (directory, server)
}

fn lines_of(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn topics() {
    let (_directory, server) = start();
    let ask = |line| ask(&server, line);

    assert_eq!(ask("topic list").text(), "No topics: `handfast topic create NAME` makes one.\n");
    assert_eq!(
        ask("topic create transfers").text(),
        "Created topic transfers, which keeps everything.\n"
    );
    assert_eq!(
        ask("topic create transfers").text(),
        "Topic transfers was there already, and keeps everything.\n"
    );
    let (status, error) = ask("topic create transfers --retain-age 7d --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("topic_exists")));
    assert_eq!(error["retryable"], false);
    assert_eq!(
        ask("topic create clicks --retain-age 7d --retain-bytes 10GiB --json").json(),
        json!({
            "name": "clicks", "created": true, "retain_ms": 604_800_000_u64,
            "retain_bytes": 10_737_418_240_u64, "retain_unacknowledged": false
        })
    );

    // What is not named stays.
    let altered = ask("topic alter clicks --retain-bytes none --retain-unacknowledged --json");
    let altered = altered.json();
    assert_eq!(altered["retain_ms"], 604_800_000_u64);
    assert_eq!(altered["retain_bytes"], Value::Null);
    assert_eq!(altered["retain_unacknowledged"], true);

    let list = ask("topic list --json").json();
    let names: Vec<&Value> =
        list["topics"].as_array().unwrap().iter().map(|topic| &topic["name"]).collect();
    assert_eq!(names, ["clicks", "transfers"]);
    assert!(ask("topic list").text().starts_with("TOPIC "));

    // Without a terminal nobody can be asked.
    let (status, error) = ask("topic delete clicks --json").error();
    assert_eq!((status, &error["code"]), (2, &json!("not_confirmed")));
    assert_eq!(ask("topic delete clicks --yes --json").json()["deleted"], true);
    assert_eq!(ask("topic delete transfers --yes").text(), "Deleted topic transfers.\n");
    assert_eq!(ask("topic list --json").json(), json!({ "topics": [] }));

    for line in ["topic delete gone --yes", "topic alter gone --retain-age 1d", "topic tail gone"] {
        let (status, error) = ask(&format!("{line} --json")).error();
        assert_eq!((status, &error["code"]), (1, &json!("unknown_topic")), "{line}");
        let (status, sentence) = ask(line).sentence();
        assert_eq!(
            (status, sentence.as_str()),
            (
                1,
                "handfast: there is no topic gone (unknown_topic): `handfast topic list` shows all \
                 topics\n"
            ),
            "{line}"
        );
    }
    let (status, _) = ask("topic publish gone --data x --json").error();
    assert_eq!(status, 1);
}

#[test]
fn publishing_and_tailing() {
    let (directory, server) = start();
    let ask = |line| ask(&server, line);
    ask("topic create t").text();

    assert_eq!(ask("topic publish t --data hello").text(), "Published at offset 0.\n");
    let line = "topic publish t --data {\"n\":1} --content-type application/json --type made \
                --source /x --subject s --key k --attribute traceparent=00-1 --json";
    let published = ask(line).json();
    assert_eq!((&published["topic"], &published["offset"]), (&json!("t"), &json!(1)));
    let file = directory.path().join("data");
    std::fs::write(&file, [0xff, 0]).unwrap();
    let line = format!("topic publish t {}", file.display());
    assert_eq!(ask(&line).text(), "Published at offset 2.\n");
    let piped = ask_with_input(&server, "topic publish t -", b"two\nlines\n");
    assert_eq!(piped.text(), "Published at offset 3.\n");

    let events = lines_of(&ask("topic tail t --json").text());
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["data"], "hello");
    assert_eq!(events[0]["handfastoffset"], "0");
    assert_eq!(events[0].get("handfasttransaction"), None);
    for (field, value) in [
        ("id", published["event_id"].clone()),
        ("specversion", json!("1.0")),
        ("type", json!("made")),
        ("source", json!("/x")),
        ("subject", json!("s")),
        ("partitionkey", json!("k")),
        ("traceparent", json!("00-1")),
        ("datacontenttype", json!("application/json")),
        ("data", json!({ "n": 1 })),
    ] {
        assert_eq!(events[1][field], value, "{field}");
    }
    assert_eq!(events[2]["data_base64"], "/wA=");
    assert_eq!(events[3]["data"], "two\nlines\n");

    let text = ask("topic tail t --from 3").text();
    assert!(text.starts_with("     3  2") && text.ends_with("message  two\\nlines\\n\n"), "{text}");
    for (line, count) in [
        ("topic tail t --limit 2", 2),
        ("topic tail t --from latest", 0),
        ("topic tail t --follow --from earliest --limit 3", 3),
        ("topic tail t --since 1h", 4),
        ("topic tail t --since 2999-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(ask(line).text().lines().count(), count, "{line}");
    }

    // More than one batch.
    let many: String = (0..2_500).map(|n| format!("line {n}\n")).collect();
    let line = "topic publish t - --lines --json";
    let published = ask_with_input(&server, line, many.as_bytes()).json();
    assert_eq!(
        published,
        json!({ "topic": "t", "published": 2500, "first_offset": 4, "last_offset": 2503 })
    );
    let events = lines_of(&ask("topic tail t --from 4 --json").text());
    assert_eq!(events.len(), 2_500);
    assert!(events.iter().enumerate().all(|(n, event)| event["data"] == format!("line {n}")));
    let none = ask_with_input(&server, "topic publish t - --lines", b"").text();
    assert_eq!(none, "Published 0 events.\n");

    // What came before an error stays published, and is told.
    let mut too_long = b"fits\n".to_vec();
    too_long.resize(5 + (2 << 20), b'x');
    let (status, error) = ask_with_input(&server, line, &too_long).error();
    assert_eq!((status, &error["code"]), (1, &json!("too_large")));
    let message = error["message"].as_str().unwrap();
    assert!(message.ends_with("; 1 event was published before that"), "{message}");

    let (status, error) = ask("topic tail t --from 9999 --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("offset_out_of_range")));
    let (status, error) = ask("topic publish t /nowhere/to/be/found --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("failed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_and_dead_letters() {
    let (_directory, server) = start();
    let ask = |line| ask(&server, line);
    let handfast = Handfast::connect(server.url()).await.unwrap();
    handfast.create_topic("t", TopicSettings::new()).await.unwrap();
    for n in 0..3 {
        let event = Event::new("made", "/test").with_text(format!("event {n}"));
        handfast.publish("t", event).await.unwrap();
    }
    assert_eq!(ask("subscription list").text(), "No subscriptions.\n");
    let mut billing = handfast.subscribe("billing").on("t").open().await.unwrap();
    for _ in 0..3 {
        match billing.next().await.unwrap().unwrap() {
            Item::Event(delivery) => delivery.dead_letter("no such\naccount").await.unwrap(),
            Item::Gap(_) => panic!("nothing was removed"),
        }
    }
    drop(billing);

    let list = ask("subscription list --json").json();
    assert_eq!(list["subscriptions"].as_array().unwrap().len(), 1);
    let shown = ask("subscription show billing --json").json();
    for (field, value) in [
        ("name", json!("billing")),
        ("topic", json!("t")),
        ("end", json!(3)),
        ("dead_letters", json!(3)),
        ("gap", Value::Null),
        ("deleting", json!(false)),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_eq!(shown["settings"]["max_attempts"], 10);
    assert!(ask("subscription show billing").text().starts_with("Subscription billing\n"));
    assert_eq!(ask("subscription list --topic t").text().lines().count(), 2);
    let (_, error) = ask("subscription list --topic gone --json").error();
    assert_eq!(error["code"], "unknown_topic");

    let dead = ask("dead list billing --json").json();
    assert_eq!(dead["has_more"], false);
    let letters = dead["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 3);
    assert_eq!(letters[1]["offset"], 1);
    assert_eq!(letters[1]["reason"], "no such\naccount");
    assert!(letters[1]["since"].as_str().unwrap().ends_with('Z'));
    let text = ask("dead list billing").text();
    assert!(text.contains("no such\\naccount"), "{text}");
    assert_eq!(text.lines().count(), 4);
    assert_eq!(ask("dead list billing --limit 2 --json").json()["has_more"], true);
    let shown = ask("dead show billing 1 --json").json();
    assert_eq!(shown["dead_letter"]["attempts"], 1);
    assert_eq!(shown["event"]["data"], "event 1");
    assert!(ask("dead show billing 1").text().contains("data        event 1"));

    assert_eq!(ask("dead retry billing 0 --json").json()["retried"], 1);
    assert_eq!(ask("dead drop billing 1").text(), "Dropped 1 dead letter of billing.\n");
    let (status, error) = ask("dead drop billing 1 --json").error();
    assert_eq!((status, &error["code"]), (1, &json!("unknown_dead_letter")));
    let (_, error) = ask("dead show billing 1 --json").error();
    assert_eq!(error["code"], "unknown_dead_letter");
    assert_eq!(ask("dead drop billing --all --json").json()["dropped"], 1);
    assert_eq!(ask("dead list billing").text(), "Subscription billing has no dead letters.\n");

    assert_eq!(ask("subscription seek billing --to 1 --json").json()["next_offset"], 1);
    assert_eq!(
        ask("subscription seek billing --to latest").text(),
        "Subscription billing goes on at offset 3.\n"
    );
    assert_eq!(ask("subscription seek billing --to 1h --json").json()["next_offset"], 0);
    let (_, error) = ask("subscription seek billing --to 99 --json").error();
    assert_eq!(error["code"], "offset_out_of_range");

    let (status, sentence) = ask("subscription delete billing").sentence();
    assert_eq!(status, 2);
    assert_eq!(
        sentence,
        "handfast: this has to be confirmed, and there is no terminal: add --yes\n"
    );
    assert_eq!(ask("subscription delete billing --yes").text(), "Deleted subscription billing.\n");
    for line in ["subscription show billing", "dead list billing", "dead retry billing --all"] {
        let (status, error) = ask(&format!("{line} --json")).error();
        assert_eq!((status, &error["code"]), (1, &json!("unknown_subscription")), "{line}");
    }
}

/// Prepares whatever it is asked to.
struct Willing;

impl Handler<Connection> for Willing {
    fn prepare(&self, _: &Connection, _: TransactionId, work: &[u8]) -> Result<Prepared, No> {
        if work == b"no" { Err(No::new("will\x07 not")) } else { Ok(Prepared::Yes) }
    }

    fn commit(&self, _: &Connection, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }

    fn abort(&self, _: &Connection, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        Ok(())
    }
}

async fn serve(handfast: &Handfast, directory: &Path, stop: impl Future<Output = ()>) {
    let store = SqliteStore::open(directory.join("payments.db")).unwrap();
    let service = handfast.service("payments").instance("p-1").store(store).handler(Willing);
    service.run(stop).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_and_participants() {
    let (directory, server) = start();
    let ask = |line: &str| ask(&server, line);
    let handfast = Handfast::connect(server.url()).await.unwrap();
    handfast.create_topic("t", TopicSettings::new()).await.unwrap();
    assert_eq!(ask("tx list").text(), "No open transactions.\n");
    assert_eq!(ask("tx list --json").json(), json!({ "transactions": [], "has_more": false }));

    let deadline = Duration::from_secs(3_600);
    let options = || BeginOptions::new().detached().with_deadline(deadline);
    let mut open = handfast.begin_with(options()).await.unwrap();
    open.call("nobody", "work").await.unwrap();
    open.publish("t", Event::new("made", "/test")).await.unwrap();
    let other = handfast.begin_with(options()).await.unwrap();

    let list = ask("tx list --json").json();
    let first = &list["transactions"][0];
    assert_eq!(first["transaction_id"], open.id().to_string());
    assert_eq!(first["state"], "preparing");
    assert_eq!(first["events"], 1);
    assert_eq!(first["decided"], Value::Null);
    let branch = &first["branches"][0];
    assert_eq!((&branch["participant"], &branch["vote"]), (&json!("nobody"), &Value::Null));
    assert_eq!(list["transactions"].as_array().unwrap().len(), 2);
    assert_eq!(ask("tx list --limit 1 --json").json()["has_more"], true);
    assert_eq!(ask("tx list --state committing").text(), "No open transactions.\n");
    let text = ask("tx list --state preparing").text();
    assert!(text.lines().nth(1).unwrap().contains(" 0/1 "), "{text}");
    let limited = ask("tx list --limit 1");
    assert_eq!(limited.stderr, "These are the first 1; see more with --limit.\n");
    assert_eq!(ask("tx list --limit 1 --quiet").stderr, "");

    let text = ask(&format!("tx show {}", open.id())).text();
    assert!(text.contains("  state         Preparing\n"), "{text}");
    assert!(text.contains("  commit        not asked yet\n"), "{text}");
    let id = open.id();
    open.abort("not meant").await.unwrap();
    other.abort("").await.unwrap();
    let text = ask(&format!("tx show {id}")).text();
    assert!(text.contains("reason        aborted: not meant"), "{text}");
    assert!(text.contains(" ms  decided ABORT (aborted)\n"), "{text}");

    // With a service that is there.
    assert_eq!(
        ask("participant list").text(),
        "No participants: no service is connected, no database registered.\n"
    );
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (service, path) = (handfast.clone(), directory.path().to_path_buf());
    let serving = tokio::spawn(async move {
        serve(&service, &path, async { drop(stopped.await) }).await;
    });
    let committed = handfast
        .transaction(|tx| {
            tx.with_deadline(deadline).call("payments", "work");
            tx.publish("t", Event::new("made", "/test"));
        })
        .await
        .unwrap();
    let shown = ask(&format!("tx show {} --json", committed.id)).json();
    assert_eq!(shown["transaction_id"], committed.id.to_string());
    assert!(["committing", "committed"].contains(&shown["state"].as_str().unwrap()), "{shown}");
    assert_eq!(shown["branches"][0]["vote"], "yes");
    assert!(shown["decided_unix_ms"].as_u64() >= shown["begun_unix_ms"].as_u64());
    let text = ask(&format!("tx show {}", committed.id)).text();
    assert!(text.contains(" ms  decided COMMIT\n"), "{text}");
    let event = lines_of(&ask("topic tail t --json").text()).remove(0);
    assert_eq!(event["handfasttransaction"], committed.id.to_string());

    let list = ask("participant list --json").json();
    let payments = &list["participants"][0];
    assert_eq!((&payments["name"], &payments["kind"]), (&json!("payments"), &json!("service")));
    assert_eq!(payments["instances"][0]["instance"], "p-1");
    assert!(ask("participant list").text().contains("payments     service"));

    let failed = handfast.transaction(|tx| drop(tx.call("payments", "no"))).await.unwrap_err();
    let shown = ask(&format!("tx show {} --json", failed.id().unwrap())).json();
    assert_eq!(shown["state"], "failed");
    assert_eq!(shown["reason"]["code"], "voted_no");
    assert_eq!(shown["reason"]["participant"], "payments");
    let text = ask(&format!("tx show {}", failed.id().unwrap())).text();
    assert!(text.contains("voted_no by payments: will\\u{7} not"), "{text}");

    let unknown = "00000000-0000-7000-8000-000000000000";
    let (status, error) = ask(&format!("tx show {unknown} --json")).error();
    assert_eq!((status, &error["code"]), (1, &json!("unknown_transaction")));
    drop(stop);
    serving.await.unwrap();
}

#[test]
fn a_server_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}");
    let (status, sentence) = run(&["tx", "list", "--server", &url]).sentence();
    assert_eq!(status, 4);
    assert_eq!(
        sentence,
        format!(
            "handfast: nothing answers at {url}: start a server with `handfast serve`, or name \
             another with --server\n"
        )
    );
    // The scheme may be left out.
    let address = address.to_string();
    let (status, error) = run(&["topic", "--server", &address, "list", "--json"]).error();
    assert_eq!(status, 4);
    assert_eq!(
        error,
        json!({
            "code": "unreachable",
            "message": format!("nothing answers at {url}"),
            "retryable": true,
            "hint": "start a server with `handfast serve`, or name another with --server",
            "exit_status": 4,
        })
    );
    let (status, error) = run(&["tx", "list", "--json", "--server", "https://127.0.0.1:1"]).error();
    assert_eq!((status, &error["code"]), (2, &json!("usage")));
}

#[test]
fn what_is_not_well_formed_never_reaches_a_server() {
    for (line, words) in [
        ("tx show 123", "8-4-4-4-12"),
        ("tx list --limit 0", "0 is not in"),
        ("topic create a/b", "a name is 1 to 64 characters"),
        ("topic create t --retain-age 7", "expected numbers with units"),
        ("topic create t --retain-bytes 10", "expected a number with a unit"),
        ("topic publish t", "required arguments"),
        ("topic publish t --data x --attribute handfasttime=1", "expected a name"),
        ("topic publish t --data x --type=", "expected a text"),
        ("topic tail t --from middle", "expected earliest, latest or an offset"),
        ("topic tail t --since yesterday", "expected how long ago"),
        ("subscription seek s", "--to"),
        ("dead drop s", "required arguments"),
        ("dead show s -1", "unexpected argument"),
        ("nonsense", "unrecognized subcommand"),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (status, sentence) = run(&arguments).sentence();
        assert_eq!(status, 2, "{line}: {sentence}");
        assert!(sentence.contains(words), "{line}: {sentence}");
        let (status, error) = run(&[arguments.as_slice(), &["--json"]].concat()).error();
        assert_eq!((status, &error["code"]), (2, &json!("usage")), "{line}");
        assert!(error["message"].as_str().unwrap().contains(words), "{line}: {error}");
    }
}

#[test]
fn explanations_need_no_server() {
    let text = run(&["explain", "topic_full"]).text();
    assert!(text.starts_with("topic_full\n\nThe topic keeps what is not acknowledged"), "{text}");
    assert_eq!(run(&["explain", "TOPIC-FULL"]).text(), text);
    let document = run(&["explain", "topic_full", "--json"]).json();
    assert_eq!(
        (&document["code"], &document["kind"], &document["retryable"]),
        (&json!("topic_full"), &json!("refusal"), &json!(true))
    );
    let reason = run(&["explain", "deadline_passed", "--json"]).json();
    assert_eq!((&reason["kind"], &reason["retryable"]), (&json!("reason"), &Value::Null));
    let all = run(&["explain", "--json"]).json();
    assert_eq!(
        all["codes"].as_array().unwrap().len() + 1,
        run(&["explain"]).text().lines().count()
    );
    let (status, error) = run(&["explain", "topic_ful", "--json"]).error();
    assert_eq!((status, &error["code"]), (1, &json!("unknown_code")));
    assert!(error["hint"].as_str().unwrap().contains("topic_full"), "{error}");
}

#[test]
fn help_says_what_there_is() {
    let text = run(&["--help"]).text();
    for words in ["Run:", "serve", "subscription", "Examples:", "Exit status:", "\n  4 "] {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }
    let text = run(&["topic", "publish", "--help"]).text();
    assert!(text.contains("HANDFAST_SERVER") && text.contains("Examples:"), "{text}");
}
