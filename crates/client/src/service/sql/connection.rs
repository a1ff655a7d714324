//! A store's one connection, with the runtime that drives it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::ops::AsyncFnOnce;
use std::str::FromStr;
use std::time::Duration;

use handfast_core::ids::{Name, StateId};
use sqlx::Connection;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::error::Error;
use super::text::{self, Key};
use super::{Keeper, LAYOUT};

/// How long a step waits for its turn, and a handler for a lock.
pub(super) const TURN: Duration = Duration::from_secs(10);
/// How long an answer is waited for, and a handler's whole work in one call.
const ANSWER: Duration = Duration::from_secs(30);

type Options<D> = <<D as sqlx::Database>::Connection as Connection>::Options;

/// What a handler reads and writes through: the connection with the step's transaction open.
pub struct SqlConnection<D: Keeper> {
    /// None: there is none, or nobody knows what state it is in. Before the runtime, so that it
    /// is dropped before it.
    connection: RefCell<Option<D::Connection>>,
    runtime: OwnRuntime,
    options: Options<D>,
}

impl<D: Keeper> SqlConnection<D> {
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Runtime(error.to_string()))?;
        let options = Options::<D>::from_str(url)?;
        let runtime = OwnRuntime(Some(runtime));
        Ok(Self { connection: RefCell::new(None), runtime, options })
    }

    /// Runs a handler's statements on the connection, to their end. They see what the step has
    /// written before, and take effect with it. All of it may take 30 s.
    ///
    /// # Errors
    /// What `work` says. When it takes too long, or the connection is lost already, an error of
    /// the driver; the step is lost then.
    ///
    /// # Panics
    /// Inside another `run`, and inside an async function: it blocks.
    pub fn run<T, E: From<sqlx::Error>>(
        &self,
        work: impl AsyncFnOnce(&mut D::Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut place = self.connection.borrow_mut();
        let Some(connection) = place.as_mut() else {
            let gone = std::io::ErrorKind::NotConnected;
            return Err(sqlx::Error::Io(gone.into()).into());
        };
        let ended = self.runtime.block_on(async { timeout(ANSWER, work(connection)).await });
        ended.unwrap_or_else(|_| {
            // Nobody knows what it would have done next: the step ends with the connection.
            *place = None;
            Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into())
        })
    }

    /// Runs what the store itself has to say, connecting first if there is no connection. After a
    /// failure there is none.
    pub(super) fn call<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut D::Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Self { connection, runtime, options } = self;
        let place = connection.get_mut();
        let called = runtime.block_on(async {
            let whole = async {
                let connection = match place {
                    Some(connection) => connection,
                    None => place.insert(connect::<D>(options).await?),
                };
                work(connection).await
            };
            timeout(ANSWER, whole).await.unwrap_or(Err(Error::TimedOut(ANSWER)))
        });
        if called.is_err() {
            *place = None;
        }
        called
    }

    /// As [`SqlConnection::call`], in a transaction that is open: another connection is of no use.
    pub(super) fn go_on<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut D::Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if !self.is_there() {
            return Err(Error::StepEnded("the connection was lost".to_owned()));
        }
        self.call(work)
    }

    /// Whether there is a connection of which everything is known.
    pub(super) fn is_there(&mut self) -> bool {
        self.connection.get_mut().is_some()
    }

    /// Closes it, which also rolls back.
    pub(super) fn discard(&mut self) {
        *self.connection.get_mut() = None;
    }

    /// Finds the state of a service, or makes it.
    pub(super) fn open(&mut self, service: Name) -> Result<Key, Error> {
        self.call(async |connection| {
            let fresh = StateId(uuid::Uuid::new_v4().as_u128());
            let make =
                format!("{}; {}; COMMIT", D::begin(TURN), text::make_state::<D>(&service, fresh));
            D::run(connection, make).await?;
            // The update of the first step makes durable what is read here.
            let rows = D::rows(connection, text::read_state::<D>(&service)).await?;
            D::run(connection, "ROLLBACK".to_owned()).await?;
            let [row] = &rows[..] else { return Err(Error::Gone(fresh)) };
            let layout = text::required(D::number(row, 1)?)?;
            if layout != LAYOUT {
                return Err(Error::OtherLayout { found: layout, known: LAYOUT });
            }
            // A new state may stand in old tables, which are not made anew.
            let looked = D::rows(connection, text::look::<D>()).await;
            looked.map_err(Error::OtherTables)?;
            Ok(Key { service, state: StateId(text::sixteen::<D>(row, 0)?) })
        })
    }
}

async fn connect<D: Keeper>(options: &Options<D>) -> Result<D::Connection, Error> {
    let mut connection = D::Connection::connect_with(options).await?;
    match D::set_up(&mut connection, TURN).await? {
        None => Ok(connection),
        Some(why) => Err(Error::NotDurable(why)),
    }
}

impl<D: Keeper> fmt::Debug for SqlConnection<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlConnection").finish_non_exhaustive()
    }
}

/// A runtime that may be dropped anywhere: a store that is not run yet is often held by an async
/// function, where dropping a runtime would panic.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("a runtime is there until it is dropped").block_on(work)
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
