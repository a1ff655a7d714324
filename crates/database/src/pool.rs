//! A connection on loan. Only one that did its whole work goes back: after a failure, a time-out
//! or a cancelled call nobody knows what state it is in, so it is closed.
//!
//! A pool keeps trying a database that is gone until its time is over, and then says that its time
//! is over. So who waits for longer than a moment knocks at the database itself, past the pool, and
//! says what came of that.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::{ConnectOptions, Connection, Database};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::fault::Fault;

/// So long the pool has before somebody knocks, and between two knocks.
const MOMENT: Duration = Duration::from_millis(500);
/// How long a database may take to let somebody in who knocks.
const KNOCK: Duration = Duration::from_secs(2);

/// The connections of one kind of work.
pub(crate) struct Pool<DB: Database> {
    pool: sqlx::Pool<DB>,
    fault: fn(&sqlx::Error) -> Fault,
    /// What came of the last knock, and when. One knocks at a time, for all who wait.
    knocked: Mutex<Option<(Instant, Result<(), Fault>)>>,
}

impl<DB: Database> Pool<DB> {
    /// Connects nowhere yet. `fault` reads the errors of this database.
    pub(crate) fn new(
        options: PoolOptions<DB>,
        connect: <DB::Connection as Connection>::Options,
        fault: fn(&sqlx::Error) -> Fault,
    ) -> Self {
        let pool = options.connect_lazy_with(connect);
        Self { pool, fault, knocked: Mutex::new(None) }
    }

    /// A connection, or why there is none: at once where the database refuses it, and after two
    /// knocks at most where it does not answer.
    pub(crate) async fn lease(&self) -> Result<Lease<DB>, Fault> {
        let acquire = self.pool.acquire();
        tokio::pin!(acquire);
        tokio::select! {
            biased;
            acquired = &mut acquire => match acquired {
                Ok(connection) => Ok(Lease { connection: Some(connection), sound: false }),
                Err(sqlx::Error::PoolTimedOut) => Err(self.gave_up()),
                Err(error) => Err((self.fault)(&error)),
            },
            fault = self.shut() => Err(fault),
        }
    }

    fn bound(&self) -> Duration {
        self.pool.options().get_acquire_timeout()
    }

    fn moment(&self) -> Duration {
        MOMENT.min(self.bound() / 4)
    }

    /// The pool's time is over. The database lets people in, or nothing is known.
    fn gave_up(&self) -> Fault {
        let knocked = self.knocked.try_lock();
        if knocked.is_ok_and(|knocked| matches!(&*knocked, Some((_, Ok(()))))) {
            return Fault::Busy(self.bound());
        }
        Fault::TimedOut(self.bound())
    }

    /// Ends when the database lets nobody in.
    async fn shut(&self) -> Fault {
        loop {
            sleep(self.moment()).await;
            if let Err(fault) = self.knock_with_others().await {
                return fault;
            }
        }
    }

    async fn knock_with_others(&self) -> Result<(), Fault> {
        let mut knocked = self.knocked.lock().await;
        if let Some((at, came)) = &*knocked
            && at.elapsed() < self.moment()
        {
            return came.clone();
        }
        let came = self.knock().await;
        *knocked = Some((Instant::now(), came.clone()));
        came
    }

    /// Whether the database lets somebody in, by a connection of its own.
    pub(crate) async fn knock(&self) -> Result<(), Fault> {
        let options = self.pool.connect_options();
        let open = async {
            let mut connection = options.connect().await?;
            connection.ping().await?;
            // It was let in; how it leaves says nothing more.
            drop(connection);
            Ok(())
        };
        match timeout(KNOCK, open).await {
            Ok(came) => came.map_err(|error| (self.fault)(&error)),
            Err(_) => Err(Fault::TimedOut(KNOCK)),
        }
    }
}

pub(crate) struct Lease<DB: Database> {
    // Some until it is dropped.
    connection: Option<PoolConnection<DB>>,
    sound: bool,
}

impl<DB: Database> Lease<DB> {
    /// Gives the connection back: its last statement was answered, and it is in no transaction.
    pub(crate) fn give_back(mut self) {
        self.sound = true;
    }
}

impl<DB: Database> Deref for Lease<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.connection.as_ref().expect("a lease has its connection until it is dropped")
    }
}

impl<DB: Database> DerefMut for Lease<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.connection.as_mut().expect("a lease has its connection until it is dropped")
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && !self.sound
        {
            // Dropping the bare connection closes its socket; the pool may open another.
            drop(connection.detach());
        }
    }
}

/// The answer to a call, or [`Fault::TimedOut`]. The work is dropped at the bound, and the
/// connection it holds with it.
pub(crate) async fn within<T>(
    bound: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match timeout(bound, work).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::TimedOut(bound)),
    }
}
