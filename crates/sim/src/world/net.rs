//! Streams between the server and everybody else. Messages on a stream arrive in order, or, when
//! it breaks, only a first part of them does.

use std::collections::VecDeque;

use handfast_core::command::Command;
use handfast_core::event::{Delivery, OffsetRange};
use handfast_core::ids::{Name, TransactionId};
use handfast_core::output::{Reply, ToService};

/// Whose stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A client, by index.
    Client(usize),
    /// An instance of a service: service and instance, by index.
    Instance(usize, usize),
    /// A subscriber, by index.
    Subscriber(usize),
    /// A publisher, by index.
    Publisher(usize),
}

/// What the server sends.
#[derive(Clone, Debug)]
pub(super) enum Down {
    /// An answer to a request.
    Reply(u64, Reply),
    /// To a service.
    ToService(ToService),
    /// To a subscriber.
    Deliver(Delivery),
    /// To a subscriber.
    Gap(OffsetRange),
    /// To a client: a branch that it holds.
    Finish { id: TransactionId, database: Name, commit: bool },
    /// The stream is over.
    End,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Whose.
    pub peer: Peer,
    /// On their way to the server, with the request's number.
    pub up: VecDeque<(u64, Command)>,
    /// On their way from it.
    pub down: VecDeque<Down>,
    /// The peer has left, or the stream is broken: the server learns of it after `up`.
    pub broken: bool,
}

impl Stream {
    /// A new stream.
    #[must_use]
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, up: VecDeque::new(), down: VecDeque::new(), broken: false }
    }
}
