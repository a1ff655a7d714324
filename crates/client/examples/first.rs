//! The first transaction of the README: two services act and an event appears, all or nothing.
//!
//! ```text
//! cargo run --release -p handfast --example first
//! ```

#![expect(clippy::print_stdout, reason = "its lines are what it is for")]

use handfast::{Event, Handfast, TopicSettings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hf = Handfast::connect("http://127.0.0.1:7400").await?;
    hf.create_topic("transfers", TopicSettings::new()).await?;
    let committed = hf
        .transaction(|tx| {
            tx.call("east", r#"{"account":7,"cents":-100}"#);
            tx.call("west", r#"{"account":8,"cents":100}"#);
            tx.publish("transfers", Event::new("transfer.made", "/bank").with_key("7"));
        })
        .await?;
    println!("{} is {}", committed.id, if committed.finished { "done" } else { "decided" });
    Ok(())
}
