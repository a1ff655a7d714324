//! A network between somebody and a database, that can stop.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// See the module. It works until it is stopped.
pub(crate) struct Network {
    /// The database's URL by this network.
    pub(crate) url: String,
    stopped: watch::Sender<bool>,
}

impl Network {
    pub(crate) async fn to(url: &str) -> Self {
        let (head, rest) = url.split_once('@').unwrap();
        let (to, name) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{head}@{}/{name}", listener.local_addr().unwrap());
        let (to, (stopped, is_stopped)) = (to.to_owned(), watch::channel(false));
        tokio::spawn(async move {
            while let Ok((application, _)) = listener.accept().await {
                tokio::spawn(carry(application, to.clone(), is_stopped.clone()));
            }
        });
        Self { url, stopped }
    }

    /// From now on nothing arrives at the database, not even that somebody is gone.
    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// It works again. Connections from before it was stopped are lost.
    pub(crate) fn go_on(&self) {
        self.stopped.send_replace(false);
    }
}

/// Until it is stopped, or goes on; also when the test is over.
async fn until(stopped: &mut watch::Receiver<bool>, is: bool) {
    // Not to be kept: it would hold up whoever stops it.
    let _ = stopped.wait_for(|stopped| *stopped == is).await;
}

async fn carry(mut application: TcpStream, to: String, mut stopped: watch::Receiver<bool>) {
    until(&mut stopped, false).await;
    let Ok(mut database) = TcpStream::connect(&to).await else { return };
    let mut goes_on = stopped.clone();
    let (mut from_application, mut from_database) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            biased;
            () = until(&mut stopped, true) => {
                // Both ends stay open, and nobody reads what is said.
                until(&mut goes_on, false).await;
                return;
            }
            read = application.read(&mut from_application) => {
                let Ok(length @ 1..) = read else { return };
                if database.write_all(&from_application[..length]).await.is_err() {
                    return;
                }
            }
            read = database.read(&mut from_database) => {
                let Ok(length @ 1..) = read else { return };
                if application.write_all(&from_database[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
