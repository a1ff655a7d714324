//! The encoding of records: every record comes back, nothing else is taken for one.

use bytes::Bytes;
use handfast_core::ids::{Lsn, TransactionId};
use handfast_core::record::{Abort, Reason, ReasonCode, Record};
use handfast_journal::codec::{decode, encode};
use handfast_journal::testing::any_record;
use handfast_journal::{GROUP_BYTES, record_bytes};
use proptest::prelude::*;

fn encoded(record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    encode(record, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn every_record_comes_back(record in any_record()) {
        let bytes = encoded(&record);
        prop_assert_eq!(decode(Bytes::from(bytes.clone())), Ok(record.clone()));
        prop_assert_eq!(record_bytes(&record), bytes.len() as u64 + 16);
    }

    #[test]
    fn a_record_cut_short_or_with_more_behind_it_is_refused(
        record in any_record(),
        at in any::<prop::sample::Index>(),
        more in any::<u8>(),
    ) {
        let mut bytes = encoded(&record);
        let cut = bytes[..at.index(bytes.len())].to_vec();
        prop_assert!(decode(Bytes::from(cut)).is_err());
        bytes.push(more);
        prop_assert!(decode(Bytes::from(bytes)).is_err());
    }

    #[test]
    fn every_value_has_one_encoding(
        record in any_record(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut bytes = encoded(&record);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        if let Ok(other) = decode(Bytes::from(bytes.clone())) {
            prop_assert_ne!(&other, &record);
            prop_assert_eq!(encoded(&other), bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), tag in 0u8..30) {
        let mut tagged = vec![tag];
        tagged.extend_from_slice(&bytes);
        for bytes in [bytes, tagged] {
            if let Ok(record) = decode(Bytes::from(bytes.clone())) {
                prop_assert_eq!(encoded(&record), bytes);
            }
        }
    }

    /// The core reckons the room that a record needs; the log must never need more.
    #[test]
    fn the_core_never_reckons_too_little(record in any_record()) {
        prop_assert!(record_bytes(&record) + GROUP_BYTES <= record.size_bound());
    }
}

#[test]
fn every_reason_code_has_its_own_number() {
    let mut seen = std::collections::BTreeSet::new();
    for code in ReasonCode::ALL {
        let reason =
            Reason { code: *code, participant: None, detail: String::new(), retryable: false };
        let abort = Abort { id: TransactionId(0), previous: Lsn(0), wall_ms: 0, reason };
        let bytes = encoded(&Record::Abort(abort.clone()));
        assert_eq!(decode(Bytes::from(bytes.clone())), Ok(Record::Abort(abort)));
        assert!(seen.insert(bytes), "{code:?}");
    }
}

#[test]
fn bodies_are_slices_of_what_was_read() {
    use handfast_core::event::{Body, PlacedEvent};
    use handfast_core::ids::{Digest, Offset, ProducerId, TopicId};
    use handfast_core::record::Published;
    let event = PlacedEvent {
        topic: TopicId(1),
        offset: Offset(2),
        key: None,
        body: Body::Here(Bytes::from_static(b"an event")),
    };
    let (producer, digest, events) = (ProducerId(3), Digest(6), vec![event]);
    let record = Published { producer, sequence: 4, digest, wall_ms: 5, events };
    let bytes = Bytes::from(encoded(&Record::Published(record)));
    let Ok(Record::Published(read)) = decode(bytes.clone()) else { panic!("it was published") };
    let Body::Here(body) = &read.events[0].body else { panic!("the body is there") };
    assert!(bytes.as_ptr_range().contains(&body.as_ptr()));
}

/// A length that promises more than there is must not allocate it.
#[test]
fn lying_lengths_are_refused() {
    for tag in 1..=25u8 {
        for filler in [0xff, 0x7f, 0x80] {
            let bytes = [&[tag][..], &[filler; 64]].concat();
            assert!(decode(Bytes::from(bytes)).is_err() || filler == 0x7f, "{tag} {filler}");
        }
    }
}
