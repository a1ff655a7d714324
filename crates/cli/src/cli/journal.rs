//! `handfast journal check|dump`: looks at a store that no server has open. Changes nothing.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use handfast_core::record::Record;
use handfast_journal::files::Directory;
use handfast_journal::{DumpItem, Error, Report, check, dump};
use handfast_server::config::DATA_DIR;
use serde_json::{Value, json};

use super::progress::Bar;
use super::{Exit, Failure, store};

/// Characters of a record that are shown without `--full`.
const SHOWN: usize = 300;

/// Look at a store that no server has open. Nothing is changed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read everything and say what does not check; status 3 if anything durable is damaged
    Check(Target),
    /// Show every frame and record in the order of the files
    Dump {
        #[command(flatten)]
        target: Target,
        /// Show records in full, with the bytes of their events
        #[arg(long)]
        full: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Target {
    /// Directory of the store [env: HANDFAST_DATA_DIR] [default: handfast-data]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The same
    #[arg(long, value_name = "DIR", conflicts_with = "dir")]
    data_dir: Option<PathBuf>,
    /// JSON: one object for a check, one on each line of a dump
    #[arg(long)]
    json: bool,
}

impl Target {
    fn dir(&self) -> PathBuf {
        let given = self.dir.as_ref().or(self.data_dir.as_ref()).cloned();
        let env = || std::env::var_os("HANDFAST_DATA_DIR").map(PathBuf::from);
        given.or_else(env).unwrap_or_else(|| DATA_DIR.into())
    }
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    match args.action {
        Action::Check(target) => {
            run_check(&target.dir(), target.json).map_err(|failure| failure.with_json(target.json))
        }
        Action::Dump { target, full } => run_dump(&target.dir(), target.json, full)
            .map_err(|failure| failure.with_json(target.json)),
    }
}

fn open(dir: &Path) -> Result<Directory, Failure> {
    Directory::open_existing(dir).map_err(|error| {
        let message = format!("{}: {error}; name the directory of a store", dir.display());
        Failure::new(Exit::Store, message)
    })
}

fn run_check(dir: &Path, is_json: bool) -> Result<(), Failure> {
    let files = open(dir)?;
    let mut bar = Bar::new("checking", false);
    let report = check(&files, &mut |progress| bar.show(progress))
        .map_err(|error| store::refused(dir, &error))?;
    drop(bar);
    let mut out = io::stdout().lock();
    let told = if is_json {
        writeln!(out, "{}", report_json(&report))
    } else {
        tell_report(&mut out, &report)
    };
    written(told)?;
    if report.is_sound() {
        return Ok(());
    }
    let places = report.damage.len();
    let message = format!(
        "{}: damaged in {places} places, listed above; nothing was changed: copy the directory \
         before anything else, then restore a backup",
        dir.display()
    );
    Err(Failure::new(Exit::Store, message))
}

fn tell_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "store      {}", report.store)?;
    writeln!(out, "segments   {}", report.segments.len())?;
    writeln!(out, "frames     {}", report.frames)?;
    writeln!(out, "records    {}, the last is {}", report.records, report.last)?;
    writeln!(out, "bytes      {}", report.bytes)?;
    if report.torn_bytes > 0 {
        writeln!(
            out,
            "torn       {} bytes of a last group that is not whole; the next opening \
             drops them",
            report.torn_bytes
        )?;
    }
    if !report.stale_indexes.is_empty() {
        writeln!(out, "indexes    to be built again: {:?}", report.stale_indexes)?;
    }
    if !report.leftovers.is_empty() {
        writeln!(out, "leftovers  to be removed: {}", report.leftovers.join(", "))?;
    }
    for damage in &report.damage {
        writeln!(out, "damaged    {damage}")?;
    }
    if report.is_sound() {
        writeln!(out, "sound")?;
    }
    out.flush()
}

fn report_json(report: &Report) -> Value {
    let damage: Vec<Value> = report
        .damage
        .iter()
        .map(|d| json!({ "file": d.file, "position": d.position, "detail": d.detail }))
        .collect();
    json!({
        "store": report.store.to_string(),
        "sound": report.is_sound(),
        "segments": report.segments,
        "frames": report.frames,
        "records": report.records,
        "bytes": report.bytes,
        "last": report.last.0,
        "torn_bytes": report.torn_bytes,
        "stale_indexes": report.stale_indexes,
        "leftovers": report.leftovers,
        "damage": damage,
    })
}

fn run_dump(dir: &Path, is_json: bool, full: bool) -> Result<(), Failure> {
    let files = open(dir)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut told = Ok(());
    let dumped = dump(&files, &mut |item| {
        if told.is_ok() {
            told = tell_item(&mut out, &item, is_json, full);
        }
    });
    // What was good is shown, whatever comes behind it.
    written(told.and_then(|()| out.flush()))?;
    dumped.map_err(|error: Error| store::refused(dir, &error))
}

fn tell_item(out: &mut impl Write, item: &DumpItem, is_json: bool, full: bool) -> io::Result<()> {
    match item {
        DumpItem::Segment { segment, first, generation } if is_json => {
            let first = first.0;
            let segment = json!({ "segment": segment, "first": first, "generation": generation });
            writeln!(out, "{segment}")
        }
        DumpItem::Segment { segment, first, generation } => {
            writeln!(out, "segment {segment}, from {first}, generation {generation}")
        }
        DumpItem::Frame { segment, position, epoch, records, bytes } if is_json => {
            let frame = json!({ "epoch": epoch, "records": records, "bytes": bytes });
            writeln!(out, "{}", at(*segment, *position, "frame", &frame))
        }
        DumpItem::Frame { position, epoch, records, bytes, .. } => {
            writeln!(out, "  frame at {position}, epoch {epoch}, {records} records, {bytes} bytes")
        }
        DumpItem::Record { segment, position, lsn, bytes, record } if is_json => {
            let shown = shown(record, full);
            let kind = shown.split(|c: char| !c.is_alphanumeric()).next();
            let record = json!({ "lsn": lsn.0, "bytes": bytes, "kind": kind, "is": shown });
            writeln!(out, "{}", at(*segment, *position, "record", &record))
        }
        DumpItem::Record { lsn, record, .. } => writeln!(out, "    {lsn} {}", shown(record, full)),
        DumpItem::Rest { segment, position, bytes, why } if is_json => {
            let rest = json!({ "bytes": bytes, "why": why });
            writeln!(out, "{}", at(*segment, *position, "rest", &rest))
        }
        DumpItem::Rest { position, bytes, why, .. } => {
            writeln!(out, "  no frame from {position} on, {bytes} bytes: {why}")
        }
        other => writeln!(out, "  {other:?}"),
    }
}

fn at(segment: u64, position: u64, kind: &str, what: &Value) -> Value {
    json!({ "segment": segment, "position": position, kind: what })
}

fn shown(record: &Record, full: bool) -> String {
    let mut text = format!("{record:?}");
    if !full && let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

/// Somebody who closes the pipe has seen enough.
fn written(told: io::Result<()>) -> Result<(), Failure> {
    match told {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("cannot write: {error}")))
        }
        _ => Ok(()),
    }
}
