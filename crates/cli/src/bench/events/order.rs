//! Whether the events of a topic come each once and in the order of their keys.

use std::collections::BTreeMap;

use super::message::Message;

/// One topic as one consumer group sees it.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// By key: the number that has to come next.
    next: Vec<u64>,
    /// By key: how many came.
    came: Vec<u64>,
    wrong: BTreeMap<&'static str, u64>,
}

impl Order {
    /// An event came; none: it is not of this run.
    pub(super) fn came(&mut self, message: Option<Message>) {
        let Some(Message { key, number, .. }) = message else {
            return self.is_wrong("events that nobody published");
        };
        let key = key as usize;
        if self.next.len() <= key {
            self.next.resize(key + 1, 0);
            self.came.resize(key + 1, 0);
        }
        let next = self.next[key];
        if number < next {
            self.is_wrong("events that came twice, or after later ones of their key");
        } else if number > next {
            self.is_wrong("events whose predecessor of the same key had not come");
        }
        self.next[key] = next.max(number + 1);
        self.came[key] += 1;
    }

    /// An event was delivered again although nothing had failed.
    pub(super) fn is_redelivered(&mut self) {
        self.is_wrong("events that were delivered again");
    }

    fn is_wrong(&mut self, what: &'static str) {
        *self.wrong.entry(what).or_default() += 1;
    }

    /// By key: how many came; and what is wrong.
    pub(super) fn end(self) -> (Vec<u64>, Vec<String>) {
        (self.came, self.wrong.iter().map(|(what, count)| format!("{count} {what}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(numbers: &[(u32, u64)]) -> Vec<String> {
        let mut order = Order::default();
        for (key, number) in numbers {
            let message = Message { key: *key, number: *number, sent_ns: 0, counts: true };
            order.came(Some(message));
        }
        order.end().1
    }

    #[test]
    fn what_is_doubled_missing_or_out_of_order_is_found() {
        assert!(problems(&[(0, 0), (1, 0), (0, 1), (1, 1)]).is_empty());
        let twice = ["1 events that came twice, or after later ones of their key"];
        assert_eq!(problems(&[(0, 0), (0, 1), (0, 1)]), twice);
        let missing = ["1 events whose predecessor of the same key had not come"];
        assert_eq!(problems(&[(0, 0), (0, 2)]), missing);
        assert_eq!(problems(&[(0, 1), (0, 0), (0, 2)]).len(), 2);
    }
}
