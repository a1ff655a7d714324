//! What has nothing to do with one database: picking one by its URL, and one that is down.

use std::time::Duration;

use handfast_core::input::Resolution;
use handfast_database::doctor::Grade;
use handfast_database::{ConnectError, End, Fault, Finished, Kind, Options, connect};

use crate::servers::branch;

#[tokio::test]
async fn a_database_is_picked_by_its_scheme() {
    for (url, kind) in [
        ("postgres://u:p@h:1/d", Kind::Postgres),
        ("postgresql://u@h/d", Kind::Postgres),
        ("mysql://u@h/d", Kind::MariaDb),
        ("mariadb://u@h/d", Kind::MariaDb),
    ] {
        let database = connect(url, Options::default()).unwrap();
        assert_eq!(database.kind(), kind, "{url}");
    }
    let refused = |url| connect(url, Options::default()).err();
    assert_eq!(refused("sqlite://x"), Some(ConnectError::Scheme));
    assert_eq!(refused("nonsense"), Some(ConnectError::Scheme));
    assert_eq!(refused("postgres://u@h"), Some(ConnectError::NoDatabase));
    assert_eq!(refused("mysql://u@h"), Some(ConnectError::NoDatabase));
    // What the driver does not understand is not repeated: a password may be in it.
    let error = refused("postgres://user:secret@h:port/d").unwrap();
    assert!(matches!(error, ConnectError::Url(_)) && !error.to_string().contains("secret"));
}

#[tokio::test]
async fn a_database_that_is_down_is_unknown_and_nothing_blocks() {
    // Nobody listens on port 1; and a socket that is listened on by nobody who answers.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let options = Options::default().with_call_timeout(Duration::from_millis(300));
    for url in ["postgres://u@127.0.0.1:1/d", "mysql://u@127.0.0.1:1/d"]
        .map(str::to_owned)
        .into_iter()
        .chain([
            format!("postgres://u@127.0.0.1:{port}/d"),
            format!("mysql://u@127.0.0.1:{port}/d"),
        ])
    {
        let database = connect(&url, options.clone()).unwrap();
        let id = branch();
        assert!(matches!(database.finish(&id, End::Commit, None).await, Finished::Unknown(_)));
        assert_eq!(database.resolve(&id).await, Resolution::Unknown, "{url}");
        let fault = database.list().await.unwrap_err();
        assert!(matches!(fault, Fault::Unreachable(_) | Fault::TimedOut(_)), "{url}: {fault}");
        assert!(fault.is_retryable());
        let report = database.check().await;
        assert_eq!(report.grade, Grade::Fail, "{url}");
        assert!(!report.allows_local() && !report.allows_distributed());
    }
}
