//! One participant of the article's example: it prepares, and commits or aborts as it is told.
//!
//! ```text
//! cargo run --release -p handfast --features sqlite --example participant -- participant1
//! cargo run --release -p handfast --features sqlite --example participant -- participant2 no
//! ```
//!
//! With `no` it refuses what it is asked. Kill it between its two lines and start it again: it
//! finds in its store what it had prepared, asks what was decided, and finishes.

#![expect(clippy::print_stdout, reason = "its lines are what it is for")]

use handfast::service::rusqlite::Connection;
use handfast::service::{Handler, HandlerError, No, Prepared, SqliteStore};
use handfast::{Handfast, TransactionId};

struct Participant {
    name: String,
    refuses: bool,
}

impl Handler<Connection> for Participant {
    fn prepare(&self, _: &Connection, _: TransactionId, work: &[u8]) -> Result<Prepared, No> {
        if self.refuses {
            println!("{}: no", self.name);
            return Err(No::new("I was told to say no"));
        }
        println!("{}: prepare ({})", self.name, String::from_utf8_lossy(work));
        Ok(Prepared::Yes)
    }

    fn commit(&self, _: &Connection, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        println!("{}: commit", self.name);
        Ok(())
    }

    fn abort(&self, _: &Connection, _: TransactionId, _: &[u8]) -> Result<(), HandlerError> {
        println!("{}: abort", self.name);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("name the participant: participant1, participant2, ...")?;
    let refuses = arguments.next().is_some_and(|word| word == "no");
    let server = std::env::var("HANDFAST_SERVER");
    let hf = Handfast::connect(server.unwrap_or("http://127.0.0.1:7400".into())).await?;
    let store = SqliteStore::open(format!("{name}.db"))?;
    println!("{name}: ready");
    let handler = Participant { name: name.clone(), refuses };
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    hf.service(&name).store(store).handler(handler).run(stop).await?;
    Ok(())
}
