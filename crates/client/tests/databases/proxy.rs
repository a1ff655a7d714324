//! A connection to a database that is lost at a chosen moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Forwards to a database, until the application says a word; then the database still gets it, and
/// the application does not get the answer.
pub(crate) struct Proxy {
    pub(crate) url: String,
    /// From now on.
    armed: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) async fn before(url: &str, word: &'static str) -> Self {
        let (head, rest) = url.split_once('@').unwrap();
        let (to, name) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{name}", listener.local_addr().unwrap());
        let (to, armed) = (to.to_owned(), Arc::new(AtomicBool::new(false)));
        tokio::spawn({
            let armed = Arc::clone(&armed);
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let database = TcpStream::connect(&to).await.unwrap();
                    tokio::spawn(forward(socket, database, word, Arc::clone(&armed)));
                }
            }
        });
        Self { url, armed }
    }

    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }
}

async fn forward(
    mut application: TcpStream,
    mut database: TcpStream,
    word: &'static str,
    armed: Arc<AtomicBool>,
) {
    let (mut from_application, mut from_database) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            read = application.read(&mut from_application) => {
                let Ok(length @ 1..) = read else { return };
                let said = &from_application[..length];
                database.write_all(said).await.unwrap();
                let has = said.windows(word.len()).any(|window| window == word.as_bytes());
                if has && armed.load(Ordering::SeqCst) {
                    // Its answer: the database has done it.
                    let _ = database.read(&mut from_database).await;
                    return;
                }
            }
            read = database.read(&mut from_database) => {
                let Ok(length @ 1..) = read else { return };
                application.write_all(&from_database[..length]).await.unwrap();
            }
        }
    }
}
