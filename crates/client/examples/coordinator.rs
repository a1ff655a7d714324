//! The other side of the article's example: one transaction over `participant1` and
//! `participant2`, and an event that appears only if both commit.
//!
//! ```text
//! cargo run --release -p handfast --example coordinator
//! ```

#![expect(clippy::print_stdout, reason = "its lines are what it is for")]

use handfast::{Event, Handfast, TopicSettings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("HANDFAST_SERVER");
    let hf = Handfast::connect(server.unwrap_or("http://127.0.0.1:7400".into())).await?;
    hf.create_topic("agreements", TopicSettings::new()).await?;
    let outcome = hf
        .transaction(|tx| {
            tx.call("participant1", "your half");
            tx.call("participant2", "your half");
            tx.publish("agreements", Event::new("agreement.made", "/example").with_text("agreed"));
        })
        .await;
    match outcome {
        Ok(committed) => println!("{}: Committed", committed.id),
        Err(error) => println!("{error}"),
    }
    Ok(())
}
