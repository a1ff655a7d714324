//! A connection to a database that is lost at a chosen moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Forwards to a database, until the application says a word. The database still gets that; the
/// application gets no answer any more, and its connection ends when the test says so.
pub(crate) struct Proxy {
    pub(crate) url: String,
    /// From now on.
    armed: Arc<AtomicBool>,
    cut: Arc<Notify>,
}

impl Proxy {
    pub(crate) async fn before(url: &str, word: &'static str) -> Self {
        let (head, rest) = url.split_once('@').unwrap();
        let (to, name) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{name}", listener.local_addr().unwrap());
        let to = to.to_owned();
        let (armed, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        tokio::spawn({
            let (armed, cut) = (Arc::clone(&armed), Arc::clone(&cut));
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let database = TcpStream::connect(&to).await.unwrap();
                    let (armed, cut) = (Arc::clone(&armed), Arc::clone(&cut));
                    tokio::spawn(async move {
                        let said = forward(socket, database, word, &armed).await;
                        // Dropped afterwards, both.
                        if said.is_some() {
                            cut.notified().await;
                        }
                    });
                }
            }
        });
        Self { url, armed, cut }
    }

    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Ends the connection over which the word was said. A message of several statements is answered
    /// one by one, so the database has done the last of them only when its effect is there to be
    /// seen: wait for that first.
    pub(crate) fn cut(&self) {
        self.cut.notify_one();
    }
}

/// Ends with both connections, still open, when the word was said.
async fn forward(
    mut application: TcpStream,
    mut database: TcpStream,
    word: &'static str,
    armed: &AtomicBool,
) -> Option<(TcpStream, TcpStream)> {
    let (mut from_application, mut from_database) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            read = application.read(&mut from_application) => {
                let Ok(length @ 1..) = read else { return None };
                let said = &from_application[..length];
                database.write_all(said).await.unwrap();
                let has = said.windows(word.len()).any(|window| window == word.as_bytes());
                if has && armed.load(Ordering::SeqCst) {
                    return Some((application, database));
                }
            }
            read = database.read(&mut from_database) => {
                let Ok(length @ 1..) = read else { return None };
                application.write_all(&from_database[..length]).await.unwrap();
            }
        }
    }
}
