//! `handfast topic tail`: reads a topic without a subscription. Changes nothing.

use std::time::SystemTime;

use handfast::{ReadItem, Start};

use super::remote::Server;
use super::{Exit, Failure, cloudevent, parse};

const HELP: &str =
    "For people a line is: offset, time, type, key, subject, data; data that is not \
text stands there
in base64. With --json it is the event in CloudEvents' JSON format, with `handfastoffset`,
`handfasttime` and, if a transaction published it, `handfasttransaction`. Events that retention
took before they could be read are told on stderr.

Examples:
  handfast topic tail transfers
  handfast topic tail transfers --follow
  handfast topic tail transfers --since 10m --json | jq .data
  handfast topic tail transfers --from 42 --limit 1";

/// Print the events of a topic, one per line
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The topic
    #[arg(value_name = "TOPIC", value_parser = parse::name)]
    topic: String,
    /// Where to start: earliest, latest or an offset [default: earliest; with --follow: latest]
    #[arg(long, value_name = "PLACE", value_parser = parse::offset, conflicts_with = "since")]
    from: Option<Start>,
    /// Start with what was published since then: how long ago, such as 10m, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse::moment)]
    since: Option<SystemTime>,
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Wait for more at the topic's end
    #[arg(long, short)]
    follow: bool,
}

impl Args {
    fn start(&self) -> Start {
        let default = if self.follow { Start::Latest } else { Start::Earliest };
        self.since.map(Start::Time).or(self.from).unwrap_or(default)
    }
}

pub(super) async fn run(server: &Server, args: &Args) -> Result<(), Failure> {
    let (handfast, out) = (&server.handfast, server.out);
    let read = handfast.read(&args.topic, args.start());
    let opening = read.follow(args.follow).limit(args.limit.unwrap_or(0)).open();
    let mut events = server.ask("opening the topic", opening).await?;
    loop {
        match events.next().await.map_err(super::remote::failure)? {
            None => return Ok(()),
            Some(ReadItem::Event(event)) if out.is_json => {
                let event =
                    cloudevent::json(&event).map_err(|error| Failure::new(Exit::Failed, error))?;
                out.json(&event)?;
            }
            Some(ReadItem::Event(event)) => out.text(&cloudevent::line(&event))?,
            Some(ReadItem::Gap { from, to }) => {
                let gap = serde_json::json!({ "gap": { "from": from, "to": to } });
                let text = format!("offsets {from} up to {to} had gone before they could be read");
                out.notice(&gap, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn where_it_starts() {
        for (line, start) in [
            ("tail t", Start::Earliest),
            ("tail t --follow", Start::Latest),
            ("tail t -f --from earliest", Start::Earliest),
            ("tail t --from 42", Start::Offset(42)),
            (
                "tail t --since 1970-01-01T00:00:01Z",
                Start::Time(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1)),
            ),
        ] {
            let parsed = Line::try_parse_from(line.split(' '));
            assert_eq!(parsed.map(|line| line.args.start()).ok(), Some(start), "{line}");
        }
        for line in ["tail", "tail t --from 1 --since 1m", "tail t --limit 0", "tail t --from x"] {
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
