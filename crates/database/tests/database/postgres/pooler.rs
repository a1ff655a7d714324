//! A pooler in transaction mode between the server and PostgreSQL: the doctor said "good", or failed
//! by chance with a word of the driver, and the server came up and went down in turns (K4).
//!
//! The pooler here is one of a few lines, so that the test needs none installed.

use std::sync::Arc;

use handfast_database::doctor::Grade;
use handfast_database::{Options, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

use super::Bench;
use crate::servers::POSTGRES;

#[tokio::test(flavor = "multi_thread")]
async fn k4_a_pooler_in_transaction_mode_is_named() {
    let bench = Bench::new().await;
    assert_eq!(bench.database.check().await.finding("pooler").unwrap().grade, Grade::Good);
    let server = POSTGRES.url();
    let address = server.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
    for takes_last in [true, false] {
        let port = pooler(&address, &bench.name, takes_last).await;
        let url = format!("postgres://postgres@127.0.0.1:{port}/{}", bench.name);
        let report = connect(&url, Options::default()).unwrap().check().await;
        let finding = report.finding("pooler").unwrap();
        assert_eq!(finding.grade, Grade::Fail, "{report:#?}");
        assert!(finding.what.contains("transaction mode"), "{}", finding.what);
        assert!(!report.allows_local() && !report.allows_distributed());
    }
}

type Sessions = Arc<Mutex<Vec<TcpStream>>>;

/// Two sessions of PostgreSQL for whoever connects, one transaction at a time each. The next
/// transaction gets the session that was used last, or the one that has waited longest.
async fn pooler(server: &str, database: &str, takes_last: bool) -> u16 {
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let mut session = TcpStream::connect(server).await.unwrap();
        let parameters = format!("user\0postgres\0database\0{database}\0\0");
        let length = u32::try_from(8 + parameters.len()).unwrap();
        session.write_all(&length.to_be_bytes()).await.unwrap();
        session.write_all(&196_608_u32.to_be_bytes()).await.unwrap();
        session.write_all(parameters.as_bytes()).await.unwrap();
        while frame(&mut session).await.unwrap().0 != b'Z' {}
        sessions.push(session);
    }
    let (sessions, free) = (Arc::new(Mutex::new(sessions)), Arc::new(Semaphore::new(2)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, Arc::clone(&sessions), Arc::clone(&free), takes_last));
        }
    });
    port
}

/// One client. Ends when it leaves.
async fn serve(
    mut client: TcpStream,
    sessions: Sessions,
    free: Arc<Semaphore>,
    takes_last: bool,
) -> Option<()> {
    loop {
        let length = client.read_u32().await.ok()?;
        let code = client.read_u32().await.ok()?;
        let mut rest = vec![0; length as usize - 8];
        client.read_exact(&mut rest).await.ok()?;
        // It asks for TLS first, and takes no for an answer.
        if code == 196_608 {
            break;
        }
        client.write_all(b"N").await.ok()?;
    }
    client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.ok()?;
    loop {
        let mut first = Some(frame(&mut client).await?);
        let permit = free.acquire().await.ok()?;
        let mut session = {
            let mut sessions = sessions.lock().await;
            if takes_last { sessions.pop()? } else { sessions.remove(0) }
        };
        // Until its transaction is over.
        loop {
            let (kind, bytes) = match first.take() {
                Some(frame) => frame,
                None => frame(&mut client).await?,
            };
            session.write_all(&bytes).await.ok()?;
            if !matches!(kind, b'Q' | b'S') {
                continue;
            }
            let status = loop {
                let (kind, bytes) = frame(&mut session).await?;
                client.write_all(&bytes).await.ok()?;
                if kind == b'Z' {
                    break bytes[5];
                }
            };
            if status == b'I' {
                break;
            }
        }
        sessions.lock().await.push(session);
        drop(permit);
    }
}

async fn frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await.ok()?;
    let length = stream.read_u32().await.ok()?;
    let mut bytes = vec![0; 1 + length as usize];
    bytes[0] = kind;
    bytes[1..5].copy_from_slice(&length.to_be_bytes());
    stream.read_exact(&mut bytes[5..]).await.ok()?;
    Some((kind, bytes))
}
