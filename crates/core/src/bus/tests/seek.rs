//! Seeking: deliveries under way become void, and the rest is delivered from the new place.

use super::world::{World, name};
use crate::command::{Command, Start};
use crate::ids::Offset;
use crate::output::Reply;
use crate::record::SubscriptionSettings;
use crate::refusal::Code;

fn world() -> World {
    let mut world = World::with_subscription(SubscriptionSettings::default());
    for key in [1, 1, 2, 0] {
        world.publish("t", key, "x");
    }
    world.settle();
    world.subscribe(7, "s", 100);
    world
}

fn seek(to: Start) -> Command {
    Command::Seek { subscription: name("s"), to }
}

#[test]
fn a_seek_back_delivers_again_when_it_is_durable() {
    let mut world = world();
    let refs = world.took_refs();
    world.acknowledge(&refs);
    let held = world.took_refs();
    world.send(1, seek(Start::Earliest));
    let acknowledge = world.send(1, Command::Acknowledge { deliveries: held });
    world.accept();
    while world.read() {}
    assert_eq!(world.took(), []);
    assert!(!world.replies.contains_key(&acknowledge), "the refusal would reveal the seek");
    world.settle();
    assert_eq!(world.took(), [(0, 1), (2, 1), (3, 1)]);
    let Some(Reply::Acknowledged { refused }) = world.replies.get(&acknowledge) else { panic!() };
    assert_eq!(refused[0].1.code, Code::DeliveryExpired);
    world.check_fold();
}

#[test]
fn a_seek_forward_skips() {
    let mut world = world();
    let refs = world.took_refs();
    assert_eq!(world.ask(1, seek(Start::At(Offset(3)))), Reply::Sought { offset: Offset(3) });
    assert_eq!(world.took(), [(3, 1)]);
    assert_eq!(world.acknowledge(&refs), [Code::DeliveryExpired; 3]);
    assert_eq!(world.ask(1, seek(Start::Latest)), Reply::Sought { offset: Offset(4) });
    assert_eq!(world.refused(1, seek(Start::At(Offset(5)))), Code::OffsetOutOfRange);
    world.publish("t", 1, "x");
    world.settle();
    assert_eq!(world.took(), [(4, 1)]);
    world.check_fold();
}

/// An acknowledgement was on its way when the seek came: it is folded before the seek, so the
/// event is delivered again, and its late durability frees nothing that is not its own.
#[test]
fn acknowledgements_under_way_come_before_the_seek() {
    let mut world = world();
    let refs = world.took_refs();
    world.send(7, Command::Acknowledge { deliveries: refs });
    world.send(1, seek(Start::At(Offset(1))));
    world.send(1, seek(Start::At(Offset(2))));
    world.settle();
    assert_eq!(world.took(), [(2, 1), (3, 1)]);
    world.check_fold();
}
