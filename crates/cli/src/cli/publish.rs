//! `handfast topic publish`: one event out of an argument, a file or standard input, or one event
//! for each line of standard input.
//!
//! Lines are published in batches, in order, one batch after the other: a batch is what has
//! arrived while the one before it was under way, so that a slow source is not kept waiting.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use handfast::{Event, Published};
use handfast_server::text::{self, Lines};
use serde_json::json;
use tokio::sync::mpsc;

use super::output::counted;
use super::remote::{Progress, Server};
use super::{Exit, Failure, parse};

/// More than an event may have: beyond it there is no need to read on.
const MOST_BYTES: u64 = 1 << 20;
/// What a batch holds at most, less than the server takes.
const BATCH_EVENTS: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;
/// Attributes that have an option of their own, or that are given.
const NOT_ATTRIBUTES: [(&str, &str); 9] = [
    ("type", "use --type"),
    ("source", "use --source"),
    ("subject", "use --subject"),
    ("partitionkey", "use --key"),
    ("datacontenttype", "use --content-type"),
    ("data", "use --data"),
    ("id", "an id is made for each event"),
    ("specversion", "it is always 1.0"),
    ("time", "when an event was published is known without it"),
];

const HELP: &str = "Data that is UTF-8 is published as text, other data as bytes.
With --lines each line of text is an event, an empty one an event with empty data. Windows' line
ends and a byte order mark are no part of the data; a line that is not text is refused with its
number. What was published before an error stays published, and the error says how many.

Examples:
  handfast topic publish transfers --data '{\"amount\":100}' --content-type application/json
  handfast topic publish transfers invoice.pdf --type invoice.sent --key customer-7
  date | handfast topic publish ticks -
  handfast topic publish clicks - --lines < clicks.ndjson";

/// Publish events
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
#[command(override_usage = "handfast topic publish [OPTIONS] <TOPIC> <FILE | - | --data TEXT>")]
#[command(group = clap::ArgGroup::new("input").args(["data", "file"]).required(true))]
pub(crate) struct Args {
    /// The topic
    #[arg(value_name = "TOPIC", value_parser = parse::name)]
    topic: String,
    /// A file with the event's data; - is standard input
    #[arg(value_name = "FILE")]
    file: Option<String>,
    /// The event's data
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    data: Option<String>,
    /// One event for each line of standard input
    #[arg(long, requires = "file", conflicts_with = "data")]
    lines: bool,
    /// CloudEvents type: what happened
    #[arg(long = "type", value_name = "TYPE", default_value = "message", value_parser = filled)]
    kind: String,
    /// CloudEvents source: where it comes from, a URI reference
    #[arg(long, value_name = "URI", default_value = "/handfast/cli", value_parser = filled)]
    source: String,
    /// What it is about
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// Ordering key: events with the same key are delivered in order
    #[arg(long, value_name = "KEY", value_parser = filled)]
    key: Option<String>,
    /// What the data is, such as application/json
    #[arg(long, value_name = "MEDIA-TYPE", value_parser = filled)]
    content_type: Option<String>,
    /// Another attribute, as a string; may be given several times
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
}

fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected a text".to_owned()) } else { Ok(text.to_owned()) }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if let Some((_, instead)) = NOT_ATTRIBUTES.iter().find(|(taken, _)| *taken == name) {
        return Err(format!("`{name}` is no attribute of this kind: {instead}"));
    }
    let is_fit = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if name.is_empty() || name.len() > 20 || !is_fit || name.starts_with("handfast") {
        return Err(
            "expected a name of 1 to 20 characters out of a-z 0-9 that does not start with \
                    handfast"
                .to_owned(),
        );
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl Args {
    fn event(&self, data: Vec<u8>) -> Event {
        let mut event = Event::new(&self.kind, &self.source);
        event.subject.clone_from(&self.subject);
        event.key.clone_from(&self.key);
        event.content_type.clone_from(&self.content_type);
        for (name, value) in &self.attributes {
            event = match name.as_str() {
                "dataschema" => event.with_schema(value),
                _ => event.with_extension(name, value.as_str()),
            };
        }
        match String::from_utf8(data) {
            Ok(text) => event.with_text(text),
            Err(bytes) => event.with_data(bytes.into_bytes()),
        }
    }
}

pub(super) async fn run(server: &Server, args: &Args) -> Result<(), Failure> {
    if args.lines {
        return lines(server, args).await;
    }
    let event = args.event(match (&args.data, args.file.as_deref()) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some("-")) => whole(io::stdin().lock(), "standard input")?,
        (None, Some(path)) => {
            let file = File::open(path).map_err(|error| unread(path, &error))?;
            whole(file, path)?
        }
        (None, None) => return Err(Failure::new(Exit::Usage, "there is nothing to publish")),
    });
    let id = event.id.clone();
    let asking = server.handfast.publish(&args.topic, event);
    let Published { offset } = server.ask("publishing", asking).await?;
    let document = json!({ "topic": args.topic, "offset": offset, "event_id": id });
    server.out.result(&document, || match offset {
        Some(offset) => format!("Published at offset {offset}."),
        None => "Published; the first answer was lost, so its offset is not known.".to_owned(),
    })
}

fn unread(what: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot read {what}: {error}"))
}

fn whole(mut from: impl Read, what: &str) -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    let read = from.by_ref().take(MOST_BYTES + 1).read_to_end(&mut data);
    read.map_err(|error| unread(what, &error))?;
    if data.len() as u64 > MOST_BYTES {
        return Err(too_large(what));
    }
    Ok(data)
}

fn too_large(what: &str) -> Failure {
    let code = handfast::Code::TooLarge;
    let message = format!("{what} has more than {MOST_BYTES} bytes ({code})");
    Failure::new(Exit::Failed, message)
        .with_code(code.as_str())
        .with_hint("keep the data elsewhere and publish where it is")
}

/// What was published so far.
#[derive(Debug, Default)]
struct Sum {
    published: u64,
    first_offset: Option<u64>,
    last_offset: Option<u64>,
}

impl Sum {
    fn add(&mut self, batch: &[Published]) {
        self.published += batch.len() as u64;
        let first = batch.first().and_then(|published| published.offset);
        self.first_offset = self.first_offset.or(first);
        self.last_offset = batch.last().and_then(|published| published.offset);
    }
}

async fn lines(server: &Server, args: &Args) -> Result<(), Failure> {
    if args.file.as_deref() != Some("-") {
        let message = "--lines reads standard input";
        return Err(Failure::new(Exit::Usage, message).with_hint("name it with `-`"));
    }
    let (send, mut arrived) = mpsc::channel(2 * BATCH_EVENTS);
    // Ends with the input, or when nobody takes its lines any more.
    std::thread::spawn(move || read_lines(BufReader::new(io::stdin()), &send));
    let mut sum = Sum::default();
    let published = publish_lines(server, args, &mut arrived, &mut sum).await;
    published.map_err(|failure| {
        let before = counted(sum.published, "event was", "events were");
        failure.with_history(&format!("{before} published before that"))
    })?;
    let Sum { published, first_offset, last_offset } = sum;
    let document = json!({
        "topic": args.topic, "published": published,
        "first_offset": first_offset, "last_offset": last_offset
    });
    server.out.result(&document, || {
        let events = counted(published, "event", "events");
        match (first_offset, last_offset) {
            (Some(first), Some(last)) => {
                format!("Published {events}, the first at offset {first}, the last at {last}.")
            }
            _ => format!("Published {events}."),
        }
    })
}

type Line = Result<Vec<u8>, Failure>;

fn read_lines(input: impl BufRead, send: &mpsc::Sender<Line>) {
    let mut lines = Lines::new(input, MOST_BYTES as usize);
    loop {
        let line = read_line(&mut lines);
        let is_last = !matches!(line, Ok(Some(_)));
        if let Some(line) = line.transpose()
            && send.blocking_send(line).is_err()
        {
            return;
        }
        if is_last {
            return;
        }
    }
}

/// The next line; none at the end.
fn read_line(lines: &mut Lines<impl BufRead>) -> Result<Option<Vec<u8>>, Failure> {
    let line = lines.read().map_err(|error| match error {
        text::Error::Io(error) => unread("standard input", &error),
        text::Error::TooLong(line) => too_large(&format!("line {line} of standard input")),
        text::Error::Not(problem) => {
            let code = handfast::Code::InvalidArgument;
            let message = format!("standard input, {problem} ({code})");
            Failure::new(Exit::Failed, message)
                .with_code(code.as_str())
                .with_hint("--lines is for text; without it a file is published byte for byte")
        }
    })?;
    Ok(line.map(String::into_bytes))
}

async fn publish_lines(
    server: &Server,
    args: &Args,
    arrived: &mut mpsc::Receiver<Line>,
    sum: &mut Sum,
) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let mut progress = None;
    while let Some(first) = arrived.recv().await {
        let (batch, failed) = batch(first, arrived);
        if batch.is_empty() {
            return failed;
        }
        let events = batch.into_iter().map(|data| (args.topic.as_str(), args.event(data)));
        let asking = server.handfast.publish_all(events.collect::<Vec<_>>());
        let published = match progress {
            Some(_) => asking.await.map_err(super::remote::failure),
            None => server.ask("publishing", asking).await,
        };
        sum.add(&published?);
        failed?;
        if started.elapsed() >= super::remote::PROGRESS_AFTER {
            let progress =
                progress.get_or_insert_with(|| Progress::start("publishing", server.out));
            progress.say(format!("{} published", counted(sum.published, "event", "events")));
        }
    }
    Ok(())
}

/// What has arrived, up to the size of a batch; and why nothing more will.
fn batch(first: Line, arrived: &mut mpsc::Receiver<Line>) -> (Vec<Vec<u8>>, Result<(), Failure>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut next = Some(first);
    loop {
        match next {
            None => return (batch, Ok(())),
            Some(Err(failure)) => return (batch, Err(failure)),
            Some(Ok(line)) => {
                bytes += line.len();
                batch.push(line);
            }
        }
        let is_full = batch.len() >= BATCH_EVENTS || bytes >= BATCH_BYTES;
        next = if is_full { None } else { arrived.try_recv().ok() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_names_of_their_own() {
        assert_eq!(attribute("traceparent=00-a=b"), Ok(("traceparent".into(), "00-a=b".into())));
        assert_eq!(attribute("empty="), Ok(("empty".into(), String::new())));
        for text in ["", "=x", "a", "Upper=x", "a_b=x", "handfastoffset=1", "subject=x", "id=7"] {
            assert!(attribute(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_meant_is_named() {
        let mut lines = Lines::new(io::Cursor::new(b"a\r\n\xffb\n".to_vec()), 100);
        assert_eq!(read_line(&mut lines).expect("text"), Some(b"a".to_vec()));
        let failure = read_line(&mut lines).expect_err("no text");
        assert!(
            failure.to_string().contains("standard input, line 2: it is not UTF-8"),
            "{failure}"
        );
        let mut lines = Lines::new(io::Cursor::new(vec![b'x'; 101]), 100);
        let failure = read_line(&mut lines).expect_err("too long");
        assert!(failure.to_string().contains("line 1 of standard input has more"), "{failure}");
    }

    #[test]
    fn batches_end_where_the_input_fails() {
        let (send, mut arrived) = mpsc::channel(8);
        for line in [Ok(b"b".to_vec()), Err(too_large("a line")), Ok(b"c".to_vec())] {
            send.try_send(line).expect("room");
        }
        let (batch, failed) = batch(Ok(b"a".to_vec()), &mut arrived);
        assert_eq!(batch, [b"a".to_vec(), b"b".to_vec()]);
        assert!(failed.is_err());
    }
}
