//! Events that several streams had when those ended or fell silent. One of them may be why, so each
//! is delivered alone until it is answered: then the one that ends its streams is the only one
//! whose attempts count (D7).

use alloc::vec::Vec;

use super::Reach;
use super::attach::Stream;
use super::subscription::Subscription;
use crate::event::StoredEvent;
use crate::ids::{Offset, SessionId};
use crate::output::Wanted;

impl Subscription {
    /// Fetches events that are delivered alone, for streams that have nothing else. If there is no
    /// such stream one is emptied: it gets nothing new. Says whether something was fetched.
    pub(super) fn fetch_suspects(&mut self, reach: &mut Reach<'_>) -> bool {
        if !self.window.has_suspects() {
            if let Some(session) = self.emptied.take() {
                self.make_room(reach, session);
            }
            return false;
        }
        let streams = self.sessions.iter().filter_map(|session| reach.streams.get(session));
        let idle = streams.filter(|stream| stream.is_idle()).count();
        if idle == 0 {
            self.empty_one(reach);
            return false;
        }
        let mut offsets: Vec<Offset> = self.window.suspects().take(idle).collect();
        offsets.sort_unstable();
        self.ask(reach, Wanted::Offsets(offsets.clone()), offsets);
        true
    }

    /// Gives an event to a stream that has nothing else, if there still is one.
    pub(super) fn hand_out_alone(&mut self, reach: &mut Reach<'_>, event: StoredEvent) {
        let is_idle =
            |session: &&SessionId| reach.streams.get(session).is_some_and(Stream::is_idle);
        let Some(session) = self.sessions.iter().find(is_idle).copied() else { return };
        if let Some(stream) = reach.streams.get_mut(&session) {
            stream.alone = true;
        }
        self.make_room(reach, session);
        self.hand_to(reach, session, event);
    }

    /// Chooses a stream that gets nothing new, unless there is one already or one that has such an
    /// event and will be free for the next.
    fn empty_one(&mut self, reach: &mut Reach<'_>) {
        let able = |session: &SessionId| reach.streams.get(session).filter(|s| s.is_able());
        let is_coming = |session: &SessionId| {
            able(session).is_some_and(|stream| stream.alone || self.emptied == Some(*session))
        };
        if self.sessions.iter().any(is_coming) {
            return;
        }
        let with_load = |session: &SessionId| Some((able(session)?.under_way, *session));
        let Some((_, session)) = self.sessions.iter().filter_map(with_load).min() else { return };
        let before = self.emptied.replace(session);
        if let Some(before) = before {
            self.make_room(reach, before);
        }
        self.make_room(reach, session);
    }
}
