//! How every single transaction of a run ended, and whether the events that can be read are
//! exactly those of the ones that committed.

/// How a transaction ended, as its caller knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was not asked for, or its end is not known.
    #[default]
    Unknown,
    Committed,
    Failed,
    Refused,
}

/// By number.
#[derive(Debug, Default)]
pub(super) struct Fates(Vec<Fate>);

impl Fates {
    pub(super) fn set(&mut self, number: u64, fate: Fate) {
        let number = usize::try_from(number).expect("a run has fewer transactions than addresses");
        if self.0.len() <= number {
            self.0.resize(number + 1, Fate::Unknown);
        }
        self.0[number] = fate;
    }

    fn get(&self, number: u64) -> Fate {
        let fate = usize::try_from(number).ok().and_then(|number| self.0.get(number));
        fate.copied().unwrap_or_default()
    }

    pub(super) fn count(&self, fate: Fate) -> u64 {
        self.0.iter().filter(|found| **found == fate).count() as u64
    }
}

/// The events of a topic, compared with what became of their transactions.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    fates: &'a Fates,
    events_each: u16,
    /// By transaction and event.
    seen: Vec<bool>,
    read: u64,
    doubled: u64,
    /// Of transactions that did not commit.
    foreign: u64,
}

impl<'a> Reading<'a> {
    pub(super) fn new(fates: &'a Fates, events_each: u16) -> Self {
        let seen = vec![false; fates.0.len() * usize::from(events_each)];
        Self { fates, events_each, seen, read: 0, doubled: 0, foreign: 0 }
    }

    /// An event was read; none: it does not say of which transaction.
    pub(super) fn event(&mut self, event: Option<(u64, u16)>) {
        self.read += 1;
        let Some((number, event)) = event.filter(|(_, event)| *event < self.events_each) else {
            self.foreign += 1;
            return;
        };
        match self.fates.get(number) {
            Fate::Failed | Fate::Refused => self.foreign += 1,
            Fate::Committed | Fate::Unknown => {}
        }
        let at = number * u64::from(self.events_each) + u64::from(event);
        match usize::try_from(at).ok().and_then(|at| self.seen.get_mut(at)) {
            Some(seen) if *seen => self.doubled += 1,
            Some(seen) => *seen = true,
            None => self.foreign += 1,
        }
    }

    /// How many were read, and what is wrong.
    pub(super) fn end(self) -> (u64, Vec<String>) {
        let each = usize::from(self.events_each);
        let committed =
            self.fates.0.iter().enumerate().filter(|(_, fate)| **fate == Fate::Committed);
        let lost: usize = committed
            .map(|(number, _)| &self.seen[number * each..(number + 1) * each])
            .map(|seen| seen.iter().filter(|seen| !**seen).count())
            .sum();
        let problems = [
            (lost as u64, "events of committed transactions are lost"),
            (self.doubled, "events are there twice"),
            (self.foreign, "events are there of transactions that did not commit"),
        ];
        let told = problems.into_iter().filter(|(count, _)| *count > 0);
        (self.read, told.map(|(count, what)| format!("{count} {what}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_are_lost_doubled_or_foreign_are_found() {
        let mut fates = Fates::default();
        fates.set(0, Fate::Committed);
        fates.set(1, Fate::Failed);
        fates.set(2, Fate::Committed);
        let events = [(0, 0), (0, 1), (2, 0), (2, 1)];
        let problems = |events: &[(u64, u16)]| {
            let mut reading = Reading::new(&fates, 2);
            events.iter().for_each(|event| reading.event(Some(*event)));
            reading.end().1
        };
        assert_eq!(problems(&events), Vec::<String>::new());
        assert_eq!(problems(&events[1..]), ["1 events of committed transactions are lost"]);
        assert_eq!(problems(&[&events[..], &[(2, 1)]].concat()), ["1 events are there twice"]);
        let foreign = ["1 events are there of transactions that did not commit"];
        assert_eq!(problems(&[&events[..], &[(1, 0)]].concat()), foreign);
        assert_eq!(problems(&[&events[..], &[(7, 0)]].concat()), foreign);
    }
}
