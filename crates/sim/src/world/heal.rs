//! The end of every run: faults are over, everybody is up, time runs, and all that was begun has
//! to end, within a bound.

use std::collections::BTreeSet;

use handfast_core::ids::TransactionId;

use super::World;
use crate::invariants::Seen;

/// The longest deadline, the longest pause between two attempts, and some more.
const BOUND_MS: u64 = 600_000;
/// Rounds without time in which everything has to come to rest.
const ROUNDS: usize = 300;

impl World {
    /// See the module.
    pub(super) fn heal(&mut self) {
        self.healing = true;
        self.trace.line(format_args!("{} healing", self.now.mono_ms));
        self.instances_up();
        self.subscribers_start_anew();
        for at in 0..self.databases.len() {
            if !self.databases[at].up {
                self.toggle_database(at);
            }
            self.adopt(at);
        }
        let end_ms = self.now.mono_ms + BOUND_MS;
        let give_up_ms = self.now.mono_ms + 30_000;
        loop {
            self.settle();
            if self.checkers.violation.is_some() {
                return;
            }
            let left = self.left_undone();
            if left.is_none() || self.now.mono_ms >= end_ms {
                return self.see(&Seen::End(left.as_deref()));
            }
            if self.now.mono_ms >= give_up_ms {
                for at in 0..self.clients.len() {
                    self.client_finishes(at);
                }
            }
            let now = self.now.mono_ms;
            let stores = self.services.iter().flat_map(|s| &s.stores);
            let inquiries = stores.filter_map(super::service::Store::next_inquiry_ms);
            let next = inquiries.chain(self.core.next_deadline()).min().unwrap_or(now);
            // What is overdue and does not happen is not waited for millisecond by millisecond.
            self.advance(if next > now { (next - now).min(2_000) } else { 500 });
            self.tick();
        }
    }

    /// Everything that can happen without time happens.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            if self.checkers.violation.is_some() {
                return;
            }
            let before = self.inputs;
            for session in self.streams.keys().copied().collect::<Vec<_>>() {
                while self.streams.get(&session).is_some_and(|s| s.broken || !s.up.is_empty()) {
                    self.deliver_up(session);
                    if self.checkers.violation.is_some() {
                        return;
                    }
                }
            }
            self.settle_disk();
            for session in self.streams.keys().copied().collect::<Vec<_>>() {
                while self.streams.get(&session).is_some_and(|s| !s.down.is_empty()) {
                    self.deliver_down(session);
                }
            }
            while !self.fetches.is_empty() && self.checkers.violation.is_none() {
                self.answer_fetch();
            }
            while !self.chains.is_empty() && self.checkers.violation.is_none() {
                self.answer_chain();
            }
            for _ in 0..=2 * (self.finishes.len() + self.resolves.len() + self.verifies.len()) {
                self.database_step();
            }
            self.everybody_acts();
            if self.inputs == before && !self.is_moving() {
                return;
            }
        }
    }

    fn everybody_acts(&mut self) {
        for at in 0..self.clients.len() {
            self.client_act(at);
        }
        for service in 0..self.services.len() {
            for at in 0..self.services[service].instances.len() {
                self.instance_act(service, at);
            }
        }
        for at in 0..self.subscribers.len() {
            self.subscriber_act(at);
        }
        for at in 0..self.publishers.len() {
            self.publisher_act(at);
        }
    }

    fn is_moving(&self) -> bool {
        self.streams.values().any(|s| s.broken || !s.up.is_empty() || !s.down.is_empty())
            || !self.fetches.is_empty()
            || !self.chains.is_empty()
    }

    /// What is not finished, for people; none when all is.
    fn left_undone(&self) -> Option<String> {
        let mut left = Vec::new();
        let facts = &self.facts;
        let open: BTreeSet<TransactionId> = facts
            .chains
            .iter()
            .filter(|(id, c)| {
                // What was forced against a COMMIT waits for a person.
                let forced = facts.disasters.contains(id) && facts.decision(**id) == Some(true);
                c.begin.is_some() && c.end.is_none() && !forced
            })
            .map(|(id, _)| *id)
            .collect();
        if !open.is_empty() {
            left.push(format!("open transactions {open:?}"));
        }
        if facts.stats.open > open.len() + facts.disasters.len() {
            left.push(format!("{} transactions open in the core", facts.stats.open));
        }
        for service in &self.services {
            for store in &service.stores {
                let prepared: Vec<TransactionId> =
                    store.prepared().filter(|id| !facts.disasters.contains(id)).collect();
                if !prepared.is_empty() {
                    left.push(format!("prepared in {}: {prepared:?}", service.name));
                }
            }
        }
        let prepared: Vec<_> = facts.prepared.iter().filter(|b| !self.is_left_alone(b)).collect();
        if !prepared.is_empty() {
            left.push(format!("prepared in databases: {prepared:?}"));
        }
        if let Some(client) = self.clients.iter().find(|c| !c.is_idle()) {
            left.push(format!("a client waits: {client:?}"));
        }
        if self.publishers.iter().any(|p| !p.is_idle()) {
            left.push("publishers wait".into());
        }
        if self.subscribers.iter().any(|s| !s.held.is_empty()) {
            left.push("deliveries are held".into());
        }
        for name in self.subscriptions() {
            let found = facts.subscriptions.iter().find(|(_, (_, created))| created.name == name);
            let Some((id, (_, created))) = found else {
                left.push(format!("no subscription {name}"));
                continue;
            };
            let cut = facts.durable_start(created.topic).0;
            let open = facts.events.keys().filter(|(topic, offset)| {
                *topic == created.topic
                    && *offset >= created.start
                    && offset.0 >= cut
                    && !facts.done.contains_key(&(*id, *offset))
            });
            let open: Vec<u64> = open.map(|(_, offset)| offset.0).collect();
            if !open.is_empty() {
                left.push(format!("not done in {name}: offsets {open:?}"));
            }
        }
        if left.is_empty() { None } else { Some(left.join("; ")) }
    }
}
